"""The OpenAPI documents are true: what they name is there, what is there they name, and Schemathesis, which makes requests
from them, finds no answer that they do not describe and none that is the gateway's fault."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from conftest import ROOT, environment, free_port

DOCUMENTS = ROOT / "host/assets/openapi"
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
TOKEN = "a-token-of-some-length"


def document_of(side):
    return json.loads((DOCUMENTS / f"{side}.json").read_text())


@pytest.fixture
def both(start_gateway):
    """A gateway, the addresses of its two listeners, and what each wants to hear."""
    address = f"127.0.0.1:{free_port()}"
    gateway = start_gateway(arguments=["--admin-listen", address], env={"TOLLGATE_ADMIN_TOKEN": TOKEN})
    gateway.sides = {"public": (gateway.url, {}), "admin": (f"http://{address}", {"authorization": f"Bearer {TOKEN}"})}
    return gateway


@pytest.mark.parametrize("side", ["public", "admin"])
def test_what_is_named_is_there(both, side):
    url, headers = both.sides[side]
    document = both.http.get(f"{url}/openapi.json", headers=headers).json()
    for path, methods in document["paths"].items():
        known = path.replace("{file}", "cost-per-token.wasm").replace("{id}", "mistral-7b").replace("{number}", "1")
        answer = both.http.request("TRACE", f"{url}{known}", headers=headers)
        assert answer.status_code == 405, f"{path}: {answer.status_code}"
        allowed = {method.strip().lower() for method in answer.headers["allow"].split(",")}
        assert set(methods) <= allowed, path
    if side == "admin":
        assert both.http.get(f"{url}/openapi.json").status_code == 401


def test_what_is_there_is_named():
    text = (ROOT / "host/crates/http-api/src/routes.rs").read_text().split("#[cfg(test)]")[0]
    constants = dict(re.findall(r'const ([A-Z_]+): &str = "(/[^"]*)";', text))
    routes = {constants.get(route.strip('"'), route.strip('"')) for route in re.findall(r'\.route\(("[^"]+"|[A-Z_]+),', text)}
    named = set(document_of("public")["paths"])
    assert {route.replace("{*id}", "{id}") for route in routes} - {"/v1/{*path}"} <= named
    listed = set(re.findall(r"^//! \| `[A-Z]+ (/[^`]*)`", (ROOT / "host/crates/http-api/src/admin.rs").read_text(), re.M))
    assert len(listed) > 10 and listed - {"/ui/"} == set(document_of("admin")["paths"])


@pytest.mark.parametrize("side", ["public", "admin"])
def test_schemas_hold_for_answers_that_are_not_made_up(both, side):
    """Schemathesis hardly hits upon a model's name, so what a good request gets is looked at here."""
    document = document_of(side)
    url, headers = both.sides[side]

    def check(path, method, answer):
        content = document["paths"][path][method]["responses"]["200"]["content"]["application/json"]
        assert answer.status_code == 200, answer.text
        schema = {"components": document["components"]} | content["schema"]
        jsonschema.Draft202012Validator(schema).validate(answer.json())

    if side == "public":
        body = {"model": "mistral-7b", "max_tokens": 4}
        check("/v1/completions", "post", both.http.post("/v1/completions", json=body | {"prompt": "Hi"}))
        messages = [{"role": "user", "content": "Hi"}]
        check("/v1/chat/completions", "post", both.http.post("/v1/chat/completions", json=body | {"messages": messages}))
        check("/v1/models/{id}", "get", both.http.get("/v1/models/mistral-7b"))
        check("/v1/models", "get", both.http.get("/v1/models"))
        return
    file = "/admin/plugins/{file}"
    for path, method in [("/admin/plugins", "get"), (file, "get"), (f"{file}/disable", "post"), (f"{file}/enable", "post")]:
        known = path.replace("{file}", "cost-per-token.wasm")
        check(path, method, both.http.request(method.upper(), f"{url}{known}", headers=headers))
    answer = both.http.post("/v1/completions", json={"model": "mistral-7b", "prompt": "Hi", "max_tokens": 4})
    assert answer.status_code == 200
    reads = ["requests", "requests/{number}", "requests/in-flight", "totals", "limits", "ledger", "exporters", "backends", "shadow"]
    for path in (f"/admin/{name}" for name in reads):
        check(path, "get", both.http.get(f"{url}{path.replace('{number}', '1')}", headers=headers))
    usage = {"request_model": "mistral-7b", "tokens": {"input": 10, "output": 5}}
    priced = both.http.post(f"{url}/admin/plugins/cost-per-token.wasm/price", json=usage, headers=headers)
    check(f"{file}/price", "post", priced)


@pytest.mark.parametrize("side", ["public", "admin"])
def test_schemathesis_finds_nothing(both, side, tmp_path):
    url, headers = both.sides[side]
    told = [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]
    command = [Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json", *told]
    command += ["--checks", ",".join(CHECKS), "--max-examples", "20", "--generation-deterministic"]
    command += ["--phases", "examples,coverage,fuzzing", "--request-timeout", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment(), cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    both.still_serves()
