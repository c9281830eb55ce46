"""OpenAI's JavaScript client, unchanged, against the gateway: what the model here says, and what another server does."""

import json
import os
import shutil
import subprocess

import pytest

from backends import ANSWER, USAGE, chunk, front, scripted, send_json, stream_of, to
from conftest import ROOT

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What does a plugin do?"}], "max_tokens": 12, "seed": 7}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
TOOL = {"model": "mistral-7b", "messages": [{"role": "user", "content": "How is the weather in Bern?"}], "tools": [WEATHER]}


@pytest.fixture(scope="session")
def client(tmp_path_factory):
    """A folder with the client, installed as its users install it."""
    if shutil.which("npm") is None:
        pytest.skip("npm is missing")
    folder = tmp_path_factory.mktemp("javascript")
    for file in ("package.json", "package-lock.json", "client.mjs"):
        shutil.copy(ROOT / "tests/javascript" / file, folder)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=300)
    return folder


def ask(client, gateway, tool=None):
    variables = {"BASE_URL": f"{gateway.url}/v1", "QUESTIONS": json.dumps({"chat": CHAT, "tool": tool})}
    done = subprocess.run(["node", "client.mjs"], cwd=client, env=os.environ | variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def says_the_same_streamed(told):
    plain, streamed = told["plain"], told["streamed"]
    assert plain["choices"][0]["message"]["content"].strip()
    assert streamed["choices"][0]["message"]["content"] == plain["choices"][0]["message"]["content"]
    assert streamed["choices"][0]["finish_reason"] == plain["choices"][0]["finish_reason"]
    assert streamed["usage"] == plain["usage"]
    assert told["error"] == {"is_not_found": True, "status": 404, "code": "model_not_found", "param": "model"}


def test_the_model_here(client, gateway):
    told = ask(client, gateway)
    says_the_same_streamed(told)
    assert told["plain"]["cost"]["status"] == "priced"
    assert told["completion"]["object"] == "text_completion" and told["completion"]["usage"]["completion_tokens"] <= 8
    assert "gpt-4o-mini" in told["models"]


def test_another_server_and_its_tools(client, front, scripted):
    def script(connection, body):
        asked = json.loads(body)
        if "messages" not in asked:
            return send_json(connection, ANSWER | {"object": "text_completion", "choices": [{"index": 0, "text": "It prices.", "finish_reason": "stop"}]})
        message = {"role": "assistant", "content": None, "tool_calls": [CALL]} if "tools" in asked else {"role": "assistant", "content": "Hello."}
        reason = "tool_calls" if "tools" in asked else "stop"
        if not asked.get("stream"):
            return send_json(connection, ANSWER | {"choices": [{"index": 0, "message": message, "finish_reason": reason}]})
        pieces = [{"role": "assistant", "content": "Hel"}, {"content": "lo."}]
        if "tools" in asked:
            name = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
            arguments = [{"index": 0, "function": {"arguments": part}} for part in ('{"city": ', '"Bern"}')]
            pieces = [{"role": "assistant", "tool_calls": [name]}] + [{"tool_calls": [part]} for part in arguments]
        events = [chunk(choices=[{"index": 0, "delta": delta, "finish_reason": None}]) for delta in pieces]
        stream_of(connection, *events, chunk(reason=reason), chunk(usage=USAGE), b"data: [DONE]\n\n")

    server = scripted(script)
    gateway = front(to(server, models=["gpt-4o-mini", "mistral-7b"]))
    told = ask(client, gateway, TOOL)
    says_the_same_streamed(told)
    assert told["plain"]["usage"] == USAGE and told["plain"]["cost"]["status"] == "priced"
    for answer in (told["called"], told["calling"]):
        (choice,) = answer["choices"]
        assert choice["finish_reason"] == "tool_calls"
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] == "weather" and json.loads(call["function"]["arguments"]) == {"city": "Bern"}
