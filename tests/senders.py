"""Programs that send spans by OTLP: OpenTelemetry's SDK, and requests made by hand."""

import time

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 100,
}


def provider(exporter, **resource):
    provider = TracerProvider(resource=Resource.create({"service.name": "shop", **resource}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def span(number, trace=7, parent=0, name="chat gpt-4o-mini", **attributes):
    """A span of OTLP as a sender writes it; dots of keys are `__`."""
    start = time.time_ns()
    made = Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name,
        start_time_unix_nano=start,
        end_time_unix_nano=start + 1_000_000,
    )
    for key, value in attributes.items():
        pair = made.attributes.add(key=key.replace("__", "."))
        setattr(pair.value, "int_value" if isinstance(value, int) else "string_value", value)
    return made


def chat(number, **more):
    attributes = {key.replace(".", "__"): value for key, value in CHAT.items()}
    return span(number, **attributes | more)


def request(*spans, **resource):
    made = ExportTraceServiceRequest()
    of_process = made.resource_spans.add()
    for key, value in resource.items():
        of_process.resource.attributes.add(key=key.replace("__", ".")).value.string_value = value
    of_process.scope_spans.add().spans.extend(spans)
    return made


def post(gateway, body, content_type="application/x-protobuf", path="/v1/traces", **headers):
    headers = {"content-type": content_type} | {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(gateway.otlp + path, content=body, headers=headers, timeout=60, trust_env=False)


def export(gateway, *spans, **resource):
    answer = post(gateway, request(*spans, **resource).SerializeToString())
    assert answer.status_code == 200, answer.content
    assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()
