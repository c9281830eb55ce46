"""The tutorial's own requests and its own analysis, unchanged, against the gateway."""

import json
import subprocess
import sys
from decimal import Decimal

from conftest import exact, until

# Step 4, the body as it stands in the `curl` command.
STEP_4 = """{"model": "mistral-7b", "prompt": "Explain PagedAttention in two sentences.", "max_tokens": 80, "user": "tenant-acme"}"""

# Step 6, the requests of the file exporter's test.
STEP_6 = [
    {"prompt": "Summarise the Transformer architecture.", "model": "mistral-7b", "max_tokens": 60, "user": "tenant-a"},
    {"prompt": "What is RLHF?", "model": "llama-3-8b", "max_tokens": 40, "user": "tenant-b"},
    {"prompt": "Describe vLLM PagedAttention.", "model": "mistral-7b", "max_tokens": 80, "user": "tenant-a"},
]

# Step 6, from where the file is read, as it is printed there.
ANALYSIS = '''
with open(SPAN_FILE) as f:
    records = [json.loads(line) for line in f]

print(f"Total spans: {len(records)}")
total_cost = sum(r["attributes"].get("llm.estimated_cost_usd", 0) for r in records)
print(f"Total estimated cost across {len(records)} requests: ${total_cost:.8f}")

by_user: dict[str, float] = {}
for r in records:
    user = r["attributes"].get("llm.user", "unknown")
    by_user[user] = by_user.get(user, 0) + r["attributes"].get("llm.estimated_cost_usd", 0)

print("Cost by tenant:")
for user, cost_sum in sorted(by_user.items()):
    print(f"  {user}: ${cost_sum:.8f}")

print("file_exporter_ok")
'''

# "Verify it works", as it is printed there.
VERIFY = '''
import json
with open('/tmp/spans.ndjson') as f:
    lines = f.readlines()
print(f'span_file_lines: {len(lines)}')
first = json.loads(lines[0])
print('first_span_name:', first['name'])
print('first_span_model:', first['attributes'].get('llm.model', 'n/a'))
print('verify_complete')
'''


def post(gateway, body):
    response = gateway.http.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text
    return exact(response)


def test_step_4_answers_with_the_tutorials_fields(gateway):
    answer = post(gateway, STEP_4)
    assert answer["model"] == "mistral-7b"
    assert answer["prompt_tokens"] == answer["usage"]["prompt_tokens"] > 0
    assert answer["completion_tokens"] == answer["usage"]["completion_tokens"] > 0
    assert answer["text"] == answer["choices"][0]["text"] and len(answer["text"].split()) > 3
    assert len(answer["trace_id"]) == 32 and int(answer["trace_id"], 16)
    expected = (answer["prompt_tokens"] * Decimal("0.00010") + answer["completion_tokens"] * Decimal("0.00020")) / 1000
    assert answer["estimated_cost_usd"] == expected
    assert gateway.http.get("/health").json()["status"] == "ok"


def test_step_5_the_spans_hold_what_the_tutorial_asserts(gateway):
    answer = post(gateway, STEP_4)
    root_span = gateway.root_span(answer["trace_id"])
    spans = until(lambda: (s := gateway.spans(answer["trace_id"])) and len(s) >= 5 and s, what="five spans")
    span_names = [s["name"] for s in spans]
    assert sorted(span_names) == sorted(
        ["inference.request", "inference.queue", "inference.tokenize", "inference.prefill", "inference.decode"]
    )
    attrs = root_span["attributes"]
    assert attrs["llm.model"] == "mistral-7b"
    assert attrs["llm.user"] == "tenant-acme"
    assert attrs["llm.max_tokens"] == 80
    assert attrs["llm.prompt_tokens"] == answer["prompt_tokens"]
    assert attrs["llm.completion_tokens"] == answer["completion_tokens"]
    assert attrs["llm.total_tokens"] == answer["prompt_tokens"] + answer["completion_tokens"]
    assert attrs["llm.estimated_cost_usd"] == float(answer["estimated_cost_usd"])
    assert attrs["llm.trace_id"] == answer["trace_id"]
    assert attrs["llm.request_id"] and attrs["llm.request_id"] in answer["id"]
    by_name = {s["name"]: s["attributes"] for s in spans}
    assert by_name["inference.tokenize"]["llm.prompt_length_chars"] == len(json.loads(STEP_4)["prompt"])
    assert by_name["inference.tokenize"]["llm.prompt_tokens"] == answer["prompt_tokens"]
    assert by_name["inference.prefill"]["llm.prefill_latency_ms"] >= 0
    assert by_name["inference.decode"]["llm.completion_tokens"] == answer["completion_tokens"]
    assert by_name["inference.decode"]["llm.decode_latency_ms"] > 0
    for span in spans:
        tutorials_fields = {
            "trace_id", "span_id", "name", "start_time_ns", "end_time_ns", "duration_ms", "attributes", "status", "service"
        }  # fmt: skip
        assert tutorials_fields <= span.keys()
        nanos = span["end_time_ns"] - span["start_time_ns"]
        assert abs(span["duration_ms"] - nanos / 1_000_000) <= 0.0005001
        assert span["status"] in ("UNSET", "OK", "ERROR")
        assert root_span["start_time_ns"] <= span["start_time_ns"] <= span["end_time_ns"] <= root_span["end_time_ns"]


def test_step_6_cost_by_tenant_from_our_file(start_gateway):
    gateway = start_gateway()
    costs = {}
    for request in STEP_6:
        cost = post(gateway, json.dumps(request))["estimated_cost_usd"]
        costs[request["user"]] = costs.get(request["user"], 0) + cost
    gateway.stop()
    script = f"import json\nSPAN_FILE = {str(gateway.span_file)!r}\n{ANALYSIS}"
    printed = run(script)
    assert "file_exporter_ok" in printed
    for tenant, cost in costs.items():
        assert f"  {tenant}: ${cost:.8f}" in printed, printed
    assert f"requests: ${sum(costs.values()):.8f}" in printed, printed

    printed = run(VERIFY.replace("/tmp/spans.ndjson", str(gateway.span_file)))
    assert "verify_complete" in printed and "span_file_lines: 15" in printed


def run(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
