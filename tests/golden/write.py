"""Writes a golden ledger: the data folder of a gateway that has served at least one request of each kind.

    TOLLGATE_BIN=... TOLLGATE_COMPONENTS=... python tests/golden/write.py ledger-1

makes `ledger-1.tar.gz` beside this file, and `ledger-1.json`, what the program that wrote it reports of it. There is one for each form of
the ledger that a release has written. None is ever made anew: `tests/test_upgrade.py` has every later program read them.
"""

import gzip
import io
import json
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from conftest import PROGRAM, Gateway, environment, free_port, until  # noqa: E402
from test_otlp_in import chat, export, span  # noqa: E402

PLUGINS_TOML = """
[[plugin]]
file = "cost-per-token.wasm"
config = { models = [
  { match = "mistral-7b", input = "$0.123456/M", output = "$1/M", cache_read = "$0.01/M", markup = "3%" },
  { match = "gpt-4o-mini", input = "$0.15/M", output = "$0.60/M" },
] }
"""
# What a later program cannot make again. Compiled plugins it can, and spans are in the ledger.
KEPT = ("ledger", "plugins/originals", "plugins/configurations")


def serve(folder):
    otlp = free_port()
    arguments = ["--otlp-listen", f"127.0.0.1:{otlp}", "--max-queued", "4"]
    gateway = Gateway(folder, plugins=("cost-per-token", "enrich-labels"), plugins_toml=PLUGINS_TOML, arguments=arguments)
    gateway.otlp = f"http://127.0.0.1:{otlp}"
    return gateway.wait_until_ready()


def ask(gateway):
    for tenant in ("acme", "globex"):
        for tokens in (1, 5, 9):
            gateway.complete(user=tenant, max_tokens=tokens)
        gateway.complete(model="llama-3-8b", user=tenant, max_tokens=3)  # unpriced
    long = {"model": "mistral-7b", "prompt": "Tell me of books.", "max_tokens": 900, "stream": True, "ignore_eos": True}
    with gateway.http.stream("POST", "/v1/completions", json=long | {"user": "acme"}) as stream:
        next(stream.iter_lines())  # and goes away
    assert gateway.http.post("/v1/completions", json=long | {"max_tokens": -1}).status_code == 400
    assert gateway.http.post("/v1/completions", json=long | {"model": "none", "user": "acme"}).status_code == 404
    export(gateway, chat(1, tollgate__tenant="initech"), span(2, name="unrelated", trace=8))
    with gateway.http.stream("POST", "/v1/completions", json=long | {"user": "globex"}) as stream:
        next(stream.iter_lines())
        gateway.process.send_signal(signal.SIGKILL)
        gateway.process.wait()


def report(data):
    command = [PROGRAM, "report", "--data-dir", data, "--by", "tenant,model,plugin", "--format", "json", "--quiet"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, text=True, env=environment()).stdout)
    for group in [told["total"], *told["groups"]]:
        # How percentiles are taken may change.
        del group["duration_ms"], group["first_token_ms"]
    return told


def packed(data):
    """A gzipped tar of what is kept, the same for the same files."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(path for kept in KEPT for path in (data / kept).rglob("*") if path.is_file()):
            if path.name.endswith(("-wal", "-shm")):  # SQLite's own, and empty
                continue
            entry = tarfile.TarInfo(str(path.relative_to(data)))
            entry.size = path.stat().st_size
            tar.addfile(entry, io.BytesIO(path.read_bytes()))
    return gzip.compress(plain.getvalue(), mtime=0)


def main(name):
    with tempfile.TemporaryDirectory() as folder:
        gateway = serve(Path(folder))
        ask(gateway)
        gateway.kill()
        gateway = serve(Path(folder))  # finds what was in flight
        until(lambda: len(gateway.spans()) > 0, what="spans")
        gateway.stop()
        gateway.kill()
        for file in (gateway.data / "ledger").glob("*.sqlite"):
            with sqlite3.connect(file) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.close()
        (HERE / f"{name}.json").write_text(json.dumps(report(gateway.data), indent=2) + "\n")
        (HERE / f"{name}.tar.gz").write_bytes(packed(gateway.data))


if __name__ == "__main__":
    main(sys.argv[1])
