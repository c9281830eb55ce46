"""Spans of other programs: taken by OTLP from OpenTelemetry's own SDK, priced once, on record before they are
acknowledged, and delivered whole."""

import gzip
import json
import random
import signal
import subprocess
import threading
import time

import grpc
import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import Link, SpanKind

from certificates import Authority
from conftest import PROGRAM, ROOT, free_port, replace_file, until
from receivers import GrpcReceiver
from senders import CHAT, chat, export, post, provider, request, span


@pytest.fixture
def receiver():
    with GrpcReceiver() as receiver:
        yield receiver


@pytest.fixture
def start(start_gateway, receiver):
    def start(**options):
        port = free_port()
        out = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        options["env"] = out | options.get("env", {})
        options["arguments"] = ["--otlp-listen", f"127.0.0.1:{port}", *options.get("arguments", [])]
        gateway = start_gateway(**options)
        gateway.otlp = f"http://127.0.0.1:{port}"
        return gateway

    return start


def report(gateway, by="tenant"):
    """Requests and amounts by group."""
    command = [PROGRAM, "report", "--data-dir", gateway.data, "--by", by, "--format", "json", "--quiet"]
    told = subprocess.run(command, capture_output=True, check=True, text=True)
    return json.loads(told.stdout)


def total(gateway):
    return report(gateway)["total"]


def verified(gateway):
    subprocess.run([PROGRAM, "audit", "verify", "--data-dir", gateway.data], check=True, capture_output=True)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_sdk_exports_and_the_receiver_gets_it_with_its_cost(start, receiver, protocol):
    gateway = start()
    if protocol == "grpc":
        exporter = GrpcExporter(endpoint=gateway.otlp, insecure=True)
    else:
        exporter = HttpExporter(endpoint=f"{gateway.otlp}/v1/traces")
    sender = provider(exporter, team="till", **{"tollgate.tenant": "acme"})
    tracer = sender.get_tracer("shop.lib", "1.2", attributes={"a": 1})
    with tracer.start_as_current_span("handle", kind=SpanKind.SERVER) as root:
        link = Link(root.get_span_context(), {"why": "test"})
        with tracer.start_as_current_span("chat gpt-4o-mini", kind=SpanKind.CLIENT, links=[link]) as call:
            call.set_attributes(CHAT | {"list": ["a", "b"], "bytes": b"\x00\xff", "gen_ai.output.messages": "hi"})
            call.add_event("token", {"n": 1})
    sender.shutdown()
    trace_id = format(root.get_span_context().trace_id, "032x")
    spans = until(lambda: len(t := receiver.trace(trace_id)) == 2 and t, what="both spans")
    priced, passed = spans["chat gpt-4o-mini"], spans["handle"]
    assert priced.resource["service.name"] == passed.resource["service.name"] == "shop"
    assert priced.resource["team"] == "till" and priced.scope == "shop.lib"
    assert passed.kind == "SERVER" and passed.attributes == {}
    assert priced.parent == passed.span_id and priced.events == [("token", {"n": 1})]
    assert priced.attributes["list"] == ["a", "b"] and priced.attributes["bytes"] == b"\x00\xff"
    assert priced.attributes["tollgate.cost.status"] == "priced", priced.attributes
    assert float(priced.attributes["tollgate.cost.amount"]) > 0
    assert priced.attributes["llm.estimated_cost_usd"] == float(priced.attributes["tollgate.cost.amount"])
    assert priced.attributes["tollgate.tenant"] == "acme"
    lines = until(lambda: len(found := gateway.spans(trace_id)) == 2 and found, what="both in the file")
    line = next(line for line in lines if line["name"] == "chat gpt-4o-mini")
    assert line["service"] == "shop" and line["attributes"]["bytes"] == "AP8=" and len(line["links"]) == 1
    verified(gateway)
    assert total(gateway)["requests"] == 1


def test_a_client_of_the_gateway_is_billed_once_where_its_trace_goes_on(start, receiver):
    gateway = start()
    sender = provider(HttpExporter(endpoint=f"{gateway.otlp}/v1/traces"))
    with sender.get_tracer("app").start_as_current_span("joined", attributes=CHAT) as call:
        context = call.get_span_context()
        gateway.complete(headers={"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-01"})
    sender.shutdown()

    def named(name):
        return next((s.attributes for s in receiver.spans if s.name == name), None)

    joined = until(lambda: named("joined"), what="the client's span")
    assert (joined["tollgate.cost.status"], joined["tollgate.cost.reason"]) == ("unpriced", "counted_elsewhere")
    assert total(gateway)["requests"] == 1


def test_a_call_is_billed_once_whoever_tells_of_it_and_however_often(start, receiver):
    gateway = start()
    answer = "chatcmpl-0123456789abcdef"
    client = chat(1, trace=1)
    between = span(2, trace=1, parent=1, name="POST")
    server = span(
        3, trace=1, parent=2, name="llm_request", gen_ai__usage__prompt_tokens=1000, gen_ai__usage__completion_tokens=100,
        gen_ai__latency__e2e="1",
    )
    process = {"gen_ai__request__model": "gpt-4o-mini"}
    export(gateway, server, **process)
    export(gateway, between, client)
    export(gateway, server, **process)
    export(gateway, client, between)
    # Together: the innermost.
    export(gateway, chat(1, trace=2), chat(2, trace=2, parent=1))
    # By the answer's id, without a common trace.
    export(gateway, chat(1, trace=3, gen_ai__response__id=answer))
    export(gateway, chat(1, trace=4, gen_ai__response__id=answer))
    # One that a Tollgate has recorded.
    export(gateway, chat(1, trace=5, tollgate__cost__status="priced", tollgate__cost__amount="7"))
    spans = until(lambda: len(receiver.spans) >= 8 and list(receiver.spans), what="all spans")
    status = {(int(s.trace_id, 16), int(s.span_id, 16)): s.attributes.get("tollgate.cost.status") for s in spans}
    assert len(status) == len(spans), "no span twice"
    assert status == {
        (1, 1): "unpriced",
        (1, 2): None,
        (1, 3): "priced",
        (2, 1): "unpriced",
        (2, 2): "priced",
        (3, 1): "priced",
        (4, 1): "unpriced",
        (5, 1): "priced",
    }
    skipped = [s for s in spans if s.attributes.get("tollgate.cost.status") == "unpriced"]
    assert {s.attributes["tollgate.cost.reason"] for s in skipped} == {"counted_elsewhere"}
    assert total(gateway)["requests"] == 3


def test_of_a_call_that_was_tried_again_the_attempt_that_answered_is_billed(start, receiver):
    gateway = start()
    failed = span(2, parent=1, name="attempt", gen_ai__operation__name="chat", gen_ai__request__model="gpt-4o-mini")
    failed.status.code = 2
    # One that broke off has used tokens all the same, and providers bill them.
    torn = chat(3, parent=1, name="attempt", gen_ai__usage__output_tokens=7)
    torn.status.code = 2
    export(gateway, failed, torn, chat(4, parent=1, name="attempt"), chat(1, name="client"))
    spans = until(lambda: len(receiver.spans) == 4 and {int(s.span_id, 16): s.attributes for s in receiver.spans}, what="all")
    told = {number: (s["tollgate.cost.status"], s.get("tollgate.cost.reason")) for number, s in spans.items()}
    assert told == {
        1: ("unpriced", "counted_elsewhere"),
        2: ("unpriced", "missing_usage"),
        3: ("priced", None),
        4: ("priced", None),
    }
    assert float(spans[3]["tollgate.cost.amount"]) < float(spans[4]["tollgate.cost.amount"])
    assert total(gateway)["cost_status"]["priced"] == 2


def test_the_span_of_vllm_is_priced(start, receiver):
    gateway = start()
    body = (ROOT / "host/crates/telemetry/tests/spans/vllm.json").read_text().replace("meta-llama/Llama-3.1-8B-Instruct", "gpt-4o-mini")
    answer = post(gateway, body.encode(), "application/json")
    assert (answer.status_code, answer.json()) == (200, {})
    spans = until(lambda: len(receiver.spans) == 2 and list(receiver.spans), what="both spans")
    assert {s.attributes["tollgate.cost.status"] for s in spans} == {"priced"}
    assert {s.name for s in spans} == {"llm_request"} and spans[0].attributes["gen_ai.latency.e2e"] == 0.5
    tokens = total(gateway)["tokens"]
    assert (tokens["input"], tokens["input_cache_read"], tokens["output"]) == (84, 16, 34)


def test_what_is_acknowledged_survives_a_kill_and_is_billed_once(start, receiver, tmp_path):
    gateway = start()
    sent, taken, stop = {}, set(), threading.Event()

    def send():
        number = 0
        while not stop.is_set():
            number += 1
            spans = [chat(number, trace=100 + number), span(10_000 + number, trace=100 + number, name="plain")]
            sent[number] = request(*spans).SerializeToString()
            try:
                if post(gateway, sent[number]).status_code == 200:
                    taken.add(number)
            except httpx.TransportError:
                pass

    thread = threading.Thread(target=send)
    thread.start()
    until(lambda: len(taken) > 20, 60, what="some acknowledged exports")
    time.sleep(random.random() / 4)
    gateway.process.send_signal(signal.SIGKILL)
    gateway.process.wait()
    stop.set()
    thread.join()
    again = start(data=gateway.data)
    # A sender that heard nothing sends again, and one that lost its memory sends everything again.
    for body in sent.values():
        assert post(again, body).status_code == 200
    until(lambda: len({s.span_id for s in receiver.spans}) == 2 * len(sent), 60, what="every span at the receiver")
    verified(again)
    assert total(again)["requests"] == len(sent) >= len(taken)
    statuses = {s.attributes["tollgate.cost.status"] for s in receiver.spans if s.name.startswith("chat")}
    assert statuses == {"priced"}


def test_the_senders_key_names_the_tenant(start, tmp_path):
    gateway = start(env={"TOLLGATE_KEYS": "acme:tg-acme-0123456789,umbrella:tg-umbrella-0123456789"})
    body = request(chat(1), tollgate__tenant="liar").SerializeToString()
    for more in ({}, {"authorization": "Bearer wrong"}):
        refused = post(gateway, body, **more)
        assert refused.status_code == 401 and refused.headers["content-type"] == "application/x-protobuf"
    assert post(gateway, body, authorization="Bearer tg-acme-0123456789").status_code == 200
    exporter = GrpcExporter(endpoint=gateway.otlp, insecure=True, headers={"authorization": "Bearer tg-umbrella-0123456789"})
    sender = provider(exporter)
    with sender.get_tracer("x").start_as_current_span("chat", attributes=CHAT):
        pass
    sender.shutdown()
    refused = GrpcExporter(endpoint=gateway.otlp, insecure=True, timeout=2)
    sender = provider(refused)
    made = sender.get_tracer("x").start_span("chat", attributes=CHAT)
    made.end()
    assert refused.export([made]) == SpanExportResult.FAILURE
    sender.shutdown()
    tenants = {group["tenant"]: group["requests"] for group in report(gateway)["groups"]}
    assert tenants == {"acme": 1, "umbrella": 1}


def test_json_and_compression_are_read_as_the_specification_says(start, receiver):
    gateway = start()
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [
        {"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "EEE19B7EC3C1B174", "name": "json", "kind": 3,
         "startTimeUnixNano": str(time.time_ns()), "endTimeUnixNano": str(time.time_ns()),
         "attributes": [{"key": "n", "value": {"intValue": "5"}}]},
        {"traceId": "00", "spanId": "EEE19B7EC3C1B175", "name": "wrong"},
    ]}]}]}
    body = json.dumps(body).encode()
    answer = post(gateway, gzip.compress(body), "application/json", content_encoding="gzip")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"partialSuccess": {"rejectedSpans": "1", "errorMessage": "traceId is not 16 bytes"}}
    spans = until(lambda: receiver.trace("5b8efff798038103d269b633813fc60c"), what="the span")
    assert spans["json"].kind == "CLIENT" and spans["json"].attributes == {"n": 5}


def zstd(body):
    """A frame of Zstandard, as its specification has it, with the bytes as they are."""
    blocks = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
    heads = [(len(block) << 3 | (block is blocks[-1])).to_bytes(3, "little") for block in blocks]
    begin = bytes.fromhex("28b52ffd") + b"\xe0" + len(body).to_bytes(8, "little")
    return begin + b"".join(head + block for head, block in zip(heads, blocks, strict=True))


def test_what_senders_write_otherwise_is_taken(start, receiver):
    gateway = start()
    long = request(span(1, name="zstd", long="x" * 300_000)).SerializeToString()
    assert post(gateway, zstd(long), content_encoding="zstd").status_code == 200
    other = request(span(2, name="older")).SerializeToString()
    assert post(gateway, gzip.compress(other), path="/v1/traces/", content_encoding="x-gzip").status_code == 200
    # Over gRPC, too, a span that nobody could take is told, and the others are taken.
    with grpc.insecure_channel(gateway.otlp.removeprefix("http://")) as channel:
        export = TraceServiceStub(channel).Export
        body = request(span(3, name="good"))
        body.resource_spans[0].scope_spans[0].spans.add(name="without an id")
        partial = export(body, timeout=10).partial_success
        assert (partial.rejected_spans, partial.error_message) == (1, "traceId is not 16 bytes")
        with pytest.raises(grpc.RpcError) as refused:
            export(request(span(4)), timeout=10, compression=grpc.Compression.Deflate)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED and "deflate" in refused.value.details()
    until(lambda: {s.name for s in receiver.spans} == {"zstd", "older", "good"}, what="the spans")


def test_plugins_enrich_and_filter_what_others_recorded(start, receiver):
    told = """[[plugin]]
file = "enrich-labels.wasm"
config = { labels = [ { key = "label.team", value = "x", when = { tenant = "acme*" } }, { key = "label.shop", from = "service.name" } ] }
[[plugin]]
file = "filter-redact.wasm"
config = { salt = "a secret that is long enough", rules = [ { drop = ["secret.*"] }, { drop_spans = { name = "noise" } } ] }
"""
    gateway = start(plugins=("cost-per-token", "enrich-labels", "filter-redact"), plugins_toml=told)
    plain = span(2, parent=1, name="plain", secret__k="s", other="kept")
    export(gateway, chat(1, tollgate__tenant="acme1", secret__k="s"), plain, span(3, name="noise"), service__name="shop")
    spans = until(lambda: len(receiver.spans) >= 2 and {s.name: s.attributes for s in receiver.spans}, what="two spans")
    call = spans["chat gpt-4o-mini"]
    assert call["tollgate.cost.status"] == "priced" and call["label.team"] == "x"
    assert spans["plain"] == {"other": "kept", "label.shop": "shop"} and call["label.shop"] == "shop"
    assert "secret.k" not in call
    time.sleep(0.5)
    assert {s.name for s in receiver.spans} == {"chat gpt-4o-mini", "plain"}
    # What was dropped on the way is on record all the same.
    assert total(gateway)["requests"] == 1


def test_what_is_malformed_does_no_harm(start):
    gateway = start()
    million = b"\x12\x00" * 1_000_000

    def within(field, inner):
        length, count = b"", len(inner)
        while count > 127:
            length, count = length + bytes([count & 127 | 128]), count >> 7
        return bytes([field << 3 | 2]) + length + bytes([count]) + inner

    good = request(chat(1)).SerializeToString()
    for body, more, status in [
        (b"\xff\xff", {}, 400),
        (good[:-3], {}, 400),
        (b"{", {"content_type": "application/json"}, 400),
        (b"[]", {"content_type": "application/json"}, 400),
        (good, {"content_type": "text/plain"}, 415),
        (good, {"content_encoding": "br"}, 415),
        (b"no gzip", {"content_encoding": "gzip"}, 400),
        (gzip.compress(bytes(64 << 20)), {"content_encoding": "gzip"}, 413),
        (within(1, within(2, million)), {}, 413),
        # Each call would go on record with a mebibyte of resource.
        (request(*(chat(n) for n in range(1, 100)), large="x" * (1 << 20)).SerializeToString(), {}, 413),
        (b"\xff", {"path": "/v1/metrics"}, 400),
        (b"{", {"path": "/v1/logs", "content_type": "application/json"}, 400),
        (b"", {"path": "/v1/profiles"}, 404),
    ]:
        answer = post(gateway, body, **more)
        assert answer.status_code == status, (body[:20], more, answer.content)
        assert answer.content, "a Status says why"
    # References to entities, of which a resource may have many: nothing is made of them.
    assert post(gateway, within(1, within(1, b"\x1a\x00" * 1_000_000))).status_code == 200
    randomness = random.Random(4)
    for _ in range(200):
        body = bytearray(good)
        body[randomness.randrange(len(body))] = randomness.randrange(256)
        assert post(gateway, bytes(body)).status_code in (200, 400)
    assert httpx.get(f"{gateway.otlp}/v1/traces", trust_env=False).status_code == 405
    gateway.still_serves()
    assert post(gateway, request(chat(99, trace=99)).SerializeToString()).status_code == 200


def test_nothing_is_taken_that_cannot_be_kept(start):
    gateway = start(ready=False, arguments=["--ledger-min-free-mib", str(10**9)])

    def answered():
        try:
            return post(gateway, request(chat(1)).SerializeToString())
        except httpx.TransportError:
            return None

    refused = until(answered, 60, what="an answer")
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1


def test_others_need_a_key(start_gateway):
    gateway = start_gateway(ready=False, arguments=["--otlp-listen", f"0.0.0.0:{free_port()}"])
    assert gateway.process.wait(60) != 0
    assert "otlp-listen is 0.0.0.0" in gateway.log()


def test_senders_reach_it_under_tls_with_a_key_and_a_certificate_that_is_renewed(start, receiver, tmp_path, monkeypatch):
    # These win over what a session of `requests` is told.
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    authority, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    authority.sign("localhost")
    other.sign("localhost")
    files = [tmp_path / "served.pem", tmp_path / "served.key"]

    def serve(of):
        for path, name in zip(files, ("localhost.pem", "localhost.key"), strict=True):
            replace_file(path, of.bytes(name))

    serve(authority)
    gateway = start(
        env={"TOLLGATE_KEYS": "acme:tg-acme-0123456789"},
        arguments=["--otlp-certificate", files[0], "--otlp-key", files[1]],
    )
    url = gateway.otlp.replace("http://127.0.0.1", "https://localhost")
    headers = {"authorization": "Bearer tg-acme-0123456789"}
    exporters = {
        "grpc": lambda ca: GrpcExporter(
            endpoint=url, credentials=grpc.ssl_channel_credentials(ca.bytes("ca.pem")), headers=headers, timeout=5
        ),
        "http": lambda ca: HttpExporter(
            endpoint=f"{url}/v1/traces", certificate_file=str(ca.path("ca.pem")), headers=headers, timeout=5
        ),
    }

    def exports(protocol, ca):
        exporter = exporters[protocol](ca)
        made = provider(exporter).get_tracer("x").start_span(protocol, attributes=CHAT)
        made.end()
        result = exporter.export([made]) == SpanExportResult.SUCCESS
        exporter.shutdown()
        return result

    for protocol in exporters:
        assert exports(protocol, authority), protocol
        assert not exports(protocol, other), f"{protocol}: a certificate of somebody else"
    with pytest.raises(httpx.TransportError):
        post(gateway, request(chat(1)).SerializeToString(), **headers)
    serve(other)
    until(lambda: exports("grpc", other), 60, what="the certificate that was renewed")
    # Half a renewal changes nothing.
    replace_file(files[1], authority.bytes("localhost.key"))
    time.sleep(6)
    assert exports("http", other)
    until(lambda: {"grpc", "http"} <= {s.name for s in receiver.spans}, what="the spans")


def test_a_certificate_that_cannot_be_used_is_said_at_the_start(start_gateway, tmp_path):
    (tmp_path / "no.pem").write_text("nothing")
    arguments = ["--otlp-listen", f"127.0.0.1:{free_port()}", "--otlp-certificate", tmp_path / "no.pem"]
    for more, said in ([["--otlp-key", tmp_path / "no.key"], "certificates in PEM"], [[], "belong together"]):
        gateway = start_gateway(ready=False, arguments=[*arguments, *more])
        assert gateway.process.wait(60) != 0
        assert said in gateway.log()


def test_messages_of_grpc_may_be_compressed(start, receiver):
    gateway = start()
    exporter = GrpcExporter(endpoint=gateway.otlp, insecure=True, compression=grpc.Compression.Gzip)
    sender = provider(exporter)
    with sender.get_tracer("x").start_as_current_span("compressed", attributes={"long": "x" * 10_000}):
        pass
    sender.shutdown()
    found = until(lambda: [s for s in receiver.spans if s.name == "compressed"], what="the span")
    assert found[0].attributes["long"] == "x" * 10_000
