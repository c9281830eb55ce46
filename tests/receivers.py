"""OTLP receivers that share no code with the program: OpenTelemetry's own protobuf messages, over gRPC and over HTTP."""

import base64
import gzip
import json
import re
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf import json_format
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
        # Requests of metrics and of logs, as bytes.
        self.passed = {"metrics": [], "logs": []}
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


def from_otlp_json(text):
    """A request in OTLP/JSON, by protobuf's own reader of JSON: ids are hexadecimal there and base64 here, and nothing
    else may differ, unknown fields and numbers of the wrong form included."""

    def ids(node):
        if isinstance(node, dict):
            for key, item in node.items():
                if key in ("traceId", "spanId", "parentSpanId"):
                    assert re.fullmatch(r"([0-9a-f]{16}){0,2}", item), item
                    node[key] = base64.b64encode(bytes.fromhex(item)).decode()
                elif key in ("kind", "code"):
                    assert type(item) is int, f"{key} is {item!r}"
                elif key == "intValue" or key.endswith("UnixNano"):
                    assert type(item) is str, f"{key} is {item!r}"
                else:
                    ids(item)
        elif isinstance(node, list):
            for item in node:
                ids(item)
        return node

    return json_format.ParseDict(ids(json.loads(text)), ExportTraceServiceRequest())


class GrpcReceiver(Receiver, TraceServiceServicer):
    """Serves `TraceService` on a free port; under TLS with the bytes of a key, a certificate, and the authority of the
    clients that it lets in."""

    protocol = "grpc"

    def __init__(self, port=0, tls=None, signals=True):
        super().__init__()
        self._port, self._tls, self._signals = port, tls, signals

    def __enter__(self):
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        add_TraceServiceServicer_to_server(self, self._server)
        if self._signals:
            self._server.add_generic_rpc_handlers([self.pass_on("metrics"), self.pass_on("logs")])
        address = f"127.0.0.1:{self._port}"
        if self._tls:
            key, certificate, clients = self._tls
            credentials = grpc.ssl_server_credentials([(key, certificate)], clients, require_client_auth=True)
            self.endpoint = f"https://localhost:{self._server.add_secure_port(address, credentials)}"
        else:
            self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port(address)}"
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()

    def pass_on(self, signal):
        """The service of a signal, which keeps requests as they came."""

        def export(request, _):
            self.passed[signal].append(request)
            return b""

        service = f"opentelemetry.proto.collector.{signal}.v1.{signal.title()}Service"
        return grpc.method_handlers_generic_handler(service, {"Export": grpc.unary_unary_rpc_method_handler(export)})

    def Export(self, request, context):  # noqa: N802 - the service's name for it
        self.receive(request, dict(context.invocation_metadata()))
        return ExportTraceServiceResponse()


class HttpReceiver(Receiver):
    """Takes protobuf at `/v1/traces` on a free port; under TLS with an `ssl` context."""

    protocol = "http/protobuf"
    content_type = "application/x-protobuf"
    read = staticmethod(ExportTraceServiceRequest.FromString)
    answer = ExportTraceServiceResponse().SerializeToString()

    def __init__(self, tls=None):
        super().__init__()
        self._tls = tls

    def __enter__(self):
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802 - the base class's name for it
                body = self.rfile.read(int(self.headers["Content-Length"]))
                known = self.headers["Content-Type"] == receiver.content_type
                signal = self.path.removeprefix("/v1/")
                if known and signal in receiver.passed:
                    receiver.passed[signal].append(body)
                elif known := known and signal == "traces":
                    if self.headers.get("Content-Encoding") == "gzip":
                        body = gzip.decompress(body)
                    headers = {name.lower(): text for name, text in self.headers.items()}
                    receiver.receive(receiver.read(body), headers)
                answer = receiver.answer
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", receiver.content_type)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if self._tls:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"{'https://localhost' if self._tls else 'http://127.0.0.1'}:{self._server.server_port}"
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


class JsonReceiver(HttpReceiver):
    """Takes JSON at `/v1/traces`."""

    protocol = "http/json"
    content_type = "application/json"
    read = staticmethod(from_otlp_json)
    answer = b"{}"
