"""Several exporters at once, files that rotate, receivers under TLS: read back by others' decoders, through kills."""

import collections
import gzip
import json
import os
import ssl
import subprocess

import httpx
import pytest

from certificates import Authority
from conftest import BUNDLED, PROGRAM, component, environment, free_port, until
from receivers import GrpcReceiver, HttpReceiver, JsonReceiver, Received, attributes, from_otlp_json

SPANS = 5
SECRET = "Bearer s3cret-of-the-collector"


def config(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tollgate.toml"
    path.write_text(text)
    return ["--config", path]


def otlp_json_spans(text):
    """The spans of OTLP/JSON lines, each line a request of its own and none longer than the Collector reads."""
    spans = []
    for line in text.splitlines(keepends=True):
        assert line.endswith("\n") and len(line.encode()) < 1 << 20
        for resource_spans in from_otlp_json(line).resource_spans:
            resource = attributes(resource_spans.resource.attributes)
            for scope in resource_spans.scope_spans:
                spans += [Received(span, resource, scope.scope.name) for span in scope.spans]
    return spans


def test_each_exporter_gets_everything_in_its_own_form(start_gateway, tmp_path):
    (tmp_path / "token").write_text(SECRET + "\n")
    with GrpcReceiver() as grpc_, HttpReceiver() as http, JsonReceiver() as json_:
        text = f"""
        [[exporter]]
        kind = "ndjson"

        [[exporter]]
        kind = "otlp-json"
        path = "{tmp_path}/collector/spans.jsonl"

        [[exporter]]
        name = "grpc"
        kind = "otlp"
        protocol = "grpc"
        endpoint = "{grpc_.endpoint}"
        headers = {{ authorization = {{ env = "COLLECTOR_TOKEN" }}, x-dataset = "tolls" }}
        compression = "gzip"

        [[exporter]]
        name = "http"
        kind = "otlp"
        endpoint = "{http.endpoint}"
        headers = {{ authorization = {{ file = "{tmp_path}/token" }} }}
        compression = "gzip"

        [[exporter]]
        name = "json"
        kind = "otlp"
        protocol = "http/json"
        endpoint = "{json_.endpoint}/v1/traces"
        """
        gateway = start_gateway(arguments=config(tmp_path, text), env={"COLLECTOR_TOKEN": SECRET})
        traces = [gateway.complete(max_tokens=4, user=f"tenant-{number}")["trace_id"] for number in range(5)]
        gateway.stop()
        assert SECRET not in gateway.log() and "s3cret" not in gateway.log()
        assert grpc_.headers[0]["authorization"] == http.headers[0]["authorization"] == SECRET
        assert grpc_.headers[0]["x-dataset"] == "tolls" and "authorization" not in json_.headers[0]

        in_file = {span["span_id"]: span for span in gateway.spans()}
        lines = otlp_json_spans((tmp_path / "collector/spans.jsonl").read_text())
        for spans in (grpc_.spans, http.spans, json_.spans, lines):
            assert [s.trace_id for s in spans if s.name == "inference.request"] == traces, "each once, in order"
            assert {span.span_id for span in spans} == in_file.keys() and len(spans) == len(traces) * SPANS
            for span in spans:
                twin = in_file[span.span_id]
                assert (span.name, span.kind, span.parent) == (twin["name"], twin["kind"], twin["parent_span_id"] or "")
                assert (span.start, span.end) == (twin["start_time_ns"], twin["end_time_ns"])
                assert span.attributes == twin["attributes"]
                assert [name for name, _ in span.events] == [event["name"] for event in twin["events"]]
                assert span.resource == twin["resource"]
    assert not gateway.log().count("inference.request"), "no console was asked for"


def put_aside(folder, stem):
    return sorted(path for path in folder.iterdir() if path.name.startswith(f"{stem}-"))


def read(path):
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()


def test_files_rotate_through_kills_and_lose_nothing(start_gateway, tmp_path):
    files = tmp_path / "files"
    text = f"""
    [[exporter]]
    kind = "ndjson"
    path = "{files}/spans.ndjson"
    rotate-mib = 1
    compress = "gzip"
    start = "beginning"

    [[exporter]]
    kind = "otlp-json"
    path = "{files}/otlp.jsonl"
    rotate-mib = 1
    keep = 1
    """
    arguments = config(tmp_path, text)
    traces = []
    for kill in (True, True, False):
        gateway = start_gateway(arguments=arguments, data=tmp_path / "data", plugins=())
        traces += [gateway.complete(max_tokens=1)["trace_id"] for _ in range(250)]
        gateway.kill() if kill else gateway.stop()
    aside = put_aside(files, "spans")
    assert len(aside) >= 2 and all(path.name.endswith("Z.ndjson.gz") for path in aside), aside
    assert [path.name.split("-")[1] for path in aside] == [f"{n + 1:06}" for n in range(len(aside))]
    assert all(path.stat().st_size < 1 << 20 for path in [*aside, files / "spans.ndjson"])
    spans = [json.loads(line) for path in [*aside, files / "spans.ndjson"] for line in read(path).splitlines()]
    roots = [span["trace_id"] for span in spans if span["name"] == "inference.request"]
    assert set(roots) == set(traces), "each is there"
    assert list(dict.fromkeys(roots)) == traces, "in order"
    # What was written as a process was killed is written again, at most one batch for each kill.
    twice = sum(count - 1 for count in collections.Counter(roots).values())
    assert twice <= 2 * 128, twice
    for span in spans:
        span["attributes"].pop("server.port", None)  # the one that serves now
    copies = {json.dumps(span, sort_keys=True) for span in spans}
    assert len(copies) == len(traces) * SPANS, "a copy is the same span, to the last field"

    assert len(put_aside(files, "otlp")) == 1, "one is kept"
    last = otlp_json_spans((files / "otlp.jsonl").read_text())[-1]
    assert last.trace_id == traces[-1]


def test_a_console_that_is_closed_costs_nothing_but_its_lines(tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name in BUNDLED:
        (plugins / f"{name}.wasm").write_bytes(component(name).read_bytes())
    port = free_port()
    command = [PROGRAM, "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", tmp_path / "data", "--plugins", plugins]
    with (tmp_path / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment(), cwd=tmp_path)
    try:
        process.stdout.close()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:

            def ready():
                try:
                    return client.get("/ready").status_code == 200
                except httpx.TransportError:
                    return False

            until(ready, 60, "/ready")
            body = {"model": "mistral-7b", "prompt": "Hi", "max_tokens": 2}
            traces = [client.post("/v1/completions", json=body).json()["trace_id"] for _ in range(5)]
        process.terminate()
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()
    lines = (tmp_path / "data/spans.ndjson").read_text().splitlines()
    assert [s["trace_id"] for s in map(json.loads, lines) if s["name"] == "inference.request"] == traces
    assert "standard output" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_tls_with_certificates_on_both_sides(start_gateway, tmp_path, protocol):
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    for name in ("localhost", "gateway"):
        ours.sign(name)
    if protocol == "grpc":
        receiver = GrpcReceiver(tls=(ours.bytes("localhost.key"), ours.bytes("localhost.pem"), ours.bytes("ca.pem")))
    else:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ours.path("ca.pem"))
        context.load_cert_chain(ours.path("localhost.pem"), ours.path("localhost.key"))
        context.verify_mode = ssl.CERT_REQUIRED
        receiver = HttpReceiver(tls=context)
    with receiver:

        def variables(authority):
            return {
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": str(authority.path("ca.pem")),
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(ours.path("gateway.pem")),
                "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(ours.path("gateway.key")),
                "OTEL_METRICS_EXPORTER": "none",
            }

        # Whom we do not trust gets nothing, the log says why, and the spans wait for the right authority.
        data = tmp_path / "data"
        gateway = start_gateway(env=variables(other), data=data)
        trace_id = gateway.complete(max_tokens=2)["trace_id"]
        until(lambda: "invalid peer certificate" in gateway.log(), what="a word on the certificate")
        gateway.stop()
        assert not receiver.spans
        gateway = start_gateway(env=variables(ours), data=data)
        until(lambda: len(receiver.trace(trace_id)) == SPANS, what="the spans, under TLS")
        gateway.stop()


def test_a_table_that_is_wrong_stops_the_start_and_shows_no_secret(tmp_path):
    text = f"""
    [[exporter]]
    kind = "otlp"
    endpont = "http://localhost:4317"
    headers = {{ authorization = "{SECRET}", x-token = {{ env = "NOT_SET" }} }}

    [[exporter]]
    kind = "ndjson"
    keep = 3
    """
    command = [PROGRAM, "serve", *config(tmp_path, text), "--data-dir", tmp_path / "data"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
    assert done.returncode == 2, done.stderr
    for words in ("endpont", "did you mean endpoint?", "NOT_SET", "rotate-mib", "number 2 (ndjson)"):
        assert words in done.stderr
    assert "s3cret" not in done.stderr
    assert not os.path.exists(tmp_path / "data")
