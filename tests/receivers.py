"""OTLP receivers that share no code with the program: OpenTelemetry's own protobuf messages, over gRPC and over HTTP."""

import gzip
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Receiver:
    """What came in, decoded."""

    def __init__(self):
        self.spans = []
        self.headers = []
        self._lock = threading.Lock()

    def receive(self, request, headers):
        with self._lock:
            self.headers.append(headers)
            for resource_spans in request.resource_spans:
                resource = attributes(resource_spans.resource.attributes)
                for scope_spans in resource_spans.scope_spans:
                    for span in scope_spans.spans:
                        self.spans.append(Received(span, resource, scope_spans.scope.name))

    def trace(self, trace_id):
        with self._lock:
            return {span.name: span for span in self.spans if span.trace_id == trace_id}


class Received:
    """One span in plain Python."""

    def __init__(self, span, resource, scope):
        self.trace_id = span.trace_id.hex()
        self.span_id = span.span_id.hex()
        self.parent = span.parent_span_id.hex()
        self.name = span.name
        self.kind = Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")
        self.start, self.end = span.start_time_unix_nano, span.end_time_unix_nano
        self.attributes = attributes(span.attributes)
        self.events = [(event.name, attributes(event.attributes)) for event in span.events]
        self.resource = resource
        self.scope = scope


def attributes(pairs):
    found = {}
    for pair in pairs:
        assert pair.key not in found, f"{pair.key} stands twice"
        found[pair.key] = value(pair.value)
    return found


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(item) for item in any_value.array_value.values]
    return getattr(any_value, kind) if kind else None


class GrpcReceiver(Receiver, TraceServiceServicer):
    """Serves `TraceService` on a free port."""

    protocol = "grpc"

    def __init__(self, port=0):
        super().__init__()
        self._port = port

    def __enter__(self):
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        add_TraceServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()

    def Export(self, request, context):  # noqa: N802 - the service's name for it
        self.receive(request, dict(context.invocation_metadata()))
        return ExportTraceServiceResponse()


class HttpReceiver(Receiver):
    """Takes protobuf at `/v1/traces` on a free port."""

    protocol = "http/protobuf"

    def __enter__(self):
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802 - the base class's name for it
                body = self.rfile.read(int(self.headers["Content-Length"]))
                known = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
                if known:
                    if self.headers.get("Content-Encoding") == "gzip":
                        body = gzip.decompress(body)
                    headers = {name.lower(): text for name, text in self.headers.items()}
                    receiver.receive(ExportTraceServiceRequest.FromString(body), headers)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
