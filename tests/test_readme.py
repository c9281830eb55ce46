"""What README.md shows of `backends.toml` and `keys.toml` is what the program takes."""

import re
import tomllib

import pytest

from conftest import ROOT, replace_file
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
