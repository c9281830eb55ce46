"""Limits that are shared through a Redis that speaks TLS, with authorities of its own: what is trusted is used, and what is not
counts as away."""

import json

import pytest

from certificates import Authority
from conftest import until
from test_doctor import doctor, expect  # noqa: F401 - a fixture
from test_tenants import Redis, ask, new_key, start  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("trusted") / "ca")
    for name in ("localhost", "other.test"):
        authority.sign(name)
    return authority


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("strange") / "ca")


@pytest.fixture
def redis(tmp_path, authority):
    """Starts a Redis that shows the certificate of this name; its address."""
    started = []

    def one(name="localhost"):
        started.append(Redis(tmp_path, tls=(authority.path(f"{name}.pem"), authority.path(f"{name}.key"))))
        return f"rediss://localhost:{started[-1].port}"

    yield one
    for server in started:
        server.stop()


def degraded(gateway, answer):
    return gateway.root_span(answer.headers["x-tollgate-trace-id"])["attributes"].get("tollgate.limits.degraded")


@pytest.mark.parametrize("by", ["setting", "system"])
def test_limits_are_shared_by_tls_with_authorities_of_ones_own(start, redis, authority, tmp_path, by):  # noqa: F811
    ca = str(authority.path("ca.pem"))
    trusted = {"TOLLGATE_REDIS_CA_FILE": ca} if by == "setting" else {"SSL_CERT_FILE": ca}
    path = tmp_path / "keys.toml"
    _, secret = new_key(path, "acme", "--requests-per-minute", "20")
    env = {"TOLLGATE_REDIS_URL": redis()} | trusted
    gateways = [start(name, keys=path, env=env, plugins=()) for name in ("one", "two")]
    for gateway in gateways:
        # The first ones may be faster than the handshake.
        until(lambda: degraded(gateway, ask(gateway, secret, max_tokens=1)) is None, seconds=20, what="a connection")
    statuses = []
    for number in range(40):
        statuses.append(ask(gateways[number % 2], secret, max_tokens=1).status_code)
        if 429 in statuses and number >= 1:
            break
    # Either of them knows what the other has let in.
    assert [ask(gateway, secret, max_tokens=1).status_code for gateway in gateways] == [429, 429]
    assert statuses.count(200) <= 20


@pytest.mark.parametrize(("away", "status"), [("local", 200), ("open", 200), ("closed", 503)])
@pytest.mark.parametrize("wrong", ["authority", "name", "system"])
def test_a_certificate_that_is_not_trusted_counts_as_away(start, redis, authority, stranger, tmp_path, wrong, away, status):  # noqa: F811
    url = redis("other.test" if wrong == "name" else "localhost")
    trusted = {"authority": {"TOLLGATE_REDIS_CA_FILE": str(stranger.path("ca.pem"))}, "name": {"TOLLGATE_REDIS_CA_FILE": str(authority.path("ca.pem"))}, "system": {}}
    path = tmp_path / "keys.toml"
    _, secret = new_key(path, "acme", "--requests-per-minute", "1000")
    env = {"TOLLGATE_REDIS_URL": url} | trusted[wrong]
    gateway = start(keys=path, env=env, arguments=["--redis-away", away], plugins=())
    for _ in range(3):
        answer = ask(gateway, secret, max_tokens=1)
        assert answer.status_code == status
        if status == 200:
            assert degraded(gateway, answer) == away
        else:
            assert answer.json()["error"]["code"] == "limits_unavailable"
    until(lambda: "Redis is away" in gateway.log() and "certificate" in gateway.log(), what="a line that says why")


def test_doctor_says_what_is_wrong_with_the_certificate(doctor, redis, authority, stranger):  # noqa: F811
    url = redis()
    ca = {"TOLLGATE_REDIS_URL": url, "TOLLGATE_REDIS_CA_FILE": str(authority.path("ca.pem"))}
    expect(doctor(env=ca), "redis", "ok", "evicts nothing")
    expect(doctor(env={"TOLLGATE_REDIS_URL": url}), "redis", "failed", "certificate", "redis-ca-file")
    found = doctor(env=ca | {"TOLLGATE_REDIS_CA_FILE": str(stranger.path("ca.pem"))})
    expect(found, "redis", "failed", "certificate", "redis-ca-file")


def test_authorities_without_use_are_refused_at_the_start(doctor, redis, authority, tmp_path):  # noqa: F811
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    url = redis()
    for address, file, said in [
        (url.replace("rediss", "redis"), authority.path("ca.pem"), "rediss://"),
        (url, empty, "no certificate"),
        (url, tmp_path / "none.pem", "none.pem"),
    ]:
        found = doctor(env={"TOLLGATE_REDIS_URL": address, "TOLLGATE_REDIS_CA_FILE": str(file)})
        expect(found, "redis", "failed", said)
        assert json.dumps(found).count("localhost") == 0, "the address may hold a password"
