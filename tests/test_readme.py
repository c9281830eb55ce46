"""What README.md shows is what happens: its commands typed as they stand, its files handed to the program, its answers and
traces held against what comes."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tomllib

import pytest

from backends import backends, begin_events, chunk, scripted, send_json  # noqa: F401 - a fixture
from conftest import BUNDLED, ROOT, component, environment, free_port, replace_file, until
from pages import block, blocks, served, shell, shell_environment  # noqa: F401 - a fixture
from test_tenants import CHAT, ROUTE, new_key

PAGE = "README.md"
TABLES = [found.text for found in blocks(PAGE, "toml")]


def table(name):
    (found,) = [text for text in TABLES if name in tomllib.loads(text)]
    return found


@pytest.fixture
def folder(tmp_path):
    """Where a reader types, with the bundled plugins beside it."""
    (tmp_path / "plugins").mkdir()
    for name in BUNDLED:
        shutil.copyfile(component(name), tmp_path / f"plugins/{name}.wasm")
    return tmp_path


@pytest.fixture
def gateway_of_the_readme(start_gateway, tmp_path):
    replace_file(tmp_path / "backends.toml", table("backend"))
    replace_file(tmp_path / "anthropic-key", "not-a-key\n")
    replace_file(tmp_path / "keys.toml", table("key"))
    _, secret = new_key(tmp_path / "keys.toml", "acme")
    files = ["--backends", tmp_path / "backends.toml", "--keys-file", tmp_path / "keys.toml"]
    gateway = start_gateway(arguments=[*files, "--model", "demo"], env={"OPENAI_API_KEY": "not-a-key"})
    gateway.http.headers["authorization"] = f"Bearer {secret}"
    return gateway


def keys_of(value):
    """The keys of an answer, all the way down, and no values; of a list, those of its first."""
    if isinstance(value, dict):
        return {key: keys_of(inner) for key, inner in value.items()}
    return [keys_of(inner) for inner in value[:1]] if isinstance(value, list) else None


def lacks(shown, given):
    """The keys that are shown and not given."""
    if isinstance(shown, dict):
        return [key for key in shown if key not in (given or {})] + [k for key in shown for k in lacks(shown[key], (given or {}).get(key))]
    return [key for one, other in zip(shown, given or []) for key in lacks(one, other)] if isinstance(shown, list) else []


def form_of(tree):
    """The lines of a trace on the console, without what differs each time."""
    lines = []
    for line in tree.strip().splitlines():
        line = re.sub(r"\b[0-9a-f]{32}\b", "ID", line)
        line = re.sub(r"[·█]{24}", "BAR", line)
        line = re.sub(r"\d[\d.]*", "N", line)
        lines.append(re.sub(r"^[├└]─", "─", re.sub(r" +", " ", line.strip())))
    return sorted(lines)


def tree(gateway, trace_id):
    """The tree of that trace as the console has it."""

    def find():
        lines = gateway.log().splitlines()
        at = next((i for i, line in enumerate(lines) if line.startswith("inference.request") and trace_id in line), None)
        if at is None:
            return None
        end = next((i for i, line in enumerate(lines[at:], at) if line.startswith("└─")), None)
        return end and "\n".join(lines[at : end + 1])

    return until(find, what="the trace on the console")


def test_the_first_request(start_gateway, tmp_path, shell_environment):  # noqa: F811 - the fixture
    gateway = start_gateway()
    answered = shell(block(PAGE, "curl").replace(":8080", f":{gateway.port}"), tmp_path, shell_environment)
    shown, given = json.loads(block(PAGE, "{", "json")), json.loads(answered)
    assert not lacks(keys_of(shown), keys_of(given))
    assert shown["prompt_tokens"] == given["prompt_tokens"] and shown["cost"]["plugin"]["name"] == given["cost"]["plugin"]["name"]
    # The amount that is shown is the one of the tokens that are shown.
    usage = shown["usage"]
    assert shown["cost"]["amount"] == f"{(usage['prompt_tokens'] * 1 + usage['completion_tokens'] * 2) / 10**7:.7f}"
    assert form_of(tree(gateway, given["trace_id"])) == form_of(block(PAGE, "inference.request  mistral-7b", ""))


def test_the_client(gateway, tmp_path):
    code = block(PAGE, "from openai", "python").replace("http://localhost:8080", gateway.url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment(), cwd=tmp_path)
    assert done.returncode == 0 and "'status': 'priced'" in done.stdout, done.stdout + done.stderr


def test_both_files_hold(gateway_of_the_readme):
    gateway = gateway_of_the_readme
    owners = {model["id"]: model["owned_by"] for model in gateway.http.get("/v1/models").json()["data"]}
    assert owners["llama-3-8b"] == "vllm" and owners["mistral-7b"] == "tollgate"
    answer = gateway.http.post(ROUTE, json=CHAT | {"model": "mistral-7b"})
    assert answer.status_code == 200 and answer.json()["cost"]["status"] == "priced"
    assert answer.headers["x-ratelimit-limit-tokens"] == "1000000"
    assert gateway.http.post(ROUTE, json=CHAT, headers={"authorization": "Bearer none"}).status_code == 401


def test_in_front_of_others(folder, shell_environment):  # noqa: F811 - the fixture
    replace_file(folder / "backends.toml", table("backend"))
    replace_file(folder / "anthropic-key", "not-a-key\n")
    port = free_port()
    places = {"TOLLGATE_LISTEN": f"127.0.0.1:{port}", "TOLLGATE_PLUGINS": "plugins"}
    with served(block(PAGE, "OPENAI_API_KEY="), folder, shell_environment | places, port) as log:
        assert "4: vllm-a, vllm-b, openai, anthropic" in log.read_text()


@pytest.fixture
def streamed(start_gateway, scripted, tmp_path):  # noqa: F811 - the fixture
    """A gateway in front of a server that answers as the page's does: a stream of 14 and 3 tokens."""

    def script(connection, body):
        if b'"stream"' not in body:
            return send_json(connection, {"status": "ok"}, extra="connection: close\r\n")
        begin_events(connection)
        usage = {"prompt_tokens": 14, "completion_tokens": 3, "total_tokens": 17}
        for event in (chunk("Hel"), chunk("lo"), chunk(reason="stop"), chunk(usage=usage), b"data: [DONE]\n\n"):
            connection.sendall(event)

    server = scripted(script)
    models = [{"as": "llama-3-8b", "name": "meta-llama/Llama-3.1-8B-Instruct"}]
    file = backends(tmp_path, {"name": "vllm-a", "url": f"{server.url}/v1", "provider": "vllm", "models": models})
    gateway = start_gateway(arguments=["--backends", file])
    ask = CHAT | {"model": "llama-3-8b", "stream": True, "user": "acme"}
    answer = gateway.http.post(ROUTE, json=ask)
    assert answer.status_code == 200, answer.text
    return gateway, answer


def test_what_a_stream_ends_with(streamed):
    _, answer = streamed
    shown, given = block(PAGE, ": tollgate {", "").strip().splitlines(), answer.text.strip().splitlines()[-3:]
    assert (shown[1:], given[1:]) == (["", "data: [DONE]"],) * 2
    told, got = (json.loads(lines[0].removeprefix(": tollgate ")) for lines in (shown, given))
    for one in (told, got):
        one["cost"]["plugin"].pop("digest")
        one.pop("trace_id")
    assert told == got


def test_the_trace_of_a_forwarded_stream(streamed):
    gateway, answer = streamed
    given = tree(gateway, answer.headers["x-tollgate-trace-id"])
    assert form_of(given) == form_of(block(PAGE, "inference.request  llama-3-8b", ""))


def test_keys(folder, shell_environment):  # noqa: F811 - the fixture
    port = free_port()
    script = block(PAGE, "tollgate key create").replace(":8080", f":{port}")
    with served(script, folder, shell_environment | {"TOLLGATE_PLUGINS": "plugins"}, port) as log:
        secret = re.search(r"tg-\S+", log.read_text())[0]
        ask = ["-d", json.dumps(CHAT | {"model": "mistral-7b"}), "-H", "content-type: application/json"]
        for key, status in ((secret, "200"), ("none", "401")):
            command = ["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", *ask, "-H", f"x-api-key: {key}", f"http://127.0.0.1:{port}{ROUTE}"]
            assert subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment()).stdout == status


def test_the_first_steps(folder, shell_environment):  # noqa: F811 - the fixture
    port = free_port()
    places = {"TOLLGATE_PLUGINS": "plugins", "TOLLGATE_LISTEN": f"127.0.0.1:{port}"}
    with served(block(PAGE, "tollgate init"), folder, shell_environment | places, port) as log:
        assert f"127.0.0.1:{port}/v1" in log.read_text()


def test_exporters(start_gateway, tmp_path):
    text = table("exporter").replace("/var/log/tollgate", str(tmp_path)).replace("/run/secrets/otlp", str(tmp_path / "otlp"))
    assert "/run/" not in text and "/var/" not in text
    replace_file(tmp_path / "otlp", "Bearer not-a-token\n")
    replace_file(tmp_path / "tollgate.toml", text)
    gateway = start_gateway(arguments=["--config", tmp_path / "tollgate.toml"])
    trace = gateway.complete(max_tokens=2)["trace_id"]
    until(lambda: (tmp_path / "spans.ndjson").exists() and trace in (tmp_path / "spans.ndjson").read_text(), what="the spans")
    assert "vendor: https://otlp.example.org" in gateway.log()


def test_operate_it(folder, shell_environment):  # noqa: F811 - the fixture
    port, admin = free_port(), free_port()
    begin, ask = (block(PAGE, text).replace(":9090", f":{admin}") for text in ("export TOLLGATE_ADMIN_TOKEN", "tollgate plugin list"))
    assert "\ntarget/release/tollgate serve" in begin
    begin = begin.replace("target/release/tollgate", "echo $TOLLGATE_ADMIN_TOKEN > token; tollgate")
    replace_file(folder / "usage.json", json.dumps({"request_model": "mistral-7b", "tokens": {"input": 1000, "output": 500}}))
    places = {"TOLLGATE_PLUGINS": "plugins", "TOLLGATE_LISTEN": f"127.0.0.1:{port}"}
    with served(begin, folder, shell_environment | places, port):
        token = (folder / "token").read_text().strip()
        assert re.fullmatch(r"[0-9a-f]{64}", token)
        told = shell(ask, folder, shell_environment | {"TOLLGATE_ADMIN_TOKEN": token})
    assert all(f"{name}.wasm" in told for name in BUNDLED) and "0.0002 USD" in told, told


def test_the_ledger(folder, start_gateway, shell_environment):  # noqa: F811 - the fixture
    gateway = start_gateway(data=folder / "tollgate-data")
    for user in ("acme", "acme", "zeta"):
        gateway.complete(user=user, max_tokens=3)
    shutil.copyfile(component("cost-per-token"), folder / "new-prices.wasm")
    (day,) = re.findall(r'"day": ?"([0-9-]+)"', shell("tollgate report --by day --format json", folder, shell_environment))
    replace_file(folder / "invoice.csv", f"date,model,cost\n{day},mistral-7b,1\n")
    # Beside the gateway that serves.
    told = shell(block(PAGE, "tollgate report"), folder, shell_environment)
    assert "acme" in told and "zeta" in told and re.search(r"head [0-9]+:[0-9a-f]{64}", told), told
    gateway.stop()
    (file, query) = re.search(r'`sqlite3 (\S+)\s"(SELECT [^"]+)"`', (ROOT / PAGE).read_text()).groups()
    with sqlite3.connect(folder / file) as database:
        sums = dict(database.execute(query))
    database.close()
    assert sums == {"acme": 6, "zeta": 3}
