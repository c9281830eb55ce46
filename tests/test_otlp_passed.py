"""Metrics and logs of other programs pass through as they came: acknowledged when they are on record, in order, over a
kill, and never in the way of spans."""

import base64
import json
import random
import signal
import subprocess
import time

import httpx
import pytest
from google.protobuf import json_format
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from conftest import PROGRAM, free_port, until
from receivers import GrpcReceiver, HttpReceiver, JsonReceiver
from senders import export, post, span


def start(start_gateway, *receivers, **options):
    port = free_port()
    folder = options.pop("folder")
    tables = [
        f'[[exporter]]\nname = "to-{number}"\nkind = "otlp"\nendpoint = "{receiver.endpoint}"\nprotocol = "{receiver.protocol}"\n'
        for number, receiver in enumerate(receivers)
    ]
    config = folder / "tollgate.toml"
    config.write_text("\n".join(tables) + '[[exporter]]\nkind = "ndjson"\n')
    gateway = start_gateway(arguments=["--config", config, "--otlp-listen", f"127.0.0.1:{port}"], **options)
    gateway.otlp = f"http://127.0.0.1:{port}"
    return gateway


def logs(text):
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=time.time_ns())
    record.body.string_value = text
    return request


def texts(requests, read=ExportLogsServiceRequest.FromString):
    """What the records of these requests say, in order."""
    return [
        record.body.string_value
        for request in requests
        for of_process in read(request).resource_logs
        for scope in of_process.scope_logs
        for record in scope.log_records
    ]


def send(gateway, request, path="/v1/logs", **more):
    answer = post(gateway, request if isinstance(request, bytes) else request.SerializeToString(), path=path, **more)
    assert answer.status_code == 200, answer.content
    return answer


def test_an_sdk_sends_all_signals_and_each_receiver_gets_them_in_its_form(start_gateway, tmp_path):
    with GrpcReceiver() as grpc, HttpReceiver() as http, JsonReceiver() as json_:
        gateway = start(start_gateway, grpc, http, json_, folder=tmp_path)
        meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=gateway.otlp, insecure=True))])
        meters.get_meter("shop").create_counter("sold", unit="{thing}").add(7, {"kind": "tea"})
        loggers = LoggerProvider(shutdown_on_exit=False)
        loggers.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(endpoint=gateway.otlp, insecure=True)))
        loggers.get_logger("shop").emit(body="sold out", severity_text="WARN")
        export(gateway, span(1, name="between"))
        meters.shutdown()
        loggers.shutdown()
        for receiver in (grpc, http, json_):
            until(lambda to=receiver: to.passed["metrics"] and to.passed["logs"] and to.spans, 20, what="all three signals")
        assert texts(grpc.passed["logs"]) == texts(http.passed["logs"]) == ["sold out"]
        request = ExportMetricsServiceRequest.FromString(http.passed["metrics"][0])
        metric = request.resource_metrics[0].scope_metrics[0].metrics[0]
        assert (metric.name, metric.unit, metric.sum.data_points[0].as_int) == ("sold", "{thing}", 7)
        told = json.loads(json_.passed["logs"][0])
        assert told["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["body"] == {"stringValue": "sold out"}
        # Nothing of it is a request or a span.
        assert [line["name"] for line in gateway.spans()] == ["between"]


def test_bytes_arrive_as_they_were_sent_in_order_over_a_kill(start_gateway, tmp_path):
    # A field that no version of OTLP has.
    unknown = b"\xfa\x3f\x05hello"
    with GrpcReceiver() as down:
        pass
    gateway = start(start_gateway, down, folder=tmp_path)
    for number in range(40):
        send(gateway, logs(str(number)).SerializeToString() + unknown)
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "5", "body": {"stringValue": "json"}}]}]}]}
    assert send(gateway, json.dumps(body).encode(), content_type="application/json").json() == {}
    gateway.process.send_signal(signal.SIGKILL)
    gateway.process.wait()
    with GrpcReceiver() as up:
        again = start(start_gateway, up, folder=tmp_path, data=gateway.data)
        until(lambda: len(texts(up.passed["logs"])) >= 41, 30, what="all of them")
        assert texts(up.passed["logs"]) == [*map(str, range(40)), "json"]
        assert b"".join(up.passed["logs"]).count(unknown) == 40
        command = [PROGRAM, "audit", "verify", "--data-dir", again.data]
        subprocess.run(command, check=True, capture_output=True)
        told = subprocess.run(
            [PROGRAM, "report", "--data-dir", again.data, "--format", "json", "--quiet"], check=True, capture_output=True
        )
        assert json.loads(told.stdout)["total"]["requests"] == 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_receiver_that_takes_spans_only_gets_them(start_gateway, tmp_path, protocol):
    class SpansOnly(HttpReceiver):
        def __init__(self):
            super().__init__()
            self.passed = {}

    with GrpcReceiver(signals=False) if protocol == "grpc" else SpansOnly() as receiver:
        gateway = start(start_gateway, receiver, folder=tmp_path)
        send(gateway, logs("nobody wants this"))
        export(gateway, span(1, name="after"))
        until(lambda: receiver.spans, 20, what="the span behind it")
        until(lambda: "it is left out" in gateway.log(), what="a word of what was left out")


def test_keys_are_asked_for(start_gateway, tmp_path):
    with GrpcReceiver() as receiver:
        gateway = start(start_gateway, receiver, folder=tmp_path, env={"TOLLGATE_KEYS": "acme:tg-acme-0123456789"})
        body = logs("x").SerializeToString()
        assert post(gateway, body, path="/v1/logs").status_code == 401
        send(gateway, body, authorization="Bearer tg-acme-0123456789")
        until(lambda: texts(receiver.passed["logs"]) == ["x"], what="it")
        assert httpx.get(f"{gateway.otlp}/v1/metrics", trust_env=False).status_code == 405


IDS = ("traceId", "spanId", "parentSpanId")


def filled(message, chance, depth=0):
    """`message` with its fields at random, of every kind, also with numbers that JSON lacks: what it may have is read from
    protobuf's own description."""
    chosen = {group.full_name: chance.choice(group.fields).name for group in message.DESCRIPTOR.oneofs}
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof and chosen[field.containing_oneof.full_name] != field.name:
            continue
        if field.message_type and depth > (6 if field.containing_oneof else 9):
            continue
        for _ in range(chance.randrange(3) if field.is_repeated else 1):
            if field.message_type:
                within = getattr(message, field.name)
                filled(within.add() if field.is_repeated else within, chance, depth + 1)
                if not field.is_repeated:
                    within.SetInParent()
            elif field.is_repeated:
                getattr(message, field.name).append(scalar(field, chance))
            else:
                setattr(message, field.name, scalar(field, chance))
    return message


def scalar(field, chance):
    if field.name in ("trace_id", "span_id"):
        return chance.randbytes(16 if field.name == "trace_id" else 8)
    if field.enum_type:
        return chance.choice(field.enum_type.values).number
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        return chance.randbytes(5) if field.type == field.TYPE_BYTES else chance.choice(["", 'a"b', "\u00fc\u2028\n", "x" * 200])
    if kind == field.CPPTYPE_DOUBLE:
        return chance.choice([0.0, 1.5, -2.0, 1e300, 5e-324, float("nan"), float("inf"), float("-inf")])
    if kind == field.CPPTYPE_BOOL:
        return chance.random() < 0.5
    bits, signed = {
        field.CPPTYPE_INT32: (31, True),
        field.CPPTYPE_INT64: (63, True),
        field.CPPTYPE_UINT32: (32, False),
        field.CPPTYPE_UINT64: (64, False),
    }[kind]
    return chance.choice([0, 1, (1 << bits) - 1, -(1 << bits) if signed else 7, chance.getrandbits(bits)])


def with_ids(node, change):
    """OTLP has ids in hexadecimal where protobuf's JSON has base64, and is the same else."""
    if isinstance(node, dict):
        return {key: change(item) if key in IDS else with_ids(item, change) for key, item in node.items()}
    return [with_ids(item, change) for item in node] if isinstance(node, list) else node


def to_json(message):
    told = json_format.MessageToDict(message, use_integers_for_enums=True)
    return json.dumps(with_ids(told, lambda text: base64.b64decode(text).hex())).encode()


def from_json(text, kind):
    told = with_ids(json.loads(text), lambda text: base64.b64encode(bytes.fromhex(text)).decode())
    return json_format.ParseDict(told, kind())


@pytest.mark.parametrize("of", ["metrics", "logs"])
def test_json_is_what_protobuf_says_that_it_is_both_ways(start_gateway, tmp_path, of):
    kind = {"metrics": ExportMetricsServiceRequest, "logs": ExportLogsServiceRequest}[of]
    chance = random.Random(7)
    with GrpcReceiver() as grpc, JsonReceiver() as json_:
        gateway = start(start_gateway, grpc, json_, folder=tmp_path)
        whole, empty = kind(), 0
        for _ in range(60):
            sent = filled(kind(), chance)
            empty += not sent.ByteSize()
            # Requests behind each other may leave as one, which is what protobuf merges them to.
            whole.MergeFrom(sent)
            send(gateway, to_json(sent), path=f"/v1/{of}", content_type="application/json")
        assert empty < 40 and whole.ByteSize() > 10_000

        def come(receiver, read):
            merged = kind()
            for body in list(receiver.passed[of]):
                merged.MergeFrom(read(body))
            return merged.ByteSize() >= whole.ByteSize() and merged

        for receiver, read in ((grpc, kind.FromString), (json_, lambda body: from_json(body, kind))):
            found = until(lambda to=receiver, by=read: come(to, by), 30, what=f"all {of}")
            # No number is equal to what is none, and bytes are.
            assert found.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


def test_what_cannot_be_read_of_json_is_refused_and_never_lost(start_gateway, tmp_path):
    with GrpcReceiver() as receiver:
        gateway = start(start_gateway, receiver, folder=tmp_path)

        def refused(path, body):
            answer = post(gateway, json.dumps(body).encode(), path=f"/v1/{path}", content_type="application/json")
            assert answer.status_code == 400, answer.text
            return answer.json()["message"]

        def metric(**data):
            return {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "h", **data}]}]}]}

        said = refused("metrics", metric(sum={"aggregationTemporality": "AGGREGATION_TEMPORALITY_DELTA"}))
        assert "resourceMetrics[0].scopeMetrics[0].metrics[0].sum.aggregationTemporality" in said and "number" in said
        said = refused("metrics", metric(gauge={"dataPoints": [{"asInt": "x"}]}))
        assert "metrics[0].gauge.dataPoints[0].asInt" in said
        said = refused("logs", {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"intValue": "x"}}]}]}]})
        assert "logRecords[0].body.intValue" in said
        send(gateway, logs("after"))
        until(lambda: texts(receiver.passed["logs"]) == ["after"], what="what can be read")
        assert not receiver.passed["metrics"]
