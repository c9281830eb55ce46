"""No input crashes or hangs the gateway: each bad one gets OpenAI's error object, and the next request is served."""

import json
import socket
import struct
import time
from decimal import Decimal

import pytest

from conftest import until

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
GOOD = {"model": "mistral-7b", "prompt": "Hello"}
GOOD_CHAT = {"model": "mistral-7b", "messages": [{"role": "user", "content": "Hello"}]}
PRICE = {"input": Decimal("0.0000001"), "output": Decimal("0.0000002")}


def check_error(response, status, param):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error["message"] and error["type"] and error["code"]
    assert error["param"] == param, error


WRONG_FIELDS = [
    ({"prompt": None}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({"prompt": {}}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": ["a", "b"]}, "prompt"),
    ({"prompt": [-1]}, "prompt[0]"),
    ({"prompt": [1.5]}, "prompt[0]"),
    ({"prompt": [4_000_000_000]}, "prompt"),
    ({"model": 7}, "model"),
    ({"max_tokens": "ten"}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 1e400}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"seed": "x"}, "seed"),
    ({"stop": 5}, "stop"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"n": 129}, "n"),
    ({"best_of": 2}, "best_of"),
    ({"user": 1}, "user"),
    ({"logprobs": 21}, "logprobs"),
    ({"echo": "yes"}, "echo"),
    ({"prompt_logprobs": 21}, "prompt_logprobs"),
    ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"suffix": "x"}, "suffix"),
]

WRONG_MESSAGES = [
    (None, "messages"),
    ([], "messages"),
    ("hello", "messages"),
    (["hello"], "messages[0]"),
    ([{"content": "x"}], "messages[0].role"),
    ([{"role": "wizard", "content": "x"}], "messages[0].role"),
    ([{"role": "user"}], "messages[0].content"),
    ([{"role": "user", "content": 5}], "messages[0].content"),
]


def as_json(body):
    """Python writes infinity as no JSON allows; a number beyond a double does the same and is JSON."""
    return json.dumps(body).replace("Infinity", "1e400")


@pytest.mark.parametrize(("change", "param"), WRONG_FIELDS, ids=[str(change) for change, _ in WRONG_FIELDS])
def test_wrong_fields(gateway, change, param):
    body = as_json(GOOD | change)
    check_error(gateway.http.post(COMPLETIONS, content=body, headers={"content-type": "application/json"}), 400, param)


@pytest.mark.parametrize(("messages", "param"), WRONG_MESSAGES, ids=[str(messages) for messages, _ in WRONG_MESSAGES])
def test_wrong_messages(gateway, messages, param):
    check_error(gateway.http.post(CHAT, json=GOOD_CHAT | {"messages": messages}), 400, param)


RAW_BODIES = {
    "nothing": b"",
    "not-json": b"prompt=hello",
    "cut-off": b'{"model": "mistral-7b", "prompt": "Hel',
    "array": b"[]",
    "number": b"42",
    "null": b"null",
    "invalid-utf8": b'{"model": "mistral-7b", "prompt": "\xff\xfe"}',
    "utf16": '{"prompt": "Hello"}'.encode("utf-16"),
    "zeros": bytes(64),
    "deep": b'{"prompt": ' + b"[" * 200_000,
    "two": b'{"prompt": "a"}{"prompt": "b"}',
}


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("body", RAW_BODIES.values(), ids=RAW_BODIES)
def test_bodies_that_are_no_request(gateway, path, body):
    response = gateway.http.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["message"]
    gateway.still_serves()


def test_a_lone_surrogate_is_refused_or_served(gateway):
    body = b'{"model": "mistral-7b", "max_tokens": 2, "prompt": "\\ud83d"}'
    response = gateway.http.post(COMPLETIONS, content=body, headers={"content-type": "application/json"})
    assert response.status_code in (200, 400)
    gateway.still_serves()


def test_unusual_text_is_served(gateway):
    for prompt in ("\0", "\u202e", "🏴‍☠️" * 10, "a\u0300" * 20, "<|endoftext|>", " " * 50, "\r\n\t"):
        answer = gateway.complete(prompt=prompt, max_tokens=3)
        assert answer["prompt_tokens"] > 0 and answer["cost"]["status"] == "priced"


def test_unknown_model(gateway):
    check_error(gateway.http.post(COMPLETIONS, json=GOOD | {"model": "gpt-99"}), 404, "model")
    check_error(gateway.http.post(CHAT, json=GOOD_CHAT | {"model": ""}), 400, "model")
    gateway.still_serves()


def test_huge_max_tokens_means_as_many_as_fit(gateway):
    for huge in (10**6, 2**31, 2**63, 10**30):
        response = gateway.http.post(COMPLETIONS, json=GOOD | {"max_tokens": huge, "temperature": 0, "stop": ["."]})
        assert response.status_code == 200, response.text
        assert response.json()["usage"]["completion_tokens"] > 0


def test_a_prompt_over_the_context(gateway):
    response = gateway.http.post(COMPLETIONS, json=GOOD | {"prompt": "overflow " * 20_000})
    check_error(response, 400, "prompt")
    assert response.json()["error"]["code"] == "context_length_exceeded"
    response = gateway.http.post(CHAT, json=GOOD_CHAT | {"messages": [{"role": "user", "content": "x " * 20_000}]})
    check_error(response, 400, "messages")
    gateway.still_serves()


def test_a_body_over_the_limit(gateway):
    for size in (2 << 20, 40 << 20):
        try:
            response = gateway.http.post(COMPLETIONS, content=b"x" * size, headers={"content-type": "application/json"})
        except OSError:
            continue  # it may also hang up on who goes on sending
        except Exception as error:  # noqa: BLE001 - httpx wraps the same
            assert "roken pipe" in str(error) or "reset" in str(error) or "disconnected" in str(error), error
            continue
        assert response.status_code == 413 and response.json()["error"]["message"]
    gateway.still_serves()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/msgpack"])
def test_wrong_content_type(gateway, kind):
    response = gateway.http.post(COMPLETIONS, content=json.dumps(GOOD), headers={"content-type": kind})
    check_error(response, 415, None)
    gateway.still_serves()


def test_unknown_routes_and_methods(gateway):
    check_error(gateway.http.get("/v1/no-such-thing"), 404, None)
    check_error(gateway.http.post("/"), 404, None)
    check_error(gateway.http.get(COMPLETIONS), 405, None)
    check_error(gateway.http.delete("/v1/models"), 405, None)
    gateway.still_serves()


RAW_REQUESTS = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "no-http": b"HELLO\r\n\r\n",
    "endless-line": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    "many-headers": b"GET /health HTTP/1.1\r\n" + b"x-a: b\r\n" * 5_000 + b"\r\n",
    "bad-length": b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: minus one\r\n\r\n",
    "two-lengths": b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "bad-chunk": b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
}


@pytest.mark.parametrize("request_bytes", RAW_REQUESTS.values(), ids=RAW_REQUESTS)
def test_what_is_not_http_is_answered_or_hung_up_on(gateway, request_bytes):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as raw:
        try:
            raw.sendall(request_bytes)
            answer = raw.recv(4096)
        except OSError:
            answer = b""
    assert not answer or answer.split()[1] in (b"400", b"414", b"431"), answer[:200]
    gateway.still_serves()


def open_stream(gateway, body, receive_buffer=None):
    """A raw connection on which a streamed request was sent."""
    raw = socket.socket()
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.settimeout(20)
    raw.connect(("127.0.0.1", gateway.port))
    content = json.dumps(body | {"stream": True}).encode()
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    raw.sendall(head.encode() + content)
    return raw


def hang_up(raw):
    """Resets the connection, as a process that dies does."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def exact_cost(attributes):
    tokens = (attributes["llm.prompt_tokens"], attributes["llm.completion_tokens"])
    return tokens[0] * PRICE["input"] + tokens[1] * PRICE["output"]


def test_clients_that_stop_reading_do_not_keep_others_waiting(start_gateway):
    gateway = start_gateway(arguments=["--stall-seconds", "1"])
    body = GOOD | {"max_tokens": 100_000, "temperature": 2.0, "user": "sleeper"}
    sleepers = [open_stream(gateway, body, receive_buffer=1024) for _ in range(12)]
    try:
        began = time.monotonic()
        for _ in range(3):
            gateway.still_serves()
        assert time.monotonic() - began < 60
        # Each ends, seen or not, and is on record with what it used.
        ended = until(
            lambda: (s := sleeping_spans(gateway)) and len(s) == len(sleepers) and s, 60, "the sleepers' records"
        )
        for span in ended:
            assert span["tollgate.outcome"] in ("completed", "client_gone")
            assert Decimal(span["tollgate.cost.amount"]) == exact_cost(span)
    finally:
        for sleeper in sleepers:
            sleeper.close()
    gateway.still_serves()


def sleeping_spans(gateway):
    roots = [s["attributes"] for s in gateway.spans() if s["name"] == "inference.request"]
    return [attributes for attributes in roots if attributes.get("llm.user") == "sleeper"]


def test_a_client_that_leaves_is_on_record_with_what_it_used(gateway):
    for attempt in range(8):
        user = f"leaver-{attempt}-{time.monotonic_ns()}"
        raw = open_stream(gateway, GOOD | {"max_tokens": 100_000, "temperature": 1.5, "seed": attempt, "user": user})
        received = b""
        while b"data:" not in received:
            received += raw.recv(256)
        hang_up(raw)

        def record():
            roots = [s["attributes"] for s in gateway.spans() if s["name"] == "inference.request"]
            return next((a for a in roots if a.get("llm.user") == user), None)

        attributes = until(record, 20, "the leaver's record")
        assert attributes["tollgate.cost.status"] == "priced"
        assert Decimal(attributes["tollgate.cost.amount"]) == exact_cost(attributes)
        if attributes["tollgate.outcome"] == "client_gone":
            assert attributes["error.type"] == "client_gone"
            assert attributes["llm.completion_tokens"] > 0
            gateway.still_serves()
            return
    raise AssertionError("no record says that its client went away")


def test_a_client_that_leaves_before_the_answer(gateway):
    for _ in range(5):
        raw = open_stream(gateway, GOOD | {"max_tokens": 50})
        hang_up(raw)
    half = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
    half.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    gateway.still_serves()
    half.close()
    gateway.still_serves()


def test_refusals_are_on_record_and_unpriced(gateway):
    response = gateway.http.post(COMPLETIONS, json=GOOD | {"model": "gpt-99", "user": "tenant-r"})
    attributes = gateway.root_span(response.json()["trace_id"])["attributes"]
    assert attributes["tollgate.outcome"] == "refused"
    assert attributes["tollgate.cost.status"] == "unpriced"
    assert attributes["error.type"] == "model_not_found"
    assert attributes["http.response.status_code"] == 404
    assert "llm.estimated_cost_usd" not in attributes, "no silent zero"
