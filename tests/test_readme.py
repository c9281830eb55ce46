"""What README.md shows of `backends.toml` and `keys.toml` is what the program takes, and its first steps work as written."""

import os
import re
import shutil
import subprocess
import tomllib

import pytest

from conftest import PROGRAM, ROOT, component, environment, free_port, replace_file
from test_tenants import CHAT, ROUTE, new_key

BLOCKS = re.findall(r"(?ms)^```toml\n(.*?)^```$", (ROOT / "README.md").read_text())


def block(table):
    (found,) = [text for text in BLOCKS if table in tomllib.loads(text)]
    return found


@pytest.fixture
def gateway_of_the_readme(start_gateway, tmp_path):
    replace_file(tmp_path / "backends.toml", block("backend"))
    replace_file(tmp_path / "anthropic-key", "not-a-key\n")
    replace_file(tmp_path / "keys.toml", block("key"))
    _, secret = new_key(tmp_path / "keys.toml", "acme")
    files = ["--backends", tmp_path / "backends.toml", "--keys-file", tmp_path / "keys.toml"]
    gateway = start_gateway(arguments=[*files, "--model", "demo"], env={"OPENAI_API_KEY": "not-a-key"})
    gateway.http.headers["authorization"] = f"Bearer {secret}"
    return gateway


def test_both_files_hold(gateway_of_the_readme):
    gateway = gateway_of_the_readme
    owners = {model["id"]: model["owned_by"] for model in gateway.http.get("/v1/models").json()["data"]}
    assert owners["llama-3-8b"] == "vllm" and owners["mistral-7b"] == "tollgate"
    answer = gateway.http.post(ROUTE, json=CHAT | {"model": "mistral-7b"})
    assert answer.status_code == 200 and answer.json()["cost"]["status"] == "priced"
    assert answer.headers["x-ratelimit-limit-tokens"] == "1000000"
    assert gateway.http.post(ROUTE, json=CHAT, headers={"authorization": "Bearer none"}).status_code == 401


def test_the_first_steps(tmp_path):
    (block,) = [b for b in re.findall(r"(?ms)^```sh\n(.*?)^```$", (ROOT / "README.md").read_text()) if "tollgate init" in b]
    *steps, serve = block.splitlines()
    assert serve.startswith("tollgate serve --config deploy/tollgate.toml")
    (tmp_path / "plugins").mkdir()
    shutil.copyfile(component("cost-per-token"), tmp_path / "plugins/cost-per-token.wasm")
    places = {"TOLLGATE_PLUGINS": "plugins", "TOLLGATE_LISTEN": f"127.0.0.1:{free_port()}"}
    variables = environment(places | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"})
    assert len(steps) == 3
    for step in steps:
        done = subprocess.run(step, shell=True, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}"
