"""What goes over the wire to other servers and comes back: paths, headers, counts where a server is silent, and what a
server could do to the gateway by its answers."""

import http.client
import json
from pathlib import Path

import pytest

from backends import ANSWER, USAGE, begin_events, chunk, front, scripted, send_json, stream_of, to

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What does a plugin do?"}], "max_tokens": 12}
ROUTE = "/v1/chat/completions"
TEXT = {"id": "c", "object": "text_completion", "model": "m", "choices": [{"index": 0, "text": "ok", "finish_reason": "stop"}]}


def ask(gateway, method, path, body=None, headers=()):
    """A request whose path goes out as it stands here, which no HTTP client with manners would do."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=120)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    connection.request(method, path, body, {"content-type": "application/json"} | dict(headers))
    answer = connection.getresponse()
    told = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, told


def error(told):
    return json.loads(told)["error"]


@pytest.fixture
def answering(scripted):
    """A server with a good answer for everybody."""
    return scripted(lambda connection, _: send_json(connection, ANSWER))


@pytest.mark.parametrize("path", [ROUTE, "/v1/chat/complet%69ons", "/v1/%63hat/completions?a=%2F", f"{ROUTE}/", "/v1/Chat/completions"])
def test_a_chat_is_priced_however_its_path_is_spelled(front, answering, path):
    gateway = front(to(answering))
    status, headers, _ = ask(gateway, "POST", path, CHAT)
    assert status == 200 and headers["x-tollgate-cost-status"] == "priced"
    query = path.partition("?")[2]
    assert answering.heads[-1][0].startswith(f"POST {ROUTE}{'?' if query else ''}{query} HTTP/1.1")
    attributes = gateway.root_span(headers["x-tollgate-trace-id"])["attributes"]
    assert attributes["http.route"] == ROUTE and attributes["llm.prompt_tokens"] == USAGE["prompt_tokens"]


PATHS = ["/v1//chat/completions", "/v1/chat/./completions", "/v1/x/../chat/completions", "/v1/../../team-b/v1/chat/completions"]
PATHS += ["/v1/%2e%2e/chat/completions", "/v1/chat%2Fcompletions", "/v1/chat%5Ccompletions", "/v1/chat/completions%0A", f"{ROUTE};x"]
PATHS += ["/v1/chat/complet%2569ons", "/v1/chat/completions%zz", "/v1/chat/%ff", "/v1/models/%2e%2e"]


def test_what_is_not_the_same_to_all_servers_goes_to_none(front, answering):
    gateway = front(to(answering) | {"url": f"{answering.url}/team-a/v1"})
    for path in PATHS:
        status, _, told = ask(gateway, "POST", path, CHAT)
        assert (status, error(told)["param"], error(told)["code"]) == (400, "path", "invalid_request"), path
    assert answering.heads == []


def test_what_is_the_operators_does_not_pass(front, answering, tmp_path):
    gateway = front(to(answering, models=["*"]))
    for path in ["/v1/load_lora_adapter", "/v1/Unload_LoRA_adapter/", "/v1/model/unload", "/v1/organization/users"]:
        status, headers, told = ask(gateway, "POST", path, {"model": "m", "lora_name": "x"})
        assert (status, error(told)["code"]) == (404, "not_found") and "`pass-through`" in error(told)["message"], path
        assert "x-tollgate-trace-id" in headers, "it is on record"
    assert answering.heads == []
    assert ask(gateway, "GET", "/v1/files")[0] == 200
    gateway.kill()
    gateway = front(to(answering, models=["*"], **{"pass-through": ["/load_lora_adapter"]}))
    assert [ask(gateway, "POST", path, {})[0] for path in ("/v1/load_lora_adapter", "/v1/files")] == [200, 404]
    gateway.kill()
    gateway = front(to(answering, models=["*"], **{"pass-through": False}))
    assert ask(gateway, "GET", "/v1/files")[0] == 404 and ask(gateway, "POST", ROUTE, CHAT)[0] == 200


def test_headers_from_end_to_end_go_on_and_others_do_not(front, answering):
    gateway = front(to(answering, models=["*"]))
    passed = {"OpenAI-Beta": "assistants=v2", "OpenAI-Organization": "org", "OpenAI-Project": "p", "Accept": "text/plain"}
    passed |= {"Idempotency-Key": "k", "anthropic-beta": "b", "anthropic-version": "v", "x-request-id": "mine", "X-Foo": "1"}
    held = {"Authorization": "Bearer secret-1", "x-api-key": "secret-2", "api-key": "secret-3", "Cookie": "secret-4", "Proxy-Authorization": "secret-5"}
    held |= {"Connection": "x-hop", "x-hop": "secret-6", "X-Forwarded-For": "secret-7", "Forwarded": "for=secret-8", "baggage": "secret-9"}
    held |= {"x-tollgate-anything": "secret-10", "X-HTTP-Method-Override": "secret-11", "tracestate": "a=secret-12", "Keep-Alive": "secret-13"}
    for method, path, body in [("GET", "/v1/assistants?limit=1", None), ("POST", ROUTE, CHAT)]:
        status, headers, _ = ask(gateway, method, path, body, passed | held)
        assert status == 200
        head = answering.heads[-1][0]
        lines = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:])}
        assert {name.lower(): value for name, value in passed.items()}.items() <= lines.items(), head
        assert "secret-" not in head.replace("a=secret-12", "")
        assert headers["x-tollgate-trace-id"] in lines["traceparent"] and lines["host"] == answering.url[7:]
    ask(gateway, "POST", ROUTE, CHAT)
    assert "\r\nx-request-id: " in answering.heads[-1][0], "the gateway's own, where the client has none"


def test_other_methods_of_known_paths_pass(front, answering):
    gateway = front(to(answering, models=["*"]))
    for method, path in [("DELETE", "/v1/models/org/x"), ("GET", f"{ROUTE}/c-1"), ("GET", ROUTE), ("DELETE", "/v1/responses/r")]:
        status, headers, _ = ask(gateway, method, path)
        assert (status, headers["x-tollgate-cost-status"]) == (200, "unpriced"), path
        assert answering.heads[-1][0].startswith(f"{method} {path} HTTP/1.1") and "allow" not in headers
    assert ask(gateway, "GET", "/v1/models")[0] == 200 and ask(gateway, "GET", "/v1/models/org%2Fx")[0] == 404
    assert len(answering.heads) == 4, "models are told by the gateway"


def form(*parts):
    whole = b"".join(b"--b\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + value + b"\r\n" for head, value in parts)
    return whole + b"--b--\r\n"


def test_a_form_names_its_model(front, answering):
    gateway = front(to(answering))
    sound = (b'name="file"; filename="a.wav"\r\nContent-Type: audio/wav', b'name="model"\r\n\r\n\x00\xff' * 100)
    whole = form(sound, (b'name="model"', b"gpt-4o-mini"), (b'name="language"', b"en"))
    kind = {"content-type": "multipart/form-data; boundary=b"}
    status, headers, told = ask(gateway, "POST", "/v1/audio/transcriptions", whole, kind)
    assert status == 200, told
    assert answering.heads[-1][1] == form(sound, (b'name="model"', b"mistral-7b"), (b'name="language"', b"en")), "by the backend's name"
    assert gateway.root_span(headers["x-tollgate-trace-id"])["attributes"]["gen_ai.request.model"] == "gpt-4o-mini"
    status, _, told = ask(gateway, "POST", "/v1/audio/transcriptions", form(sound, (b'name="model"', b"nobodys")), kind)
    assert (status, error(told)["code"], error(told)["param"]) == (404, "model_not_found", "model")


def test_an_unknown_model_is_not_found_whatever_is_asked(front, answering):
    gateway = front(to(answering))
    bodies = {ROUTE: CHAT, "/v1/responses": {"input": "Hi"}, "/v1/embeddings": {"input": "Hi"}, "/v1/things": {}}
    for path, body in bodies.items():
        status, _, told = ask(gateway, "POST", path, body | {"model": "nobodys"})
        assert (status, error(told)["code"], error(told)["param"]) == (404, "model_not_found", "model"), path


@pytest.mark.parametrize(
    "path, more, param",
    [
        (ROUTE, {"stream": 1}, "stream"),
        (ROUTE, {"stream": "true"}, "stream"),
        (ROUTE, {"stream": True, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ("/v1/responses", {"input": "Hi", "stream": "on"}, "stream"),
        ("/v1/responses", {"input": "Hi", "background": True}, "background"),
    ],
)
def test_what_servers_read_differently_is_refused(front, answering, path, more, param):
    status, headers, told = ask(front(to(answering)), "POST", path, CHAT | more)
    assert (status, error(told)["param"], error(told)["code"]) == (400, param, "invalid_request")
    assert answering.heads == [] and "x-tollgate-trace-id" in headers


def test_a_silent_server_gets_nobody_a_free_prompt(front, scripted):
    def silent(connection, body):
        asked = json.loads(body)
        if "prompt" in asked:
            send_json(connection, TEXT)
        elif "messages" in asked:
            send_json(connection, {k: v for k, v in ANSWER.items() if k != "usage"})
        elif "instructions" in asked:
            part = {"type": "output_text", "text": "hi"}
            send_json(connection, {"id": "r", "object": "response", "status": "completed", "model": "m", "output": [{"type": "message", "content": [part]}]})
        else:
            send_json(connection, {"object": "list", "data": [], "model": "e"})

    gateway = front(to(scripted(silent)))
    words = "word " * 500
    call = {"id": "a", "type": "function", "function": {"name": "find", "arguments": json.dumps({"a": words})}}
    tool = {"type": "function", "function": {"name": "f", "description": words, "parameters": {"type": "object"}}}
    for path, body, least, most in [
        ("/v1/completions", {"prompt": list(range(1000))}, 1000, 1000),
        ("/v1/completions", {"prompt": [[1] * 500, [2] * 400]}, 900, 900),
        ("/v1/embeddings", {"input": list(range(1000))}, 1000, 1000),
        (ROUTE, {"messages": [{"role": "user", "content": "x"}], "tools": [tool]}, 500, 600),
        (ROUTE, {"messages": [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "a", "content": "x"}]}, 500, 600),
        ("/v1/responses", {"input": "hi", "instructions": words}, 500, 600),
    ]:
        status, headers, told = ask(gateway, "POST", path, {"model": "gpt-4o-mini"} | body)
        assert status == 200, told
        told = json.loads(told)
        assert least <= told["prompt_tokens"] <= most, (path, told)
        assert told["cost"]["status"] == "estimated" and told["cost"]["amount"] != "0", path


@pytest.mark.parametrize(
    "usage, tokens, status",
    [
        ({"prompt_tokens": 10, "completion_tokens": None, "total_tokens": 510}, (10, 500), "priced"),
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 108}, (5, 103), "priced"),
        # cl100k_base: "Hello." has 2 tokens.
        ({"prompt_tokens": 10}, (10, 2), "estimated"),
        ({"prompt_tokens": 10, "total_tokens": 10}, (10, 2), "estimated"),
    ],
)
def test_an_output_that_is_not_reported_is_no_zero(front, scripted, usage, tokens, status):
    gateway = front(to(scripted(lambda connection, _: send_json(connection, ANSWER | {"usage": usage}))))
    told = json.loads(ask(gateway, "POST", ROUTE, CHAT)[2])
    assert (told["prompt_tokens"], told["completion_tokens"]) == tokens and told["cost"]["status"] == status


def test_embeddings_without_a_completion_are_reported(front, scripted):
    answer = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "e"}
    gateway = front(to(scripted(lambda connection, _: send_json(connection, answer | {"usage": {"prompt_tokens": 3, "total_tokens": 3}}))))
    told = json.loads(ask(gateway, "POST", "/v1/embeddings", {"model": "gpt-4o-mini", "input": "Hello"})[2])
    assert (told["prompt_tokens"], told["completion_tokens"], told["cost"]["status"]) == (3, 0, "priced")


def test_output_beyond_what_is_kept_is_counted(front, scripted):
    def script(connection, _):
        begin_events(connection)
        for _ in range(10):
            connection.sendall(chunk("word " * 100_000))
        connection.sendall(chunk(reason="stop") + b"data: [DONE]\n\n")

    gateway = front(to(scripted(script)))
    status, headers, _ = ask(gateway, "POST", ROUTE, CHAT | {"stream": True})
    attributes = gateway.root_span(headers["x-tollgate-trace-id"])["attributes"]
    assert status == 200 and attributes["tollgate.usage.source"] == "estimated"
    assert 990_000 <= attributes["llm.completion_tokens"] <= 1_010_000


def memory(gateway, name):
    """MiB, as the kernel has it."""
    lines = Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024


ARRAYS = {
    "choices": '{"choices":[%s]}',
    "tool calls": '{"choices":[{"index":0,"message":{"tool_calls":[%s]}}]}',
    "items": '{"object":"response","status":"completed","output":[%s]}',
    "parts": '{"object":"response","status":"completed","output":[{"content":[%s]}]}',
    "blocks": '{"type":"message","role":"assistant","model":"m","content":[%s]}',
}


@pytest.mark.parametrize("what", ARRAYS)
def test_an_answer_takes_no_more_than_a_few_times_its_size(front, scripted, what):
    megabytes = 12
    body = (ARRAYS[what] % ("{}," * (megabytes * 2**20 // 3) + "{}")).encode()
    streamed = what in ("choices", "tool calls")

    def script(connection, asked):
        if b'"stream":' in asked:
            begin_events(connection)
            connection.sendall(b"data: " + body + b"\n\ndata: [DONE]\n\n")
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)

    kind = {"kind": "anthropic"} if what == "blocks" else {}
    gateway = front(to(scripted(script), retries=0, **kind))
    idle = memory(gateway, "VmRSS")
    path, asked = ("/v1/responses", {"model": "gpt-4o-mini", "input": "Hi"}) if what in ("items", "parts") else (ROUTE, CHAT)
    for more in [{}, {"stream": True}] if streamed else [{}]:
        assert ask(gateway, "POST", path, asked | more)[0] == 200
    assert memory(gateway, "VmHWM") - idle < 10 * megabytes


MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x-2026",
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 10, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 2000, "output_tokens": 5},
}


def message_events():
    def event(kind, **more):
        return f"event: {kind}\ndata: {json.dumps({'type': kind} | more)}\n\n".encode()

    begun = MESSAGE | {"content": [], "stop_reason": None, "usage": MESSAGE["usage"] | {"output_tokens": 1}}
    yield event("message_start", message=begun)
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield event("ping")
    for text in ("Hel", "lo."):
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
    yield event("content_block_stop", index=0)
    yield event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5})
    yield event("message_stop")


def test_a_chat_with_anthropic_has_its_exact_tokens_on_record(front, scripted):
    def script(connection, body):
        if json.loads(body).get("stream"):
            stream_of(connection, *message_events())
        else:
            send_json(connection, MESSAGE)

    server = scripted(script)
    gateway = front(to(server, kind="anthropic", **{"key-env": "ANTHROPIC_KEY"}), env={"ANTHROPIC_KEY": "sk-ant"})
    part = {"type": "text", "text": "What does a plugin do?", "cache_control": {"type": "ephemeral"}}
    chat = CHAT | {"messages": [{"role": "user", "content": [part]}]}
    plain = gateway.openai.chat.completions.create(**chat, extra_headers={"anthropic-beta": "context-1m"})
    chunks = list(gateway.openai.chat.completions.create(**chat, stream=True, stream_options={"include_usage": True}))
    head, body = server.heads[0]
    assert head.startswith("POST /v1/messages HTTP/1.1") and "\r\nx-api-key: sk-ant\r\n" in head + "\r\n"
    assert "\r\nanthropic-beta: context-1m\r\n" in head + "\r\n" and "\r\nauthorization:" not in head
    sent = json.loads(body)
    assert sent["model"] == "mistral-7b" and sent["messages"] == [{"role": "user", "content": [part]}]
    assert plain.choices[0].message.content == "Hello." == "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert plain.usage == chunks[-1].usage and plain.usage.prompt_tokens == 2310 and plain.usage.completion_tokens == 5
    assert plain.cost == chunks[-1].cost and plain.cost["status"] == "priced"
    for trace_id in (plain.trace_id, chunks[-1].trace_id):
        attributes = gateway.root_span(trace_id)["attributes"]
        assert (attributes["llm.prompt_tokens"], attributes["llm.completion_tokens"]) == (2310, 5)
        assert attributes["gen_ai.usage.cache_read.input_tokens"] == 2000
        assert attributes["gen_ai.usage.cache_creation.input_tokens"] == 300
        assert attributes["gen_ai.response.id"] == "msg_1" and attributes["tollgate.usage.source"] == "reported"


RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "m-2026",
    "output": [{"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "Hello.", "annotations": []}]}],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 120,
    },
}


def test_a_response_has_its_exact_tokens_on_record(front, scripted):
    def event(kind, number, **more):
        return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': number} | more)}\n\n".encode()

    def script(connection, body):
        if not json.loads(body).get("stream"):
            return send_json(connection, RESPONSE)
        begun = RESPONSE | {"status": "in_progress", "output": [], "usage": None}
        place = {"item_id": "m", "output_index": 0, "content_index": 0, "logprobs": []}
        deltas = [event("response.output_text.delta", n, delta=text, **place) for n, text in ((1, "Hel"), (2, "lo."))]
        stream_of(connection, event("response.created", 0, response=begun), *deltas, event("response.completed", 3, response=RESPONSE))

    server = scripted(script)
    gateway = front(to(server))
    plain = gateway.openai.responses.create(model="gpt-4o-mini", input="What does a plugin do?")
    with gateway.http.stream("POST", "/v1/responses", json={"model": "gpt-4o-mini", "input": "What?", "stream": True}) as answer:
        told = answer.read().decode()
        trace_id = answer.headers["x-tollgate-trace-id"]
    assert json.loads(server.heads[0][1])["model"] == "mistral-7b" and plain.output_text == "Hello."
    (account,) = [json.loads(line[11:]) for line in told.splitlines() if line.startswith(": tollgate ")]
    assert account["cost"] == plain.cost and plain.cost["status"] == "priced"
    for trace in (plain.trace_id, trace_id):
        attributes = gateway.root_span(trace)["attributes"]
        assert (attributes["llm.prompt_tokens"], attributes["llm.completion_tokens"]) == (100, 20)
        assert attributes["gen_ai.usage.cache_read.input_tokens"] == 60
        assert attributes["gen_ai.usage.reasoning.output_tokens"] == 5
        assert attributes["gen_ai.response.id"] == "resp_1" and attributes["http.route"] == "/v1/responses"


@pytest.mark.parametrize(
    "kind, body, message, on_record",
    [
        ("text/html", b"<html>no</html>", "<html>no</html>", "not_found"),
        ("application/json", b'{"detail":"Not Found"}', "Not Found", "not_found"),
        ("application/json", b'{"object":"error","message":"The model `m` does not exist.","code":404}', "The model `m` does not exist.", "model_not_found"),
    ],
)
def test_an_error_of_any_form_is_one_that_clients_can_read(front, scripted, kind, body, message, on_record):
    def script(connection, _):
        head = f"HTTP/1.1 404 Not Found\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)

    gateway = front(to(scripted(script), models=["*"]))
    status, headers, told = ask(gateway, "POST", ROUTE, CHAT)
    assert status == 404 and headers["content-type"] == "application/json" and error(told)["message"] == message
    attributes = gateway.root_span(headers["x-tollgate-trace-id"])["attributes"]
    assert attributes["error.type"] == on_record and attributes["http.response.status_code"] == 404
    status, headers, told = ask(gateway, "POST", "/v1/things", CHAT)
    assert (status, told, headers["content-type"]) == (404, body, kind), "what is not known here passes as it is"
