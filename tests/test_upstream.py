"""Requests that other servers answer: a second gateway with the demo model, servers of MLX and llama.cpp, which are not ours, and
servers that misbehave on purpose."""

import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from decimal import Decimal

import httpx
import openai
import pytest

from backends import ANSWER, USAGE, backends, begin_events, chunk, front, scripted, send_json, stream_of, to
from conftest import ROOT, Gateway, environment, free_port, replace_file, until

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What does a plugin do?"}], "max_tokens": 12, "seed": 7}
ROUTE = "/v1/chat/completions"
# Of a token in and one out, in the price list that comes with the gateway.
PRICES = {"gpt-4o-mini": ("0.00000015", "0.0000006"), "mistral-7b": ("0.0000001", "0.0000002"), "llama-3-8b": ("0.0000001", "0.0000002")}


LATER = {"models": [{"as": "gpt-4o-mini", "name": "llama-3-8b"}], "provider": "elsewhere"}


def cost_of(model, tokens_in, tokens_out):
    of_input, of_output = map(Decimal, PRICES[model])
    return of_input * tokens_in + of_output * tokens_out


def amount(attributes):
    return Decimal(attributes["tollgate.cost.amount"])


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """A gateway with the demo model and no prices, as the other server."""
    gateway = Gateway(tmp_path_factory.mktemp("second"), plugins=(), arguments=["--console", "off"])
    try:
        yield gateway.wait_until_ready()
    finally:
        gateway.kill()


def root_and_client(gateway, trace_id):
    root = gateway.root_span(trace_id)
    spans = until(lambda: [s for s in gateway.spans(trace_id) if s["kind"] == "CLIENT"], what="the span of the call")
    return root, spans[0]


def test_a_request_is_forwarded_priced_and_traced_as_one(front, second):
    gateway = front(to(second))
    answer = gateway.http.post(ROUTE, json=CHAT | {"user": "acme"})
    assert answer.status_code == 200
    told = answer.json()
    assert told["model"] == "mistral-7b" and told["choices"][0]["message"]["content"].strip()
    assert told["cost"]["status"] == "priced"
    assert answer.headers["x-tollgate-cost"] == f"{told['cost']['amount']} USD"
    root, client = root_and_client(gateway, answer.headers["x-tollgate-trace-id"])
    assert client["name"] == "chat mistral-7b" and client["parent_span_id"] == root["span_id"]
    assert client["attributes"]["server.port"] == second.port and client["attributes"]["tollgate.backend"] == "second"
    attributes = root["attributes"]
    assert attributes["gen_ai.request.model"] == "gpt-4o-mini" and attributes["gen_ai.response.model"] == "mistral-7b"
    assert attributes["gen_ai.provider.name"] == "other" and attributes["gen_ai.response.id"] == told["id"]
    assert attributes["llm.prompt_tokens"] == told["usage"]["prompt_tokens"]
    assert attributes["tollgate.cost.amount"] == told["cost"]["amount"] and attributes["tollgate.tenant"] == "acme"
    # By the model that was asked there, not by what the client calls it.
    used = told["usage"]
    assert amount(attributes) == cost_of("mistral-7b", used["prompt_tokens"], used["completion_tokens"])
    # The other server's own spans join the tree below the call.
    theirs = second.root_span(root["trace_id"])
    assert theirs["parent_span_id"] == client["span_id"]


def test_a_stream_costs_what_the_plain_answer_costs(front, second):
    gateway = front(to(second))
    plain = gateway.openai.chat.completions.create(**CHAT)
    chunks = list(gateway.openai.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == plain.choices[0].message.content
    last = chunks[-1]
    assert last.choices == [] and last.usage.total_tokens == plain.usage.total_tokens
    assert last.cost["amount"] == plain.cost["amount"] and last.cost["status"] == "priced"


def test_usage_is_asked_for_and_taken_out_again(front, scripted):
    events = (chunk("Hel", usage=None), chunk("lo.", usage=None), chunk(reason="stop", usage=None), chunk(usage=USAGE), b"data: [DONE]\n\n")
    server = scripted(lambda connection, _: stream_of(connection, *events))
    gateway = front(to(server))
    with gateway.http.stream("POST", ROUTE, json=CHAT | {"stream": True}) as answer:
        text = answer.read().decode()
        trace_id = answer.headers["x-tollgate-trace-id"]
    assert json.loads(server.heads[0][1])["stream_options"] == {"include_usage": True}
    data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]" and all("usage" not in json.loads(event) for event in data[:-1])
    assert len(data) == 4, "three chunks as they came, none about usage"
    (account,) = [json.loads(line[11:]) for line in text.splitlines() if line.startswith(": tollgate ")]
    assert (account["prompt_tokens"], account["completion_tokens"]) == (100, 20)
    attributes = gateway.root_span(trace_id)["attributes"]
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 60 and attributes["gen_ai.usage.reasoning.output_tokens"] == 5
    assert attributes["tollgate.usage.source"] == "reported"
    assert attributes["tollgate.cost.amount"] == account["cost"]["amount"]


def test_what_is_silent_about_usage_is_estimated_and_says_so(front, scripted):
    events = (chunk("Hello, how are you?"), chunk(reason="stop"), b"data: [DONE]\n\n")
    server = scripted(lambda connection, _: stream_of(connection, *events))
    gateway = front(to(server))
    with gateway.http.stream("POST", ROUTE, json=CHAT | {"stream": True}) as answer:
        answer.read()
        trace_id = answer.headers["x-tollgate-trace-id"]
    attributes = gateway.root_span(trace_id)["attributes"]
    assert attributes["tollgate.usage.source"] == "estimated" and attributes["tollgate.cost.status"] == "estimated"
    # cl100k_base: "Hello, how are you?" has 6 tokens.
    assert attributes["llm.completion_tokens"] == 6 and 10 <= attributes["llm.prompt_tokens"] <= 16


def test_an_upstreams_own_error_is_passed_on_and_on_record(front, scripted):
    error = {"error": {"message": "tools[0] is odd", "type": "invalid_request_error", "param": "tools", "code": None}}
    server = scripted(lambda connection, _: send_json(connection, error, "400 Bad Request"))
    gateway = front(to(server))
    with pytest.raises(openai.BadRequestError, match="tools.0. is odd") as raised:
        gateway.openai.chat.completions.create(**CHAT, tools=[{"type": "function", "function": {"name": "f"}}])
    assert raised.value.response.json() == error
    attributes = gateway.root_span(raised.value.response.headers["x-tollgate-trace-id"])["attributes"]
    assert attributes["http.response.status_code"] == 400 and attributes["error.type"] == "invalid_request"
    assert attributes["tollgate.cost.reason"] == "not_served"


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_backend_that_does_not_take_our_key_is_not_the_clients_to_know(front, scripted, status):
    error = {"error": {"message": "Incorrect API key provided: sk-gateways-own", "code": "invalid_api_key"}}
    server = scripted(lambda connection, _: send_json(connection, error, status))
    gateway = front(to(server))
    answer = gateway.http.post(ROUTE, json=CHAT)
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "backend_error"
    assert "sk-gateways-own" not in answer.text
    assert "does not take the gateway's own key" in gateway.log() and "sk-gateways-own" not in gateway.log()


def refuses():
    return f"http://127.0.0.1:{free_port()}"


@pytest.mark.parametrize("stream", [False, True])
def test_the_next_backend_answers_when_the_first_does_not(front, second, stream):
    gateway = front(to(refuses(), "away"), to(second), head='balance = "round-robin"\n')
    for _ in range(4):
        answer = gateway.http.post(ROUTE, json=CHAT | {"stream": stream})
        assert answer.status_code == 200
        root, client = root_and_client(gateway, answer.headers["x-tollgate-trace-id"])
        assert client["attributes"]["tollgate.backend"] == "second"
        if client["events"]:
            break
    (event,) = client["events"]
    assert event["name"] == "tollgate.upstream.retry" and event["attributes"]["tollgate.upstream.retry.backend"] == "away"
    attributes = root["attributes"]
    assert attributes["tollgate.cost.status"] == "priced"
    assert amount(attributes) == cost_of("mistral-7b", attributes["llm.prompt_tokens"], attributes["llm.completion_tokens"])


def test_the_model_here_answers_when_no_backend_does(front):
    table = to(refuses(), "away") | {"models": ["gpt-4o-mini"]}
    gateway = front(table, arguments=["--model", "demo"])
    answer = gateway.http.post(ROUTE, json=CHAT)
    assert answer.status_code == 200 and answer.json()["text"].strip()
    root = gateway.root_span(answer.headers["x-tollgate-trace-id"])
    attributes = root["attributes"]
    assert attributes["gen_ai.provider.name"] == "tollgate" and attributes["tollgate.cost.status"] == "priced"
    # By the name that it answers to, as the tutorial prices it.
    assert amount(attributes) == cost_of("gpt-4o-mini", attributes["llm.prompt_tokens"], attributes["llm.completion_tokens"])


def test_a_request_takes_from_its_limits_once_whoever_answers(front, tmp_path):
    keys = tmp_path / "keys.toml"
    replace_file(keys, '[[tenant]]\nname = "acme"\n[tenant.limits]\nrequests-per-minute = 2\n')
    arguments = ["--model", "demo", "--keys-file", keys]
    gateway = front(to(refuses(), "away") | {"models": ["gpt-4o-mini"]}, arguments=arguments, env={"TOLLGATE_KEYS": "acme:a-secret-of-the-environment"})
    answers = [gateway.http.post(ROUTE, json=CHAT, headers={"authorization": "Bearer a-secret-of-the-environment"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


@pytest.mark.parametrize("stream", [False, True])
def test_without_any_backend_there_is_an_error_and_a_record(front, stream):
    gateway = front(to(refuses(), "away"))
    answer = gateway.http.post(ROUTE, json=CHAT | {"stream": stream})
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "backend_error"
    root, client = root_and_client(gateway, answer.headers["x-tollgate-trace-id"])
    assert root["status"] == "ERROR" and client["status"] == "ERROR"
    assert root["attributes"]["tollgate.cost.reason"] == "not_served"
    assert root["attributes"]["http.response.status_code"] == 502, "nothing of a stream has gone out"


def test_what_breaks_off_is_billed_as_far_as_it_came(front, scripted):
    def script(connection, _):
        stream_of(connection, chunk("Hello, how "), chunk("are you?"))
        time.sleep(0.3)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    gateway = front(to(scripted(script)))
    with gateway.http.stream("POST", ROUTE, json=CHAT | {"stream": True}) as answer:
        text = answer.read().decode()
        trace_id = answer.headers["x-tollgate-trace-id"]
    assert "[DONE]" not in text and '"code":"backend_error"' in text
    attributes = gateway.root_span(trace_id)["attributes"]
    assert attributes["tollgate.outcome"] == "failed" and attributes["tollgate.cost.status"] == "estimated"
    assert attributes["llm.completion_tokens"] == 6


def test_a_client_that_leaves_closes_the_call_and_is_billed(front, scripted):
    closed = threading.Event()

    def script(connection, _):
        begin_events(connection)
        try:
            for _ in range(600):
                connection.sendall(chunk("word "))
                time.sleep(0.02)
        except OSError:
            closed.set()

    gateway = front(to(scripted(script)))
    with gateway.http.stream("POST", ROUTE, json=CHAT | {"stream": True}) as answer:
        trace_id = answer.headers["x-tollgate-trace-id"]
        next(answer.iter_lines())
    assert closed.wait(10), "the backend goes on for nobody"
    attributes = gateway.root_span(trace_id)["attributes"]
    assert attributes["tollgate.outcome"] == "client_gone" and attributes["tollgate.usage.source"] == "estimated"
    assert attributes["llm.completion_tokens"] >= 1 and attributes["tollgate.cost.status"] == "estimated"


def test_a_backend_that_hangs_is_given_up(front, scripted):
    server = scripted(lambda connection, _: time.sleep(30))
    gateway = front(to(server, **{"first-byte-timeout-ms": 300}))
    answer = gateway.http.post(ROUTE, json=CHAT)
    assert answer.status_code == 504 and answer.json()["error"]["code"] == "backend_timeout"


def test_backends_change_while_running(front, second, tmp_path):
    gateway = front(to(refuses(), "away"))
    assert gateway.http.post(ROUTE, json=CHAT).status_code in (502, 503)
    backends(tmp_path, to(second))
    until(lambda: gateway.http.post(ROUTE, json=CHAT).status_code == 200, what="the new backend")
    replace_file(tmp_path / "backends.toml", "[[backend]]\nnme = 1\n")
    until(lambda: "the backends stay as they were" in gateway.log(), what="a line about the bad file")
    assert gateway.http.post(ROUTE, json=CHAT).status_code == 200


def test_models_of_all_places_are_listed(front, second):
    gateway = front(to(second), arguments=["--model", "demo"])
    models = {model.id: model for model in gateway.openai.models.list()}
    assert models["gpt-4o-mini"].owned_by == "other" and models["llama-3-8b"].owned_by == "tollgate"


def test_models_of_backends_for_others_are_not_listed(front, scripted, tmp_path):
    server = scripted(lambda connection, _: send_json(connection, ANSWER))
    ours = to(server, "ours", models=["ours", "both"], tenants=["acme-*"], provider="ours")
    theirs = to(server, "theirs", models=["theirs", "both"], tenants=["globex"], provider="theirs")
    env = {"TOLLGATE_KEYS": "acme-eu:a-secret-of-the-environment"}
    gateway = front(theirs, ours, to(server, "all", models=["all"]), env=env)
    listed = gateway.openai.with_options(api_key="a-secret-of-the-environment").models.list()
    assert {model.id: model.owned_by for model in listed} == {"ours": "ours", "both": "ours", "all": "other"}
    refused = gateway.http.get("/v1/models/theirs", headers={"authorization": "Bearer a-secret-of-the-environment"})
    assert refused.status_code == 404


def test_embeddings_and_unknown_paths_are_passed_through(front, scripted):
    def script(connection, body):
        value = json.loads(body) if body else {}
        if "input" in value:
            vector = {"object": "embedding", "index": 0, "embedding": [0.25]}
            send_json(connection, {"object": "list", "data": [vector], "model": "e", "usage": {"prompt_tokens": 3, "total_tokens": 3}})
        else:
            send_json(connection, {"id": "file-1"})

    server = scripted(script)
    gateway = front(to(server, models=["*"]))
    answer = gateway.openai.embeddings.create(model="gpt-4o-mini", input="Hello", encoding_format="float")
    assert answer.data[0].embedding == [0.25] and answer.usage.prompt_tokens == 3
    answer = gateway.http.post("/v1/moderate/things?a=b", json={"model": "gpt-4o-mini"})
    assert answer.json()["id"] == "file-1" and answer.headers["x-tollgate-cost-status"] == "unpriced"
    assert server.heads[-1][0].startswith("POST /v1/moderate/things?a=b ")
    attributes = gateway.root_span(answer.headers["x-tollgate-trace-id"])["attributes"]
    assert attributes["tollgate.cost.reason"] == "unknown_operation" and attributes["http.route"] == "/v1/{*path}"


def test_a_killed_gateway_bills_what_was_forwarded(front, scripted, tmp_path):
    def script(connection, _):
        begin_events(connection)
        for _ in range(600):
            connection.sendall(chunk("some words "))
            time.sleep(0.02)

    gateway = front(to(scripted(script)))
    with gateway.http.stream("POST", ROUTE, json=CHAT | {"stream": True}) as answer:
        trace_id = answer.headers["x-tollgate-trace-id"]
        lines = answer.iter_lines()
        for _ in range(20):
            next(lines)
        gateway.kill()
    again = front(to(refuses(), "away"))
    attributes = again.root_span(trace_id)["attributes"]
    assert attributes["tollgate.outcome"] == "aborted" and attributes["tollgate.cost.status"] == "estimated"
    assert attributes["llm.completion_tokens"] > 0


def names_the_second(gateway, trace_id, status="client_gone"):
    """What is on record of a request that the first backend did not take names the second, in each place."""
    root, client = root_and_client(gateway, trace_id)
    attributes = root["attributes"]
    assert attributes["tollgate.outcome"] == status
    assert attributes["gen_ai.response.model"] == client["attributes"]["gen_ai.response.model"] == "llama-3-8b"
    assert attributes["gen_ai.provider.name"] == client["attributes"]["gen_ai.provider.name"] == "elsewhere"
    assert attributes["tollgate.backend"] == client["attributes"]["tollgate.backend"] == "second"
    return root, client


def test_a_client_that_leaves_while_the_second_backend_works_leaves_its_name(front, scripted):
    server = scripted(lambda connection, _: time.sleep(60))
    gateway = front(to(refuses(), "away", weight=9), to(server, **LATER))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with pytest.raises(httpx.ReadTimeout):
        gateway.http.post(ROUTE, json=CHAT, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}, timeout=3)
    root, client = names_the_second(gateway, trace)
    assert client["attributes"]["server.port"] == int(server.url.rsplit(":", 1)[1])
    (event,) = client["events"]
    assert event["attributes"]["tollgate.upstream.retry.backend"] == "away"
    # It reads the prompt, and bills it, whether anybody waits or not.
    attributes = root["attributes"]
    assert attributes["tollgate.usage.source"] == attributes["tollgate.cost.status"] == "estimated"
    # By the tokenizer of the model there: "What does a plugin do?", and what a template puts around it.
    assert (attributes["llm.prompt_tokens"], attributes["llm.completion_tokens"]) == (13, 0)
    assert amount(attributes) == cost_of("llama-3-8b", 13, 0)


def test_a_request_that_times_out_at_the_second_backend_names_it(front, scripted):
    server = scripted(lambda connection, _: time.sleep(60))
    later = to(server, **LATER, **{"first-byte-timeout-ms": 300, "retries": 0})
    gateway = front(to(refuses(), "away", weight=9, retries=0), later)
    answer = gateway.http.post(ROUTE, json=CHAT)
    assert answer.status_code == 504
    _, client = names_the_second(gateway, answer.headers["x-tollgate-trace-id"], "failed")
    assert [e["attributes"]["tollgate.upstream.retry.backend"] for e in client["events"]] == ["away", "second"]
    assert client["attributes"]["server.port"] == int(server.url.rsplit(":", 1)[1])


@pytest.mark.parametrize("speaks", [True, False])
def test_a_killed_gateway_bills_the_backend_that_was_asked_last(front, scripted, speaks):
    asked = threading.Event()

    def script(connection, _):
        asked.set()
        if not speaks:
            time.sleep(60)
        begin_events(connection)
        for _ in range(600):
            connection.sendall(chunk("some words "))
            time.sleep(0.02)

    gateway = front(to(refuses(), "away", weight=9), to(scripted(script), **LATER))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}

    def ask():
        try:
            with gateway.http.stream("POST", ROUTE, json=CHAT | {"stream": True}, headers=headers) as answer:
                for count, _ in enumerate(answer.iter_lines()):
                    if count == 20:
                        begun.set()
        except httpx.TransportError:
            pass

    begun = threading.Event()
    threading.Thread(target=ask, daemon=True).start()
    assert asked.wait(30) and (not speaks or begun.wait(30))
    # What is silent has nothing to wait for but the commit of the start, and the note of who is asked, which follows at once.
    ledger = sqlite3.connect(f"file:{gateway.data / 'ledger' / 'ledger-00000001.sqlite'}?mode=ro", uri=True)
    until(lambda: ledger.execute("SELECT count(*) FROM in_flight").fetchone()[0], seconds=30, what="the start")
    ledger.close()
    time.sleep(1)
    gateway.kill()
    again = front(to(refuses(), "away"))
    root, _ = names_the_second(again, trace, "aborted")
    attributes = root["attributes"]
    assert attributes["tollgate.cost.status"] == "estimated" and (attributes["llm.completion_tokens"] > 0) == speaks
    # The prompt is read before the first byte comes.
    tokens = attributes["llm.prompt_tokens"], attributes["llm.completion_tokens"]
    assert tokens[0] > 0 and amount(attributes) == cost_of("llama-3-8b", *tokens)


@pytest.fixture(scope="module")
def mlx(tmp_path_factory):
    """The server of mlx-lm, which is not ours, with our demo model."""
    port = free_port()
    log = (tmp_path_factory.mktemp("mlx") / "log.txt").open("wb")
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", ROOT / "host/assets/demo-model", "--port", str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment({"HF_HUB_OFFLINE": "1"}))
    url = f"http://127.0.0.1:{port}"

    def answers():
        assert process.poll() is None, "mlx_lm server ended at start"
        try:
            return httpx.get(f"{url}/health", trust_env=False, timeout=5).status_code < 500
        except httpx.TransportError:
            return False

    try:
        until(answers, seconds=90, what="the server of mlx-lm")
        yield url
    finally:
        process.kill()
        process.wait()


def test_a_server_that_is_not_ours_is_priced_like_one_that_is(front, mlx):
    table = to(mlx, "mlx", provider="mlx-lm") | {"models": [{"as": "gpt-4o-mini", "name": "default_model"}]}
    gateway = front(table)
    ask = {k: v for k, v in CHAT.items() if k != "seed"} | {"temperature": 0}
    plain = gateway.openai.chat.completions.create(**ask)
    assert plain.choices[0].message.content.strip() and plain.cost["status"] == "priced"
    chunks = list(gateway.openai.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == plain.choices[0].message.content
    # It tells of its cache, so the same question may cost less the second time, never more.
    assert chunks[-1].usage.total_tokens == plain.usage.total_tokens
    assert Decimal(chunks[-1].cost["amount"]) <= Decimal(plain.cost["amount"])
    _, client = root_and_client(gateway, plain.trace_id)
    assert client["name"] == "chat default_model" and client["attributes"]["gen_ai.provider.name"] == "mlx-lm"


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """llama.cpp's own server with a small GGUF file of random weights."""
    pytest.importorskip("xllamacpp")
    import llama_cpp
    from test_llama_cpp import write_packed

    with llama_cpp.serving(write_packed(tmp_path_factory.mktemp("llama") / "model.gguf", "Q8_0")) as client:
        yield str(client.base_url)


def test_llama_cpps_server_answers_and_its_own_words_are_on_record(front, llama):
    gateway = front(to(llama, "llama", provider="llama.cpp") | {"models": [{"as": "gpt-4o-mini", "name": "small"}]})
    ask = CHAT | {"temperature": 0}
    plain = gateway.openai.chat.completions.create(**ask)
    assert plain.choices[0].message.content and plain.usage.completion_tokens == 12
    chunks = list(gateway.openai.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == plain.choices[0].message.content, "the same, streamed"
    streamed = chunks[-1]
    assert streamed.usage.total_tokens == plain.usage.total_tokens
    assert streamed.usage.prompt_tokens_details.cached_tokens > 0, "it has read the question before, and says so"
    assert streamed.cost["status"] == "priced" == plain.cost["status"]
    root = gateway.root_span(streamed.trace_id)
    assert root["attributes"]["gen_ai.usage.cache_read.input_tokens"] == streamed.usage.prompt_tokens_details.cached_tokens
    phases = {span["name"] for span in gateway.spans(streamed.trace_id)}
    assert {"inference.prefill", "inference.decode"} <= phases, "by the times that it reports"

    # What it refuses is refused in its own words, and on record.
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size") as refused:
        gateway.openai.chat.completions.create(**ask | {"messages": [{"role": "user", "content": "ab" * 400}]})
    attributes = gateway.root_span(refused.value.response.headers["x-tollgate-trace-id"])["attributes"]
    assert attributes["http.response.status_code"] == 400
