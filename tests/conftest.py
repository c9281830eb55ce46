"""Starts the real program on a free port, with a plugin folder and a data folder of its own, and stops it as an
operator would. Every test here talks to it over sockets only.

The program is `target/debug/tollgate`, or TOLLGATE_BIN; plugins are taken from the plugins' release build, or
TOLLGATE_COMPONENTS. `cargo xtask test python` builds both and sets the variables.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from decimal import Decimal
from pathlib import Path

import httpx
import openai
import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(os.environ.get("TOLLGATE_BIN", ROOT / "target/debug/tollgate"))
COMPONENTS = Path(os.environ.get("TOLLGATE_COMPONENTS", ROOT / "plugins/target/wasm32-wasip2/release"))
BUNDLED = ("cost-per-token", "cost-device-seconds", "enrich-labels", "filter-redact")
START_SECONDS = 60
STOP_SECONDS = 40


def component(name):
    """The built component of a plugin or fixture."""
    path = COMPONENTS / f"{name.replace('-', '_')}.wasm"
    assert path.is_file(), f"{path} is missing: `cargo xtask build-plugins` makes it"
    return path


PORTS = iter(random.sample(range(10_000, 32_000), 22_000))


def free_port():
    """One that nobody was given before, and that the system gives to no connection: it takes those from 32,768 on."""
    for port in PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("every port was given")


def environment(extra=()):
    """Ours, without what would configure the program or any OpenTelemetry SDK, and without a proxy."""
    unwanted = ("TOLLGATE_", "OTEL_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(unwanted) and not k.lower().endswith("_proxy")}
    return kept | dict(extra)


def until(condition, seconds=10, what="what was waited for"):
    """The first true value of `condition`, asked again and again."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds} s"
        time.sleep(0.02)


def replace_file(path, content):
    """As an operator should: whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.replace(temporary, path)


class MachineCode:
    """What the bundled plugins were compiled to: two seconds of a start, and hundreds of tests start a gateway each. The
    first one compiles them; the others find what it kept, as they would after a restart.
    """

    def __init__(self):
        self._kept = tempfile.TemporaryDirectory(prefix="tollgate-compiled-")

    @staticmethod
    def _folder(data):
        return data / "plugins" / "compiled"

    def lend(self, data):
        folder = self._folder(data)
        folder.mkdir(mode=0o700, parents=True)
        folder.parent.chmod(0o700)
        for file in Path(self._kept.name).iterdir():
            shutil.copy2(file, folder)

    def keep(self, data):
        digests = {hashlib.sha256(component(name).read_bytes()).hexdigest() for name in BUNDLED}
        for file in self._folder(data).glob("*.bin"):
            kept = Path(self._kept.name) / file.name
            if file.name.split("-")[0] in digests and not kept.exists():
                replace_file(kept, file.read_bytes())
                kept.chmod(0o600)


MACHINE_CODE = MachineCode()


class Gateway:
    """One running program."""

    def __init__(self, folder, plugins=BUNDLED, plugins_toml=None, data=None, env=(), arguments=(), host="127.0.0.1"):
        self.folder = folder
        self.plugins = folder / "plugins"
        self.data = data or folder / "data"
        self.plugins.mkdir(parents=True, exist_ok=True)
        for name in plugins:
            shutil.copyfile(component(name), self.plugins / f"{name}.wasm")
        if plugins_toml is not None:
            replace_file(self.plugins / "plugins.toml", plugins_toml)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        self.openai = openai.OpenAI(
            base_url=f"{self.url}/v1", api_key="unused", max_retries=0, http_client=httpx.Client(timeout=60, trust_env=False)
        )
        self._log = (folder / "log.txt").open("ab")
        if not self.data.exists():
            MACHINE_CODE.lend(self.data)
        command = [PROGRAM, "serve", "--listen", f"{host}:{self.port}", "--data-dir", self.data]
        command += ["--plugins", self.plugins, *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, env=environment(env), cwd=folder
        )

    def wait_until_ready(self):
        def ready():
            assert self.process.poll() is None, f"ended with {self.process.returncode} at start:\n{self.last_words()}"
            try:
                return self.http.get("/ready").status_code == 200
            except httpx.TransportError:
                return False

        until(ready, START_SECONDS, "/ready")
        MACHINE_CODE.keep(self.data)
        return self

    def stop(self, signal_number=signal.SIGTERM, status=0):
        """Asks it to end and insists that it does so cleanly, or with that status."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        try:
            ended = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not end within {STOP_SECONDS} s of a signal:\n{self.last_words()}") from None
        assert ended == status, f"ended with {ended}:\n{self.last_words()}"

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.http.close()
        self.openai.close()
        self._log.close()

    def log(self):
        return (self.folder / "log.txt").read_text(errors="replace")

    def last_words(self):
        """The end of its log, spans left out."""
        lines = [line for line in self.log().splitlines() if line[:1].isdigit() or line.startswith("tollgate")]
        return "\n".join(lines[-15:])

    @property
    def span_file(self):
        return self.data / "spans.ndjson"

    def spans(self, trace_id=None):
        """What the NDJSON file holds, of one trace or of all; a line under way is left for next time."""
        if not self.span_file.exists():
            return []
        whole, _, _ = self.span_file.read_text().rpartition("\n")
        spans = [json.loads(line) for line in whole.splitlines()]
        return [span for span in spans if trace_id in (None, span["trace_id"])]

    def root_span(self, trace_id):
        """The root span of a trace, waited for: delivery happens after the answer."""

        def find():
            return next((s for s in self.spans(trace_id) if s["name"] == "inference.request"), None)

        return until(find, what=f"the root span of trace {trace_id}")

    def complete(self, model="mistral-7b", prompt="What is a span?", max_tokens=8, headers=None, **more):
        """A plain completion that must succeed; money is read exactly."""
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, **more}
        response = self.http.post("/v1/completions", json=body, headers=headers)
        assert response.status_code == 200, response.text
        return exact(response)

    def still_serves(self):
        answer = self.complete(max_tokens=2, temperature=0)
        assert answer["cost"]["status"] == "priced", answer["cost"]


def exact(response):
    """The JSON of a response with its numbers as written."""
    return json.loads(response.content, parse_float=Decimal)


def read_events(lines):
    """The `data:` payloads of a stream, up to and without `[DONE]`; insists on it."""
    events = []
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return events
        events.append(json.loads(data, parse_float=Decimal))
    raise AssertionError(f"the stream ended without [DONE], after {events[-1:]}")


@pytest.fixture
def start_gateway(tmp_path):
    """Starts gateways; each is ended cleanly after the test, or the test fails."""
    running = []

    def start(ready=True, **options):
        gateway = Gateway(tmp_path / f"gateway-{len(running)}", **options)
        running.append(gateway)
        return gateway.wait_until_ready() if ready else gateway

    yield start
    try:
        for gateway in running:
            if gateway.process.poll() is None:
                gateway.stop()
    finally:
        for gateway in running:
            gateway.kill()


@pytest.fixture(scope="session")
def shared_gateway(tmp_path_factory):
    gateway = Gateway(tmp_path_factory.mktemp("shared"))
    try:
        yield gateway.wait_until_ready()
        gateway.stop()
    finally:
        gateway.kill()


@pytest.fixture
def gateway(shared_gateway):
    """A gateway with the bundled plugins, shared by all tests that leave it as they found it."""
    assert shared_gateway.process.poll() is None, f"an earlier test ended it:\n{shared_gateway.last_words()}"
    return shared_gateway


@pytest.fixture
def in_background():
    """Runs functions in threads, all joined by the end of the test; a failure in one fails the test."""
    threads, failures = [], []

    def start(function, *arguments):
        def guarded():
            try:
                function(*arguments)
            except BaseException as failure:  # noqa: BLE001 - passed on below
                failures.append(failure)

        thread = threading.Thread(target=guarded, daemon=True)
        threads.append(thread)
        thread.start()
        return thread

    yield start
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a background thread hangs"
    if failures:
        raise failures[0]


def pytest_configure(config):
    if not PROGRAM.is_file():
        raise pytest.UsageError(f"{PROGRAM} is missing: `cargo xtask test python` builds it and runs these tests")
