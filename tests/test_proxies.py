"""Servers that are reached by a proxy: of the environment or of the backend, in order and out of order. The names of the
servers lead nowhere but at the proxy."""

import ssl
import time

import httpx
import pytest

from backends import ANSWER, USAGE, begin_events, chunk, front, scripted, send_json, to  # noqa: F401 - fixtures
from certificates import Authority
from conftest import free_port, until
from proxies import Proxy
from test_upstream import CHAT, ROUTE, root_and_client

SPENT = "Basic Z2F0ZTp3b3Jk"  # gate:word


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("authority") / "ca")
    for name in ("model.test", "localhost"):
        authority.sign(name)
    return authority


def speaks_tls(authority, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.path(f"{name}.pem"), authority.path(f"{name}.key"))
    return context


def answers(connection, body):
    """As a model server, one request a connection, by what was asked."""
    if not body:
        send_json(connection, {"status": "ok"}, extra="connection: close\r\n")
    elif b'"stream":true' in body.replace(b" ", b""):
        begin_events(connection)
        for event in (chunk("Hel"), chunk("lo."), chunk(reason="stop"), chunk(usage=USAGE), b"data: [DONE]\n\n"):
            connection.sendall(event)
    else:
        send_json(connection, ANSWER, extra="connection: close\r\n")


@pytest.fixture
def model(scripted, authority):  # noqa: F811 - the fixture
    """A model server, by its scheme."""
    return lambda scheme: scripted(answers, speaks_tls(authority, "model.test") if scheme == "https" else None)


@pytest.fixture
def proxy():
    """Starts proxies."""
    started = []

    def start(servers=(), **more):
        started.append(Proxy({name: server.address for name, server in dict(servers).items()}, **more))
        return started[-1]

    yield start
    for one in started:
        one.close()


def behind(scheme, authority, **more):
    table = to(f"{scheme}://model.test", "behind", **more)
    return table | ({"ca-file": str(authority.path("ca.pem"))} if scheme == "https" else {})


@pytest.mark.parametrize("said_by", ["environment", "backend"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_requests_streams_and_checks_go_by_the_proxy(front, model, proxy, authority, scheme, said_by):  # noqa: F811
    server = model(scheme)
    by = proxy({"model.test": server}, credentials=SPENT)
    url = f"http://gate:word@127.0.0.1:{by.port}"
    table = behind(scheme, authority, health={"path": "/health", "every-ms": 100})
    if said_by == "backend":
        gateway = front(table | {"proxy": url}, env={"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"})
    else:
        gateway = front(table, env={f"{scheme}_proxy".upper() if scheme == "https" else "http_proxy": url})
    for stream in (False, True):
        answer = gateway.http.post(ROUTE, json=CHAT | {"stream": stream})
        assert answer.status_code == 200, answer.text
        root, client = root_and_client(gateway, answer.headers["x-tollgate-trace-id"])
        assert root["attributes"]["tollgate.cost.status"] == "priced" and client["events"] == []
        assert client["attributes"]["server.address"] == "model.test"
        assert client["attributes"]["server.port"] == (443 if scheme == "https" else 80)
    until(lambda: any(head.startswith("GET /health ") for head, _ in server.heads), what="a check by the proxy")
    until(lambda: 'state="healthy"' in gateway.log(), what="a good check")
    asked = [request for request, _ in by.asked]
    if scheme == "https":
        assert set(asked) == {"CONNECT model.test:443 HTTP/1.1"}
    else:
        assert "POST http://model.test/v1/chat/completions HTTP/1.1" in asked and "GET http://model.test/health HTTP/1.1" in asked
    assert {headers["proxy-authorization"] for _, headers in by.asked} == {SPENT}
    assert not any("proxy-authorization" in head.lower() for head, _ in server.heads)
    assert "word" not in gateway.log()


def test_a_proxy_may_be_spoken_to_by_tls(front, model, proxy, authority):  # noqa: F811
    by = proxy({"model.test": model("https")}, tls=speaks_tls(authority, "localhost"))
    table = behind("https", authority) | {"proxy": f"https://localhost:{by.port}"}
    gateway = front(table, env={"SSL_CERT_FILE": str(authority.path("ca.pem"))})
    answer = gateway.http.post(ROUTE, json=CHAT)
    assert answer.status_code == 200, (answer.text, gateway.log())
    assert [request for request, _ in by.asked] == ["CONNECT model.test:443 HTTP/1.1"]


@pytest.mark.parametrize(
    ("spared", "named", "by_proxy"),
    [("", None, True), ("10.0.0.0/8, 0.0.0.0", None, False), ("*", None, False), ("", "none", False)],
)
def test_what_is_spared_is_reached_straight(front, model, proxy, spared, named, by_proxy):  # noqa: F811
    server = model("http")
    by = proxy({"0.0.0.0": server})
    table = to(f"http://0.0.0.0:{server.address[1]}", "here") | ({"proxy": named} if named else {})
    gateway = front(table, env={"HTTP_PROXY": f"http://127.0.0.1:{by.port}", "NO_PROXY": spared})
    assert gateway.http.post(ROUTE, json=CHAT).status_code == 200
    assert len(by.asked) == by_proxy and len(server.heads) == 1


def test_what_is_loopback_is_not_asked_for_by_the_environments_proxy(front, model, proxy):  # noqa: F811
    server, by = model("http"), proxy()
    gateway = front(to(server), env={"HTTP_PROXY": f"http://127.0.0.1:{by.port}", "ALL_PROXY": "socks5://127.0.0.1:1"})
    assert gateway.http.post(ROUTE, json=CHAT).status_code == 200 and by.asked == []


BAD = {
    "refuses": (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 5\r\n\r\nNever", "answered 403 Forbidden"),
    "asks for a password": (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "other credentials"),
    "cannot reach it": (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "answered 503"),
    "speaks otherwise": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not speak HTTP"),
    "goes on for ever": (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, "does not speak HTTP"),
    "hangs": ("hang", "no answer within 300ms"),
    "closes": ("close", "opens no tunnel"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_proxy_that_fails_is_an_error_that_says_so_and_the_next_backend_answers(front, model, proxy, authority, how):  # noqa: F811
    does, said = BAD[how]
    by = proxy(does=does)
    table = behind("https", authority, weight=9, retries=0, **{"connect-timeout-ms": 300})
    gateway = front(table | {"proxy": f"http://127.0.0.1:{by.port}"}, to(model("http")))
    answer = gateway.http.post(ROUTE, json=CHAT)
    assert answer.status_code == 200
    _, client = root_and_client(gateway, answer.headers["x-tollgate-trace-id"])
    (event,) = client["events"]
    assert event["attributes"]["tollgate.upstream.retry.backend"] == "behind"
    error = event["attributes"]["tollgate.upstream.retry.error"]
    assert said in error and f"the proxy http://127.0.0.1:{by.port}" in error, error


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_away_is_a_bad_gateway(front, authority, scheme):  # noqa: F811
    table = behind(scheme, authority, retries=0) | {"proxy": f"http://127.0.0.1:{free_port()}"}
    gateway = front(table)
    answer = gateway.http.post(ROUTE, json=CHAT)
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "backend_error"
    assert "cannot be reached" in gateway.log()


@pytest.mark.parametrize(
    ("does", "said"),
    [(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "status 503"), (b"SSH-2.0\r\n\r\n", "connection was lost"), ("hang", "no answer within")],
)
def test_a_proxy_that_fails_at_what_is_plain(front, model, proxy, authority, does, said):  # noqa: F811
    by = proxy(does=does)
    table = behind("http", authority, weight=9, retries=0, **{"first-byte-timeout-ms": 300})
    gateway = front(table | {"proxy": f"http://127.0.0.1:{by.port}"}, to(model("http")))
    answer = gateway.http.post(ROUTE, json=CHAT)
    assert answer.status_code == 200
    _, client = root_and_client(gateway, answer.headers["x-tollgate-trace-id"])
    assert said in client["events"][0]["attributes"]["tollgate.upstream.retry.error"]


def test_a_client_that_leaves_closes_the_tunnel(front, scripted, proxy, authority):  # noqa: F811
    gone = []

    def script(connection, _):
        begin_events(connection)
        try:
            while True:
                connection.sendall(chunk("word "))
                time.sleep(0.02)
        except OSError:
            gone.append(True)

    server = scripted(script, speaks_tls(authority, "model.test"))
    by = proxy({"model.test": server})
    gateway = front(behind("https", authority) | {"proxy": f"http://127.0.0.1:{by.port}"})
    with httpx.stream("POST", gateway.url + ROUTE, json=CHAT | {"stream": True}, trust_env=False) as answer:
        next(answer.iter_lines())
    until(lambda: gone, seconds=30, what="the server hears of it")
