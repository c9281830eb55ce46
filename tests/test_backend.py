"""A real tracing backend, Arize Phoenix, takes our spans in and gives them back through its own API."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from conftest import environment, free_port, until
from senders import chat, export, post, span

START_SECONDS = 120


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phoenix")
    http, grpc = free_port(), free_port()
    env = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(http),
        "PHOENIX_GRPC_PORT": str(grpc),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with (folder / "log.txt").open("wb") as log:
        program = Path(sys.executable).with_name("phoenix")
        process = subprocess.Popen([program, "serve"], env=environment(env), cwd=folder, stdout=log, stderr=log)
    client = httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=30, trust_env=False)

    def ready():
        assert process.poll() is None, (folder / "log.txt").read_text()
        try:
            return client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(ready, START_SECONDS, "Phoenix")
        yield client, {"http/protobuf": f"http://127.0.0.1:{http}", "grpc": f"http://127.0.0.1:{grpc}"}
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_spans_are_there_with_tree_and_cost(start_gateway, phoenix, protocol):
    client, endpoints = phoenix
    project = protocol.replace("/", "-")
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoints[protocol],
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_RESOURCE_ATTRIBUTES": f"openinference.project.name={project}",
    }
    gateway = start_gateway(env=env)
    answers = [gateway.complete(model=model, max_tokens=6) for model in ("mistral-7b", "gpt-4o-mini", "llama-3-8b")]
    gateway.stop()

    def stored():
        response = client.get(f"/v1/projects/{project}/spans", params={"limit": 100})
        spans = response.json()["data"] if response.status_code == 200 else []
        return len(spans) >= 5 * len(answers) and spans

    spans = until(stored, 30, "all spans in Phoenix")
    assert len(spans) == 5 * len(answers)
    for answer in answers:
        trace = [span for span in spans if span["context"]["trace_id"] == answer["trace_id"]]
        (root,) = [span for span in trace if span["name"] == "inference.request"]
        assert {span["parent_id"] for span in trace if span is not root} == {root["context"]["span_id"]}
        assert root["attributes"]["tollgate.cost.amount"] == answer["cost"]["amount"]
        assert root["attributes"]["llm.estimated_cost_usd"] == float(answer["estimated_cost_usd"])
        # Its own name for what it understood of ours.
        assert root["attributes"]["llm.token_count.prompt"] == answer["prompt_tokens"]


def test_spans_of_others_are_there_with_their_cost(start_gateway, phoenix):
    client, endpoints = phoenix
    port = free_port()
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoints["grpc"], "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    gateway = start_gateway(env=env, arguments=["--otlp-listen", f"127.0.0.1:{port}"])
    gateway.otlp = f"http://127.0.0.1:{port}"
    # Phoenix takes spans and no metrics: these are left out and hold nothing up.
    assert post(gateway, b"\x0a\x00", path="/v1/metrics").status_code == 200
    spans = [span(1, trace=9, name="handle", openinference__span__kind="CHAIN"), chat(2, trace=9, parent=1)]
    export(gateway, *spans, openinference__project__name="others")
    gateway.stop()

    def stored():
        response = client.get("/v1/projects/others/spans", params={"limit": 100})
        found = response.json()["data"] if response.status_code == 200 else []
        return len(found) == 2 and {one["name"]: one for one in found}

    found = until(stored, 30, "both spans in Phoenix")
    call = found["chat gpt-4o-mini"]
    assert call["parent_id"] == found["handle"]["context"]["span_id"]
    assert call["attributes"]["tollgate.cost.status"] == "priced"
    assert float(call["attributes"]["tollgate.cost.amount"]) > 0
