"""Measures what a gateway takes: memory, processor time and disk for each request. The figures of host/SIZING.md are from it.

    TOLLGATE_BIN=target/release/tollgate TOLLGATE_COMPONENTS=... python tests/sizing.py [REQUESTS]

Processor time and bytes are those of the gateway's process, which other load on the machine changes little.
"""

import gzip
import json
import os
import sys
import tempfile
import threading
from pathlib import Path

import httpx

from backends import Scripted, backends, begin_events, send_json, to
import conftest
from conftest import BUNDLED, Gateway, until

conftest.START_SECONDS = 300  # a machine that is measured may be busy
REQUESTS = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
CLIENTS = 16
PIECES = 64
TICK = os.sysconf("SC_CLK_TCK")
USAGE = {"prompt_tokens": 200, "completion_tokens": PIECES, "total_tokens": 200 + PIECES}
ASK = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "word " * 200}], "user": "acme"}


def chunk(delta, **more):
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", **more} | {
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}] if delta is not None else []
    }


def answer(connection, body):
    if b'"stream":true' not in body.replace(b" ", b""):
        message = {"role": "assistant", "content": "word " * PIECES}
        whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE}
        whole["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return send_json(connection, whole, extra="connection: close\r\n")
    begin_events(connection)
    events = [chunk({"content": "word "}) for _ in range(PIECES)] + [chunk(None, usage=USAGE)]
    connection.sendall(b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n")


class Process:
    """What the kernel says of a process."""

    def __init__(self, pid):
        self.folder = Path(f"/proc/{pid}")

    def seconds(self):
        fields = (self.folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def mib(self, what):
        line = next(line for line in (self.folder / "status").read_text().splitlines() if line.startswith(what))
        return int(line.split()[1]) / 1024


def load(gateway, **more):
    """All requests, by clients that ask one after the other."""

    def ask():
        with httpx.Client(base_url=gateway.url, timeout=120, trust_env=False) as http:
            for _ in range(REQUESTS // CLIENTS):
                answer = http.post("/v1/chat/completions", json=ASK | more)
                assert answer.status_code == 200, answer.text

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm"))


def measured(name, arguments, **more):
    with tempfile.TemporaryDirectory() as folder:
        gateway = Gateway(Path(folder), plugins=BUNDLED, arguments=["--console", "off", *arguments(Path(folder))]).wait_until_ready()
        try:
            process = Process(gateway.process.pid)
            load(gateway, **more)  # warm
            before, spans = process.seconds(), gateway.span_file.stat().st_size
            load(gateway, **more)
            count = REQUESTS // CLIENTS * CLIENTS
            until(lambda: gateway.span_file.read_bytes().count(b'"inference.request"') >= 2 * count, 120, "all spans")
            text = gateway.span_file.read_bytes()[spans:]
            seconds, now, peak = process.seconds() - before, process.mib("VmRSS"), process.mib("VmHWM")
            gateway.stop()  # the ledger's log is in its file then
            ledger = size(gateway.data / "ledger") / (2 * count)
            print(
                f"{name:<28} {1e6 * seconds / count:9.0f} {now:8.0f} {peak:8.0f} {ledger:8.0f}"
                f" {len(text) / count:8.0f} {len(gzip.compress(text)) / count:8.0f}",
                flush=True,
            )
        finally:
            gateway.kill()


def main():
    server = Scripted(answer)
    front = lambda folder: ["--backends", backends(folder, to(server))]  # noqa: E731
    print(f"{'':<28} {'cpu us':>9} {'RSS MiB':>8} {'peak MiB':>8} {'ledger B':>8} {'spans B':>8} {'gzip B':>8}   for each request")
    measured("forwarded, plain", front)
    measured(f"forwarded, {PIECES} events", front, stream=True)
    measured("demo model, 16 tokens", lambda _: ["--model", "demo"], max_tokens=16)


if __name__ == "__main__":
    main()
