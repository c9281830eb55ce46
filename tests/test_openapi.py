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
    assert len(listed) > 10 and listed - {"/", "/ui/"} == set(document_of("admin")["paths"])


REQUESTS = {"/v1/completions": "CompletionRequest", "/v1/chat/completions": "ChatRequest", "/v1/embeddings": "EmbeddingRequest"}


def resolved(node, schemas):
    """A schema with what it refers to in its place."""
    if isinstance(node, list):
        return [resolved(part, schemas) for part in node]
    if not isinstance(node, dict):
        return node
    whole = {name: resolved(value, schemas) for name, value in node.items() if name not in ("$ref", "allOf")}
    for part in node.get("allOf", []) + ([schemas[node["$ref"].rsplit("/", 1)[1]]] if "$ref" in node else []):
        part = resolved(part, schemas)
        whole = {**part, **whole, "properties": {**part.get("properties", {}), **whole.get("properties", {})}}
    return whole


def request_of(path):
    schemas = document_of("public")["components"]["schemas"]
    return resolved(schemas[REQUESTS[path]], schemas)


def names_in(node):
    """The names of all properties, at any depth."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = set(node.get("properties", ())) if isinstance(node, dict) else set()
    return own.union(*(names_in(part) for part in inner))


def test_every_parameter_that_is_read_is_named():
    read, folder = set(), ROOT / "host/crates/http-api/src/request"
    calls = r'\.(?:get|require)\(\s*"(\w+)"\)|number_in\(\s*fields,\s*"(\w+)"|\b(?:number|penalty|limit|switch)\(\s*"(\w+)"'
    for file in folder.glob("*.rs"):
        found = re.findall(calls, file.read_text().split("#[cfg(test)]")[0])
        read |= {name for names in found for name in names if name}
    assert len(read) > 35 and {"top_k", "min_p", "frequency_penalty", "max_completion_tokens", "json_schema"} <= read
    schemas = document_of("public")["components"]["schemas"]
    named = names_in([resolved(schema, schemas) for name, schema in schemas.items() if name.endswith("Request")])
    assert read <= named, sorted(read - named)


def test_every_parameter_of_the_readme_is_named():
    table = (ROOT / "README.md").read_text().split("What the model in the gateway heeds:")[1].split("\n\n")[1]
    told = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert len(told) > 20
    completion, chat = (set(request_of(path)["properties"]) for path in list(REQUESTS)[:2])
    assert told <= completion | chat, sorted(told - completion - chat)
    assert told - completion == {"max_completion_tokens", "top_logprobs"} and told - chat == {"echo"}


def beyond(schema):
    """Values that a schema just takes, and those that it just does not."""
    step = 1 if schema["type"] == "integer" else 0.5
    takes = [schema[bound] for bound in ("minimum", "maximum") if bound in schema]
    not_these = [schema[bound] + sign * step for bound, sign in (("minimum", -1), ("maximum", 1)) if bound in schema]
    return takes, not_these + ([schema["exclusiveMinimum"]] if "exclusiveMinimum" in schema else [])


@pytest.mark.parametrize("path", list(REQUESTS)[:2])
def test_bounds_are_those_of_the_gateway(gateway, path):
    schema = request_of(path)
    body = {"model": "mistral-7b", "max_tokens": 1}
    body |= {"prompt": "Hi"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "Hi"}]}
    needs = {"top_logprobs": {"logprobs": True}, "best_of": {"n": 128}, "max_tokens": {"echo": True}}
    tried = 0
    for name, bounds in schema["properties"].items():
        if bounds.get("type") not in ("integer", "number"):
            continue
        takes, refuses = beyond(bounds)
        for value in takes if name != "best_of" else [128]:
            answer = gateway.http.post(path, json=body | needs.get(name, {}) | {name: value})
            assert answer.status_code == 200, (name, value, answer.text)
        for value in refuses:
            answer = gateway.http.post(path, json=body | needs.get(name, {}) | {name: value})
            assert answer.status_code == 400 and answer.json()["error"]["param"] == name, (name, value, answer.text)
        tried += len(takes) + len(refuses)
    assert tried > 30


TUNED = {
    "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.01, "frequency_penalty": 0.1, "presence_penalty": 0.1, "repetition_penalty": 1.1,
    "logit_bias": {"65": 1}, "seed": -7, "n": 2, "best_of": 2, "stop": ["\n\n"], "stop_token_ids": [3], "ignore_eos": True, "min_tokens": 2,
    "max_tokens": 4, "prompt_logprobs": 2, "user": "acme",
}  # fmt: skip
CHAT = {"messages": [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "a span?"}]},
]}  # fmt: skip
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {"a": {"type": "boolean"}}}}}
SERVED = [
    ("/v1/completions", TUNED | {"prompt": "Hi", "echo": True, "logprobs": 2}),
    *(("/v1/completions", {"max_tokens": 1, "prompt": prompt}) for prompt in (["Hi"], [72, 105], [[72, 105]])),
    ("/v1/chat/completions", TUNED | CHAT | {"logprobs": True, "top_logprobs": 2, "max_completion_tokens": 3}),
    ("/v1/chat/completions", CHAT | {"response_format": FORMAT, "max_tokens": 30}),
    ("/v1/chat/completions", CHAT | {"response_format": {"type": "json_object"}, "max_tokens": 4}),
    *(("/v1/embeddings", {"input": text}) for text in ("Hi", ["Hi", "you"], [72, 105], [[72, 105], [72]])),
    ("/v1/embeddings", {"input": "Hi", "encoding_format": "base64", "user": "acme"}),
]


@pytest.mark.parametrize(("path", "body"), SERVED)
def test_what_is_served_is_allowed_and_described(gateway, path, body):
    document = document_of("public")
    body = {"model": "mistral-7b"} | body
    jsonschema.Draft202012Validator(request_of(path)).validate(body)
    answer = gateway.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    content = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert content != {"type": "object"}
    jsonschema.Draft202012Validator({"components": document["components"]} | content).validate(answer.json())
    # The schemas of answers ask for little, as other servers tell little; of this one everything is described.
    schemas = document["components"]["schemas"]
    described = names_in(resolved(content, schemas))
    told = set(answer.json()) | set(answer.json().get("choices", answer.json().get("data"))[0])
    assert told <= described, sorted(told - described)


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
