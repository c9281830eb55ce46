"""OTLP as others decode it: complete, joined to the client's trace, flushed at the end, and never in a request's way."""

import socket
import time

import pytest

from conftest import free_port, until
from receivers import GrpcReceiver, HttpReceiver

NAMES = {"inference.request", "inference.queue", "inference.tokenize", "inference.prefill", "inference.decode"}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(params=[GrpcReceiver, HttpReceiver], ids=["grpc", "http"])
def receiver(request):
    with request.param() as receiver:
        yield receiver


def otlp(receiver, **more):
    names = {"ENDPOINT": receiver.endpoint, "PROTOCOL": receiver.protocol, **more}
    return {f"OTEL_EXPORTER_OTLP_{name}": text for name, text in names.items()}


def test_spans_arrive_complete(start_gateway, receiver):
    env = otlp(receiver, HEADERS="x-key=secret%20value", COMPRESSION="gzip")
    env |= {"OTEL_SERVICE_NAME": "till", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}
    gateway = start_gateway(env=env)
    answer = gateway.complete(model="gpt-4o-mini", max_tokens=12, user="tenant-a", seed=3, temperature=0.5)
    spans = until(lambda: (t := receiver.trace(answer["trace_id"])).keys() >= NAMES and t, what="all spans by OTLP")
    assert spans.keys() == NAMES

    root = spans["inference.request"]
    assert root.kind == "SERVER" and root.parent == ""
    for name in NAMES - {"inference.request"}:
        assert spans[name].kind == "INTERNAL" and spans[name].parent == root.span_id
        assert root.start <= spans[name].start <= spans[name].end <= root.end
    assert len({span.span_id for span in spans.values()}) == 5

    expected = {
        "llm.model": "gpt-4o-mini",
        "llm.user": "tenant-a",
        "llm.prompt_tokens": answer["prompt_tokens"],
        "llm.completion_tokens": answer["completion_tokens"],
        "llm.estimated_cost_usd": float(answer["estimated_cost_usd"]),
        "gen_ai.operation.name": "text_completion",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.request.max_tokens": 12,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 3,
        "gen_ai.usage.input_tokens": answer["prompt_tokens"],
        "gen_ai.usage.output_tokens": answer["completion_tokens"],
        "gen_ai.response.finish_reasons": [answer["choices"][0]["finish_reason"]],
        "gen_ai.usage.cost.amount": float(answer["estimated_cost_usd"]),
        "tollgate.cost.amount": answer["cost"]["amount"],
        "tollgate.cost.status": "priced",
        "tollgate.cost.plugin.digest": answer["cost"]["plugin"]["digest"],
        "tollgate.outcome": "completed",
        "http.route": "/v1/completions",
        "http.response.status_code": 200,
    }
    assert {key: root.attributes.get(key) for key in expected} == expected
    served = next(m["root"] for m in gateway.http.get("/v1/models").json()["data"])
    assert root.attributes["gen_ai.response.model"] == served != "gpt-4o-mini"
    assert any(name == "gen_ai.first_token" for name, _ in root.events)
    assert root.resource["service.name"] == "till"
    assert root.resource["deployment.environment.name"] == "test"
    assert root.scope
    assert receiver.headers[0]["x-key"] == "secret value"
    gateway.stop()


def test_the_clients_trace_is_joined(start_gateway, receiver):
    gateway = start_gateway(env=otlp(receiver))
    answer = gateway.complete(headers={"traceparent": TRACEPARENT})
    _, trace_id, parent, _ = TRACEPARENT.split("-")
    assert answer["trace_id"] == trace_id
    spans = until(lambda: (t := receiver.trace(trace_id)).keys() >= NAMES and t, what="all spans by OTLP")
    assert spans["inference.request"].parent == parent
    for wrong in ("nonsense", TRACEPARENT.replace("4bf9", "ZZZZ"), f"00-{'0' * 32}-{parent}-01"):
        fresh = gateway.complete(headers={"traceparent": wrong})["trace_id"]
        assert len(fresh) == 32 and int(fresh, 16) and fresh != trace_id
    gateway.stop()


def test_sigterm_right_after_a_request_loses_no_span(start_gateway, receiver):
    gateway = start_gateway(env=otlp(receiver))
    traces = [gateway.complete(max_tokens=2)["trace_id"] for _ in range(20)]
    gateway.stop()
    for trace_id in traces:
        assert receiver.trace(trace_id).keys() == NAMES
    assert len(receiver.spans) == 20 * 5, "each span arrives once"


def test_a_receiver_that_is_down_or_hangs_costs_a_request_nothing(start_gateway):
    with socket.socket() as hangs:
        hangs.bind(("127.0.0.1", 0))
        hangs.listen()  # and never accepts
        for port in (free_port(), hangs.getsockname()[1]):
            env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_EXPORTER_OTLP_TIMEOUT": "2000"}
            gateway = start_gateway(env=env)
            traces = []
            for _ in range(30):
                began = time.monotonic()
                traces.append(gateway.complete(max_tokens=1)["trace_id"])
                assert time.monotonic() - began < 2
            gateway.stop()
            assert "wait in the ledger for the next start" in gateway.log(), "the operator is told that spans did not arrive"
            in_file = {span["trace_id"] for span in gateway.spans()}
            assert in_file == set(traces), "the file has what the receiver missed"
