"""A stock OTLP agent, rotel, in front of the gateway and behind it, as a Collector would stand."""

import importlib.util
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from conftest import environment, free_port, until
from receivers import HttpReceiver
from senders import chat, export, span

PACKAGE = importlib.util.find_spec("rotel")
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="there is no rotel for this platform")


class Agent:
    """Takes OTLP on two ports and sends it to `endpoint`."""

    def __init__(self, folder, endpoint, protocol):
        self.grpc, self.http = free_port(), free_port()
        program = Path(PACKAGE.submodule_search_locations[0]) / "rotel-agent"
        if not os.access(program, os.X_OK):
            program.chmod(0o755)
        command = [program, "start", "--otlp-grpc-endpoint", f"127.0.0.1:{self.grpc}", "--exporter", "otlp"]
        command += ["--otlp-http-endpoint", f"127.0.0.1:{self.http}", "--batch-timeout", "100ms"]
        command += ["--otlp-exporter-endpoint", endpoint, "--otlp-exporter-protocol", protocol]
        self.log = folder / f"agent-{self.grpc}.txt"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.otlp = f"http://127.0.0.1:{self.http}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def test_spans_go_through_an_agent_the_gateway_and_an_agent(start_gateway, tmp_path):
    port = free_port()
    with (
        HttpReceiver() as receiver,
        Agent(tmp_path, receiver.endpoint, "http") as behind,
        Agent(tmp_path, f"http://127.0.0.1:{port}", "grpc") as before,
    ):
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{behind.grpc}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        gateway = start_gateway(env=env, arguments=["--otlp-listen", f"127.0.0.1:{port}"])

        def sent():
            try:
                export(before, span(1, trace=9, name="handle"), chat(2, trace=9, parent=1), service__name="shop")
            except httpx.TransportError:
                assert before.process.poll() is None, before.log.read_text()
                return False
            return True

        until(sent, 30, "the agent in front")
        spans = until(lambda: len(found := receiver.trace(f"{9:032x}")) == 2 and found, 30, "both spans behind the second agent")
        priced = spans["chat gpt-4o-mini"]
        assert priced.attributes["tollgate.cost.status"] == "priced" and priced.resource["service.name"] == "shop"
        assert spans["handle"].attributes == {} and priced.parent == spans["handle"].span_id
        ours = gateway.complete()
        root = until(lambda: receiver.trace(ours["trace_id"]).get("inference.request"), 30, "a request of our own")
        assert root.attributes["tollgate.cost.amount"] == ours["cost"]["amount"]
