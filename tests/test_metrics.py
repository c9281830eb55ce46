"""What is counted of requests, as independent parsers, a real Prometheus and OTLP receivers read it; the alert rules; and log
lines that say which request they are of."""

import gzip
import json
import re
import shutil
import subprocess
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_classic

from conftest import ROOT, free_port, read_events, until
from receivers import attributes
from test_admin import OPEN_METRICS, TOKEN, Admin

RULES = ROOT / "host/assets/prometheus"
GEN_AI_SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
# Bounds as the conventions and vLLM publish them.
BOUNDS = {
    "gen_ai_server_request_duration_seconds": GEN_AI_SECONDS,
    "gen_ai_server_time_to_first_token_seconds": [
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    ],
    "gen_ai_server_time_per_output_token_seconds": [
        *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
    ],
    "gen_ai_client_token_usage": [4.0**power for power in range(14)],
    "vllm:time_to_first_token_seconds": [
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0),
        *(80.0, 160.0, 640.0, 2560.0),
    ],
    "vllm:e2e_request_latency_seconds": [
        *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0),
        *(960.0, 1920.0, 7680.0),
    ],
}


@pytest.fixture
def start_counted(start_gateway):
    """Starts gateways with an admin API and with variables of their own."""

    def start(env=(), arguments=(), **options):
        port = free_port()
        arguments = ["--admin-listen", f"127.0.0.1:{port}", *arguments]
        env = {"TOLLGATE_ADMIN_TOKEN": TOKEN, **dict(env)}
        return Admin(start_gateway(arguments=arguments, env=env, **options), port)

    return start


def ask(gateway):
    """A completion, a chat and a streamed chat of two tenants, and a request that is refused; the answers of the three."""
    plain = gateway.complete(user="acme", max_tokens=6)
    messages = [{"role": "user", "content": "What is a span?"}]
    body = {"model": "gpt-4o-mini", "messages": messages, "max_tokens": 5, "user": "zeta"}
    chat = gateway.http.post("/v1/chat/completions", json=body).json()
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    with gateway.http.stream("POST", "/v1/chat/completions", json={**body, **streamed}) as response:
        last = read_events(response.iter_lines())[-1]
    assert gateway.http.post("/v1/completions", json={"model": "none", "prompt": "x"}).status_code == 404
    return [plain, chat, last]


def sums(samples, name, **labels):
    return sum(value for found, value in samples.get(name, []) if labels.items() <= found.items())


def test_what_was_answered_is_what_is_counted(start_counted):
    admin = start_counted()
    answers = ask(admin.gateway)
    samples = admin.metrics()
    used = [answer["usage"] for answer in answers]
    tokens = sum(usage["total_tokens"] for usage in used)
    assert sums(samples, "llm_total_tokens_total") == tokens
    by_zeta = sum(usage["total_tokens"] for usage in used[1:])
    assert sums(samples, "llm_total_tokens_total", llm_user="zeta", llm_model="gpt-4o-mini") == by_zeta
    cost = sum(float(answer["estimated_cost_usd"]) for answer in answers)
    assert sums(samples, "llm_estimated_cost_usd_total") == pytest.approx(cost, rel=1e-12)
    assert sums(samples, "tollgate_cost_total", currency="USD", tenant="acme") == float(answers[0]["estimated_cost_usd"])

    assert sums(samples, "gen_ai_server_request_duration_seconds_count") == 4
    refused = {"error_type": "model_not_found", "gen_ai_request_model": "other"}
    assert sums(samples, "gen_ai_server_request_duration_seconds_count", **refused) == 1
    chats = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "gpt-4o-mini", "gen_ai_provider_name": "tollgate"}
    assert sums(samples, "gen_ai_server_time_to_first_token_seconds_count", **chats) == 2
    assert sums(samples, "gen_ai_client_token_usage_sum", gen_ai_token_type="output") == sum(
        usage["completion_tokens"] for usage in used
    )
    served = next(model["root"] for model in admin.gateway.http.get("/v1/models").json()["data"])
    by_model = {"model_name": served}
    assert sums(samples, "vllm:prompt_tokens_total", **by_model) == sum(usage["prompt_tokens"] for usage in used)
    assert sums(samples, "vllm:generation_tokens_total", **by_model) == sum(usage["completion_tokens"] for usage in used)
    assert sums(samples, "vllm:request_success_total", **by_model) == 3
    assert sums(samples, "vllm:num_requests_running", **by_model) == sums(samples, "vllm:num_requests_waiting") == 0
    assert sums(samples, "vllm:e2e_request_latency_seconds_count", **by_model) == 3
    assert sums(samples, "tollgate_requests_in_flight") == 0

    for family, bounds in BOUNDS.items():
        found = {float(labels["le"]) for labels, _ in samples[f"{family}_bucket"]}
        assert sorted(found) == [*bounds, float("inf")], family


def test_the_gateways_own_time_is_a_part_of_the_whole(start_counted):
    admin = start_counted()
    for _ in range(5):
        admin.gateway.complete(max_tokens=4)
    samples = admin.metrics()
    assert sums(samples, "tollgate_gateway_overhead_seconds_count", operation="text_completion", stream="false") == 5
    own = sums(samples, "tollgate_gateway_overhead_seconds_sum")
    whole = sums(samples, "gen_ai_server_request_duration_seconds_sum")
    assert 0 < own < whole + 1


def test_sums_reconcile(start_counted):
    admin = start_counted()
    ask(admin.gateway)

    def delivered():
        samples = admin.metrics()
        return samples if sums(samples, "tollgate_exporter_pending") == 0 else None

    samples = until(delivered, what="delivery")
    started, finished = (sums(samples, f"tollgate_ledger_{name}_total") for name in ("started", "finished"))
    assert (started, finished, sums(samples, "tollgate_ledger_refused_total")) == (3, 3, 1)
    assert sums(samples, "tollgate_ledger_aborted_total") == sums(samples, "tollgate_ledger_in_flight") == 0
    assert sums(samples, "tollgate_ledger_available") == 1
    exporters = {labels["exporter"] for labels, _ in samples["tollgate_exporter_records_total"]}
    assert "ndjson" in exporters
    for exporter in exporters:
        named = ("records", "delivered", "filtered", "rejected")
        counts = [sums(samples, f"tollgate_exporter_{name}_total", exporter=exporter) for name in named]
        assert counts == [4, 4, 0, 0], exporter


def test_both_formats_say_the_same_and_one_has_exemplars(start_counted):
    admin = start_counted()
    traces = {admin.gateway.complete(max_tokens=3)["trace_id"]}
    pages = {accept: admin.http.get("/metrics", headers={"accept": accept}).text for accept in (OPEN_METRICS, "text/plain")}
    families = list(read_open_metrics(pages[OPEN_METRICS]))
    classic = list(read_classic(pages["text/plain"]))
    assert {f.name: f.type for f in families} == {f.name: f.type for f in classic}
    assert all(family.documentation for family in families)

    def stable(families):
        """The samples of what no longer changes once the request has ended."""
        kept = [f for f in families if f.name.startswith(("llm_", "gen_ai_", "vllm:", "tollgate_requests", "tollgate_cost"))]
        return {(s.name, *sorted(s.labels.items())): s.value for family in kept for s in family.samples}

    assert stable(families) == stable(classic) != {}
    seen = [(s.name, s.exemplar) for family in families for s in family.samples if s.exemplar]
    assert {exemplar.labels["trace_id"] for _, exemplar in seen} == traces
    assert all(len(exemplar.labels["span_id"]) == 16 for _, exemplar in seen)
    assert all(abs(float(exemplar.timestamp) - time.time()) < 60 for _, exemplar in seen)
    named = {name.removesuffix("_bucket") for name, _ in seen}
    assert named >= {*BOUNDS, "tollgate_gateway_overhead_seconds"}


def test_a_tenant_may_call_itself_anything(start_counted):
    admin = start_counted()
    tenants = ['ü"\n\\' * 51, "{}", "# EOF", '"} 1', " ", "a=b,c"]
    for tenant in tenants:
        admin.gateway.complete(max_tokens=1, user=tenant)
    found = [labels["llm_user"] for labels, _ in admin.metrics()["llm_total_tokens_total"]]
    assert sorted(found) == sorted(tenants)
    page = admin.http.get("/metrics", headers={"accept": "text/plain"}).text
    classic = next(family for family in read_classic(page) if family.name == "llm_total_tokens")
    assert sorted(sample.labels["llm_user"] for sample in classic.samples) == sorted(tenants)


# The alert rules.


def promtool(*arguments):
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; Debian has it in the package prometheus")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, cwd=RULES)


def test_promtool_takes_the_rules_and_each_of_them_fires():
    for arguments in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    rules = set(re.findall(r"- alert: (\w+)", (RULES / "alerts.yml").read_text()))
    tests = (RULES / "alerts_test.yml").read_text()
    fired = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n\s+- exp_labels", tests))
    assert rules == fired and len(rules) > 20
    told = set(re.findall(r"`(Tollgate\w+)`", (RULES / "README.md").read_text()))
    assert told == rules, "each has a line that says what to do"


def test_a_rule_that_is_wrong_is_found(tmp_path):
    rules = (RULES / "alerts.yml").read_text()
    assert "tollgate_ledger_available == 0" in rules
    (tmp_path / "alerts.yml").write_text(rules.replace("tollgate_ledger_available == 0", "tollgate_ledger_available == 1"))
    shutil.copyfile(RULES / "alerts_test.yml", tmp_path / "alerts_test.yml")
    done = promtool("test", "rules", str(tmp_path / "alerts_test.yml"))
    assert done.returncode != 0 and "TollgateLedgerUnavailable" in done.stdout + done.stderr


# Absent until there is something to tell: without a budget, and before the first request without a price.
SOMETIMES = {"tollgate_ledger_budget_bytes"}
BACKENDS = """
[[backend]]
name = "away"
url = "http://127.0.0.1:9/v1"
provider = "other"
models = ["far-model"]

[[backend]]
name = "sick"
url = "http://127.0.0.1:9/v1"
provider = "other"
models = ["sick-model"]
health = { path = "/health", every-ms = 500 }
"""
BUDGET = """
[[tenant]]
name = "acme"
[[tenant.budget]]
amount = "12.50"
currency = "USD"
per = "day"
"""


def test_the_rules_ask_for_what_there_is(start_counted, tmp_path):
    (tmp_path / "backends.toml").write_text(BACKENDS)
    (tmp_path / "keys.toml").write_text(BUDGET)
    files = ["--backends", tmp_path / "backends.toml", "--keys-file", tmp_path / "keys.toml"]
    admin = start_counted(arguments=["--model", "demo", *files])
    answer = admin.gateway.complete(max_tokens=1, user="acme")
    far = lambda: admin.gateway.http.post("/v1/completions", json={"model": "far-model", "prompt": "x"}).json()["error"]["code"]  # noqa: E731
    kinds = {far() for _ in range(30)}
    assert kinds == {"backend_error", "backend_unavailable"}
    counted = admin.metrics()["gen_ai_server_request_duration_seconds_count"]
    assert {labels.get("error_type") for labels, _ in counted if labels["gen_ai_request_model"] == "far-model"} == kinds
    until(lambda: admin.value("tollgate_backend_healthy", backend="sick") == 0, 30, "a check that is not passed")
    until(lambda: admin.value("tollgate_backend_breaker", backend="away", state="open") == 1, 30, "an open breaker")
    of_acme = {"tenant": "acme", "key": "", "per": "day", "currency": "USD"}
    assert [(labels, value) for labels, value in admin.metrics()["tollgate_budget_amount"]] == [(of_acme, 12.5)]
    assert admin.value("tollgate_budget_spent", **of_acme) == float(answer["cost"]["amount"])
    asked = set(re.findall(r"\b(tollgate_[a-z_]+)(?=[\s\[{*)-])", expressions()))
    assert len(asked) > 15
    missing = asked - SOMETIMES - set(admin.metrics())
    assert not missing


def expressions():
    """The expressions of all rules, a line each."""
    text = (RULES / "alerts.yml").read_text()
    found = re.findall(r"expr: (?:>-\n((?:          .*\n)+)|(.*)\n)", text)
    return "\n".join(" ".join(folded.split()) + plain + " " for folded, plain in found)


@pytest.fixture
def start_prometheus(tmp_path):
    """A real Prometheus that scrapes one target every half second, with our rules."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed; Debian has it in the package prometheus")
    running = []

    def start(admin):
        target = admin.url.removeprefix("http://")
        rules = tmp_path / "alerts.yml"
        shutil.copyfile(RULES / "alerts.yml", rules)
        (tmp_path / "token").write_text(TOKEN)
        (tmp_path / "prometheus.yml").write_text(
            f"global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\nrule_files: [{rules}]\n"
            f"scrape_configs:\n- job_name: tollgate\n  authorization: {{credentials_file: {tmp_path / 'token'}}}\n"
            f"  static_configs: [{{targets: ['{target}']}}]\n"
        )
        port = free_port()
        arguments = [f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        arguments += [f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage"]
        log = (tmp_path / "prometheus.txt").open("wb")
        running.append((subprocess.Popen([program, *arguments], stdout=log, stderr=log), log))
        return httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30, trust_env=False)

    yield start
    for process, log in running:
        process.kill()
        process.wait()
        log.close()


def test_a_real_prometheus_scrapes_it(start_counted, start_prometheus):
    admin = start_counted()
    answers = ask(admin.gateway)
    prometheus = start_prometheus(admin)

    def query(expression):
        try:
            answer = prometheus.get("/query", params={"query": expression})
        except httpx.TransportError:
            return []
        return answer.json()["data"]["result"] if answer.status_code == 200 else []

    until(lambda: query("llm_total_tokens_total"), 30, "the first scrape")
    assert query("up")[0]["value"][1] == "1"
    tokens = sum(answer["usage"]["total_tokens"] for answer in answers)
    assert query("sum(llm_total_tokens_total)")[0]["value"][1] == str(tokens)
    names = 'count({__name__=~"gen_ai_server_request_duration_seconds_bucket|vllm:e2e_request_latency_seconds_bucket"})'
    assert int(query(names)[0]["value"][1]) > 30
    health = 'scrape_samples_scraped{job="tollgate"} - scrape_samples_post_metric_relabeling{job="tollgate"}'
    assert query(health)[0]["value"][1] == "0"

    now = time.time()
    window = {"query": "gen_ai_server_request_duration_seconds_bucket", "start": now - 60, "end": now + 60}
    exemplars = prometheus.get("/query_exemplars", params=window).json()["data"]
    traces = {exemplar["labels"]["trace_id"] for series in exemplars for exemplar in series["exemplars"]}
    assert traces & {answers[0]["trace_id"]}

    groups = prometheus.get("/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 10
    until(lambda: all(r["health"] == "ok" for g in prometheus.get("/rules").json()["data"]["groups"] for r in g["rules"]), 30)
    assert all(rule["state"] == "inactive" for rule in rules), [r["name"] for r in rules if r["state"] != "inactive"]


# OTLP.


class Metrics:
    """What came in: the newest points of each metric, by name."""

    def __init__(self):
        self.requests, self.headers, self.metrics, self.resource = 0, [], {}, None
        self._lock = threading.Lock()

    def receive(self, request, headers):
        with self._lock:
            self.requests += 1
            self.headers.append(headers)
            for resource_metrics in request.resource_metrics:
                self.resource = attributes(resource_metrics.resource.attributes)
                for scope_metrics in resource_metrics.scope_metrics:
                    names = [metric.name for metric in scope_metrics.metrics]
                    assert len(names) == len(set(names)), "a metric stands twice in one request"
                    self.metrics |= {metric.name: metric for metric in scope_metrics.metrics}

    def points(self, name, **labels):
        with self._lock:
            metric = self.metrics.get(name)
        if metric is None:
            return []
        points = getattr(metric, metric.WhichOneof("data")).data_points
        return [p for p in points if labels.items() <= attributes(p.attributes).items()]


class GrpcMetrics(Metrics, MetricsServiceServicer):
    protocol = "grpc"

    def __enter__(self):
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        add_MetricsServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()

    def Export(self, request, context):  # noqa: N802 - the service's name for it
        self.receive(request, dict(context.invocation_metadata()))
        return ExportMetricsServiceResponse()


class HttpMetrics(Metrics):
    protocol = "http/protobuf"

    def __enter__(self):
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802 - the base class's name for it
                body = self.rfile.read(int(self.headers["Content-Length"]))
                known = self.path == "/v1/metrics"
                if known:
                    if self.headers.get("Content-Encoding") == "gzip":
                        body = gzip.decompress(body)
                    headers = {name.lower(): text for name, text in self.headers.items()}
                    receiver.receive(ExportMetricsServiceRequest.FromString(body), headers)
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(params=[GrpcMetrics, HttpMetrics], ids=["grpc", "http"])
def receiver(request):
    with request.param() as receiver:
        yield receiver


def pushed_to(receiver, every=100, **more):
    """Metrics only: the receiver takes no traces."""
    names = {"ENDPOINT": receiver.endpoint, "PROTOCOL": receiver.protocol, **more}
    env = {f"OTEL_EXPORTER_OTLP_{name}": text for name, text in names.items()}
    return env | {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRIC_EXPORT_INTERVAL": str(every)}


def test_metrics_arrive_by_otlp_as_they_are(start_counted, receiver):
    env = pushed_to(receiver, HEADERS="x-key=secret", COMPRESSION="gzip") | {"OTEL_SERVICE_NAME": "till"}
    admin = start_counted(env=env)
    answer = admin.gateway.complete(max_tokens=6, user="acme")
    until(lambda: receiver.points("llm.total_tokens"), what="metrics by OTLP")
    assert receiver.resource["service.name"] == "till"
    assert receiver.headers[0]["x-key"] == "secret"

    (tokens,) = receiver.points("llm.total_tokens")
    assert tokens.as_int == answer["usage"]["total_tokens"]
    assert attributes(tokens.attributes) == {"llm.model": "mistral-7b", "llm.user": "acme"}
    assert 0 < tokens.start_time_unix_nano < tokens.time_unix_nano
    (cost,) = receiver.points("llm.estimated_cost_usd")
    assert cost.as_double == float(answer["estimated_cost_usd"])

    duration = receiver.metrics["gen_ai.server.request.duration"]
    assert duration.unit == "s" and duration.histogram.aggregation_temporality == 2
    (point,) = duration.histogram.data_points
    assert list(point.explicit_bounds) == GEN_AI_SECONDS
    assert point.count == sum(point.bucket_counts) == 1 and len(point.bucket_counts) == 15
    assert attributes(point.attributes).keys() == {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
    }
    assert [exemplar.trace_id.hex() for exemplar in point.exemplars] == [answer["trace_id"]]
    usage = receiver.metrics["gen_ai.client.token.usage"]
    assert usage.unit == "{token}" and {attributes(p.attributes)["gen_ai.token.type"] for p in usage.histogram.data_points} == {
        "input",
        "output",
    }
    assert receiver.metrics["tollgate.plugin.memory"].unit == "By"
    before = receiver.requests
    until(lambda: receiver.requests > before, what="the next push")
    (again,) = receiver.points("llm.total_tokens")
    assert again.as_int == tokens.as_int, "cumulative"
    assert again.start_time_unix_nano == tokens.start_time_unix_nano


def test_the_last_metrics_leave_at_the_end(start_counted, receiver):
    admin = start_counted(env=pushed_to(receiver, every=3_600_000))
    answers = [admin.gateway.complete(max_tokens=2) for _ in range(3)]
    assert receiver.requests == 0
    admin.gateway.stop()
    tokens = sum(answer["usage"]["total_tokens"] for answer in answers)
    assert sum(point.as_int for point in receiver.points("llm.total_tokens")) == tokens


def test_whoever_takes_no_metrics_is_told_of_once(start_counted):
    env = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_METRIC_EXPORT_INTERVAL": "50"}
    admin = start_counted(env=env)
    until(lambda: "metrics cannot be pushed" in admin.gateway.log(), what="the warning")
    admin.gateway.still_serves()
    time.sleep(0.5)
    admin.gateway.stop()
    assert admin.gateway.log().count("metrics cannot be pushed") == 1


# The log.

TALKS = '[[plugin]]\nfile = "hostile.wasm"\nconfig = { act = "log-flood", on = "price", after = 3, n = 1 }\n'
IDS = re.compile(r"request\{trace_id=([0-9a-f]{32}) request_id=([0-9a-f]{32})\}")


def lines_of(gateway, word):
    return [line for line in gateway.log().splitlines() if word in line]


def test_log_lines_say_which_request_they_are_of(start_gateway):
    gateway = start_gateway(plugins=["hostile"], plugins_toml=TALKS)
    answers = [gateway.complete(max_tokens=1) for _ in range(6)]
    lines = until(lambda: lines_of(gateway, "request{"), what="a line of a request")
    found = {IDS.search(line).groups() for line in lines}
    assert found <= {(answer["trace_id"], answer["id"].removeprefix("cmpl-")) for answer in answers}
    start = lines_of(gateway, "tollgate::start")
    assert start and not [line for line in start if "trace_id" in line]


def test_log_lines_in_json_have_the_trace_at_the_top(start_gateway):
    gateway = start_gateway(plugins=["hostile"], plugins_toml=TALKS, arguments=["--log-format", "json"])
    answers = [gateway.complete(max_tokens=1) for _ in range(6)]

    def lines():
        return [json.loads(line) for line in gateway.log().splitlines() if line.startswith('{"') and '"timestamp"' in line]

    until(lambda: any("trace_id" in line for line in lines()), what="a line of a request")
    assert all({"timestamp", "level", "target", "message"} <= line.keys() for line in lines())
    found = {(line["trace_id"], line["request_id"]) for line in lines() if "trace_id" in line}
    assert found <= {(answer["trace_id"], answer["id"].removeprefix("cmpl-")) for answer in answers}
    assert any("api" in line for line in lines()), "fields keep their names"
