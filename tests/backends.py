"""Servers that a gateway forwards to: scripted ones, which misbehave on purpose, and the gateway in front of them."""

import json
import socket
import threading

import pytest

from conftest import Gateway, replace_file


def backends(folder, *tables, head=""):
    """Writes `backends.toml` of these tables."""
    path = folder / "backends.toml"
    text = "".join("\n[[backend]]\n" + "".join(f"{k} = {toml(v)}\n" for k, v in table.items()) for table in tables)
    replace_file(path, head + text)
    return path


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    return json.dumps(value)


@pytest.fixture
def front(tmp_path):
    """Starts a gateway in front of these backends."""
    started = []

    def start(*tables, head="", arguments=(), **more):
        path = backends(tmp_path, *tables, head=head)
        gateway = Gateway(tmp_path, arguments=["--backends", path, "--console", "off", *arguments], **more)
        started.append(gateway)
        return gateway.wait_until_ready()

    yield start
    for gateway in started:
        gateway.kill()


def to(server, name="second", **more):
    url = server if isinstance(server, str) else server.url
    return {"name": name, "url": f"{url}/v1", "provider": "other", "models": [{"as": "gpt-4o-mini", "name": "mistral-7b"}]} | more


class Listening:
    """Takes each connection on a thread of its own, by `take`. `tls` is what it is spoken to by, if it is."""

    def __init__(self, tls=None):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._tls = tls
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                self.take(connection)
        except OSError:
            pass

    def close(self):
        self._listener.close()


def read_head(connection):
    """The head of a request, and what came with it; nothing if it never comes."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            return None, b""
        received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    return head.decode(), rest


class Scripted(Listening):
    """A server that answers each connection as `script` does, which gets the socket and the request's body."""

    def __init__(self, script, tls=None):
        self.heads, self._script = [], script
        super().__init__(tls)
        self.url = f"http://127.0.0.1:{self.address[1]}"

    def take(self, connection):
        head, body = read_head(connection)
        if head is None:
            return
        length = next((int(line.split(":")[1]) for line in head.lower().split("\r\n") if line.startswith("content-length")), 0)
        while len(body) < length:
            body += connection.recv(65536)
        self.heads.append((head, body))
        self._script(connection, body)


@pytest.fixture
def scripted():
    servers = []

    def start(script, tls=None):
        servers.append(Scripted(script, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def send_json(connection, value, status="200 OK", extra=""):
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{extra}content-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


def begin_events(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")


def chunk(text=None, reason=None, **more):
    choices = [] if text is None and reason is None else [{"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": reason}]
    value = {"id": "chatcmpl-x", "object": "chat.completion.chunk", "created": 1, "model": "m-2026", "choices": choices} | more
    return f"data: {json.dumps(value)}\n\n".encode()


USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
ANSWER = {
    "id": "chatcmpl-x",
    "object": "chat.completion",
    "created": 1,
    "model": "m-2026",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": USAGE,
}


def stream_of(connection, *events):
    begin_events(connection)
    for event in events:
        connection.sendall(event)
