"""The gateway is killed again and again under load, and nothing that it has said is lost.

What must hold after each restart: an answer that a client got whole is on record with its tokens and its cost, and its
spans reach the receiver; a request that was in flight is on record as `aborted`, with no fewer tokens than its client had
seen; every start has exactly one end; and the hash chain verifies. The ledger is read as an auditor would, with SQLite.

TOLLGATE_KILLS says how often; `cargo xtask crash` sets it.
"""

import collections
import json
import os
import random
import sqlite3
import subprocess
import threading
import time
from decimal import Decimal

import httpx

from conftest import PROGRAM, exact, until
from receivers import GrpcReceiver

KILLS = int(os.environ.get("TOLLGATE_KILLS", "25"))
CLIENTS = 6
SPANS_OF_A_SERVED = {"inference.request", "inference.queue", "inference.tokenize", "inference.prefill", "inference.decode"}


class Client(threading.Thread):
    """Asks without a pause whatever gateway is there, plain and streamed, and keeps what it was told."""

    def __init__(self, number, where, stop):
        super().__init__(daemon=True)
        self.where, self.stop, self.random = where, stop, random.Random(number)
        self.http = httpx.Client(timeout=60, trust_env=False)
        self.whole, self.torn, self.wrong = {}, {}, []

    def run(self):
        while not self.stop.is_set():
            body = {"model": "mistral-7b", "prompt": "What is a ledger?" * self.random.randint(1, 3), "temperature": 1.0}
            try:
                self.streamed(body) if self.random.random() < 0.6 else self.plain(body)
            except httpx.TransportError:
                time.sleep(0.02)  # killed, or not there yet
            except Exception as failure:  # noqa: BLE001 - told at the end
                self.wrong.append(failure)
                time.sleep(0.1)

    def plain(self, body):
        body["max_tokens"] = self.random.randint(1, 8)
        response = self.http.post(self.where() + "/v1/completions", json=body)
        assert response.status_code == 200, response.text
        self.got(exact(response))

    def streamed(self, body):
        body |= {"max_tokens": 120, "stream": True, "stream_options": {"include_usage": True}}
        trace, pieces, last = None, 0, None
        try:
            with self.http.stream("POST", self.where() + "/v1/completions", json=body) as stream:
                assert stream.status_code == 200, stream.read()
                trace = stream.headers["x-tollgate-trace-id"]
                for line in stream.iter_lines():
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return self.got(last)
                    if data:
                        last = json.loads(data, parse_float=Decimal)
                        pieces += any(choice["text"] for choice in last["choices"])
            raise httpx.RemoteProtocolError("the stream ended without [DONE]")
        except httpx.TransportError:
            if trace:
                self.torn[trace] = pieces
            raise

    def got(self, answer):
        self.whole[answer["trace_id"]] = (answer["cost"]["amount"], answer["prompt_tokens"], answer["completion_tokens"])


def ledger(gateway):
    """All entries, in order, as an auditor reads them."""
    entries = []
    for path in sorted((gateway.data / "ledger").glob("*.sqlite")):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            db.row_factory = sqlite3.Row
            entries += db.execute("SELECT * FROM entry ORDER BY seq").fetchall()
        db.close()
    return entries


def test_kills_under_load(start_gateway, tmp_path):
    chance, place = random.Random(7), {}
    stop = threading.Event()
    with GrpcReceiver() as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        start = lambda: start_gateway(env=env, data=tmp_path / "data", arguments=["--console", "off"])  # noqa: E731
        gateway = start()
        place["url"] = gateway.url
        clients = [Client(number, lambda: place["url"], stop) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        began = time.monotonic()
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.02, 1.6))
            gateway.kill()
            gateway = start()
            place["url"] = gateway.url
        # One more life to its orderly end.
        time.sleep(1)
        stop.set()
        for client in clients:
            client.join(60)
            assert not client.is_alive(), "a request hangs"
        took = time.monotonic() - began
        whole = {trace: told for client in clients for trace, told in client.whole.items()}
        torn = {trace: pieces for client in clients for trace, pieces in client.torn.items()}
        entries = ledger(gateway)
        ends = {entry["trace_id"]: entry for entry in entries if entry["kind"] != "started"}
        received = lambda: {span.trace_id for span in list(receiver.spans)}  # noqa: E731
        until(lambda: ends.keys() <= received(), 60, "the spans of all records")
        gateway.stop()
    verified = subprocess.run(
        [PROGRAM, "audit", "verify", "--data-dir", gateway.data], capture_output=True, text=True, check=False
    )

    started = [entry for entry in entries if entry["kind"] == "started"]
    lost = [trace for trace in whole if trace not in ends]
    differs = [trace for trace, told in whole.items() if trace in ends and as_told(ends[trace]) != told]
    torn_lost = [trace for trace in torn if trace not in ends]
    too_few = [trace for trace, seen in torn.items() if trace in ends and ends[trace]["output_tokens"] < seen]
    aborted = [entry for entry in entries if entry["outcome"] == "aborted" and entry["kind"] != "started"]
    spans = {(span.trace_id, span.span_id): span.name for span in receiver.spans}
    names = collections.defaultdict(set)
    for (trace, _), name in spans.items():
        names[trace].add(name)
    incomplete = [trace for trace in whole if names[trace] != SPANS_OF_A_SERVED]
    told = {
        "test": "crash",
        "kills": KILLS,
        "seconds": round(took, 1),
        "answers_whole": len(whole),
        "answers_torn": len(torn),
        "records": len(ends),
        "aborted": len(aborted),
        "lost": len(lost) + len(torn_lost),
        "differing": len(differs),
        "too_few_tokens": len(too_few),
        "incomplete_traces": len(incomplete),
        "spans_sent_again": len(receiver.spans) - len(spans),
    }
    print("\n" + json.dumps(told))
    wrong = [failure for client in clients for failure in client.wrong]
    assert not wrong, wrong[:3]
    assert not lost and not torn_lost and not differs and not too_few and not incomplete, told
    assert len(started) == len(ends) == len({entry["started_seq"] for entry in ends.values()})
    assert len(whole) > KILLS // 2 and torn and aborted, told
    for entry in aborted:
        assert entry["cost_status"] in ("priced", "unpriced"), dict(entry)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def as_told(entry):
    return entry["amount"], entry["input_tokens"], entry["output_tokens"]
