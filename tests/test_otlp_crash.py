"""Everything that goes wrong at once: the gateway is killed again and again under senders that send all of their spans,
metrics and logs two or three times, by both protocols, while the receiver behind it is away more often than not.

What must hold at the end: whatever a sender was told is safe has arrived, each call with its price; no call is billed
twice; and the hash chain verifies. TOLLGATE_KILLS says how often it is killed; `cargo xtask crash` sets it.
"""

import json
import os
import random
import subprocess
import threading
import time
from decimal import Decimal

import grpc
import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from conftest import PROGRAM, free_port, until
from receivers import GrpcReceiver
from senders import chat, post, request, span
from test_otlp_passed import logs, texts

KILLS = int(os.environ.get("TOLLGATE_KILLS", "6"))
SENDERS = 4


class Sender(threading.Thread):
    """Sends without a pause to whatever gateway is there, over HTTP or gRPC, and keeps what it was told is safe."""

    def __init__(self, number, otlp, stop):
        super().__init__(daemon=True)
        self.first, self.otlp, self.stop, self.random = number * 1_000_000 + 1, otlp, stop, random.Random(number)
        self.stub = number % 2 and TraceServiceStub(grpc.insecure_channel(otlp.removeprefix("http://")))
        self.sent, self.safe, self.logged, self.wrong = [], set(), [], []

    def run(self):
        trace = self.first
        while not self.stop.is_set():
            # A client above a server, each of which tells of the call, and what is no call at all.
            spans = [
                chat(1, trace=trace),
                chat(2, trace=trace, parent=1, name="server"),
                span(3, trace=trace, parent=2, name="plain"),
            ]
            self.sent.append((trace, spans))
            for attempt in range(self.random.randint(1, 3)):
                # Not always all of them together, as of two processes.
                part = spans if attempt == 0 else self.random.sample(spans, self.random.randint(1, 3))
                if self.is_taken(request(*part)):
                    self.safe.update((trace, int.from_bytes(one.span_id, "big")) for one in part)
            said = f"{trace} is sent"
            if self.otlp_post(logs(said).SerializeToString(), "/v1/logs"):
                self.logged.append(said)
            trace += 1

    def is_taken(self, message):
        if not self.stub:
            return self.otlp_post(message.SerializeToString(), "/v1/traces")
        try:
            answer = self.stub.Export(message, timeout=10)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                self.wrong.append(error)
            time.sleep(0.02)
            return False
        return not answer.HasField("partial_success")

    def otlp_post(self, body, path):
        try:
            status = post(self, body, path=path).status_code
        except httpx.TransportError:
            time.sleep(0.02)  # killed, or not there yet
            return False
        if status not in (200, 429, 503):
            self.wrong.append(status)
        return status == 200


class Behind:
    """A receiver that comes and goes at one address."""

    def __init__(self):
        self.port, self.all, self.up = free_port(), [], None

    def come(self):
        if not self.up:
            self.up = GrpcReceiver(self.port).__enter__()
            self.all.append(self.up)

    def go(self):
        if self.up:
            self.up.__exit__()
            self.up = None

    def spans(self):
        return [one for receiver in self.all for one in list(receiver.spans)]

    def logged(self):
        return [text for receiver in self.all for text in texts(list(receiver.passed["logs"]))]


def test_kills_duplicates_and_a_receiver_that_is_down_lose_nothing_and_bill_nothing_twice(start_gateway, tmp_path):
    chance, port, behind, stop = random.Random(11), free_port(), Behind(), threading.Event()

    def start():
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{behind.port}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        arguments = ["--console", "off", "--otlp-listen", f"127.0.0.1:{port}"]
        gateway = start_gateway(env=env, data=tmp_path / "data", arguments=arguments)
        gateway.otlp = f"http://127.0.0.1:{port}"
        return gateway

    gateway = start()
    senders = [Sender(number, gateway.otlp, stop) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    try:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.2, 1.0))
            behind.come() if chance.random() < 0.4 else behind.go()
            time.sleep(chance.uniform(0.0, 0.5))
            gateway.kill()
            gateway = start()
        time.sleep(1)
    finally:
        stop.set()
        for sender in senders:
            sender.join(60)
    wrong = [failure for sender in senders for failure in sender.wrong]
    assert not wrong, wrong[:3]
    sent = [one for sender in senders for one in sender.sent]
    safe = set().union(*(sender.safe for sender in senders))
    logged = [said for sender in senders for said in sender.logged]
    assert len(safe) > 5 * KILLS and logged, (len(safe), len(logged))

    behind.come()
    arrived = lambda: {(int(one.trace_id, 16), int(one.span_id, 16)): one for one in behind.spans()}  # noqa: E731
    until(lambda: safe <= arrived().keys(), 60, "every span that was acknowledged")
    until(lambda: set(logged) <= set(behind.logged()), 60, "every log that was acknowledged")
    # What was told nothing is sent again, until all of it is safe.
    for _, spans in sent:
        body = request(*spans).SerializeToString()
        until(lambda: post(gateway, body).status_code == 200, 30, "an acknowledgement")  # noqa: B023
    wanted = {(trace, number) for trace, _ in sent for number in (1, 2, 3)}
    until(lambda: arrived().keys() >= wanted, 60, "all spans")
    found = arrived()
    assert found.keys() == wanted
    again = len(behind.spans()) - len(found)
    gateway.stop()
    behind.go()

    def status(trace, number):
        return found[trace, number].attributes.get("tollgate.cost.status")

    # Of each call one of the two spans is billed. A part of a trace may have come alone and first, so it may be either.
    amounts = set()
    for trace, _ in sent:
        assert sorted((status(trace, 1), status(trace, 2))) == ["priced", "unpriced"], trace
        assert status(trace, 3) is None
        amounts |= {found[trace, number].attributes.get("tollgate.cost.amount") for number in (1, 2)} - {None}
    # What arrived twice says the same twice.
    for one in behind.spans():
        first = found[int(one.trace_id, 16), int(one.span_id, 16)]
        assert (one.attributes, one.parent, one.start) == (first.attributes, first.parent, first.start)
    assert len(amounts) == 1
    command = [PROGRAM, "report", "--data-dir", gateway.data, "--by", "tenant", "--format", "json", "--quiet"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["total"]
    print(json.dumps({"test": "otlp-crash", "kills": KILLS, "calls": len(sent), "acknowledged": len(safe), "again": again}))
    assert told["requests"] == len(sent)
    assert [Decimal(cost["amount"]) for cost in told["amounts"]] == [len(sent) * Decimal(amounts.pop())]
    command = [PROGRAM, "audit", "verify", "--data-dir", gateway.data]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
