"""What received spans do to budgets and limits: they cost like requests that were served here, and none is refused."""

from conftest import free_port, until
from senders import chat, post, request
from test_tenants import ask, budget, new_key, redis, start  # noqa: F401 - fixtures


def receiving(start, name="one", **more):  # noqa: F811
    port = free_port()
    gateway = start(name, arguments=["--otlp-listen", f"127.0.0.1:{port}"], **more)
    gateway.otlp = f"http://127.0.0.1:{port}"
    return gateway


def send(gateway, secret, number):
    answer = post(gateway, request(chat(number, trace=number)).SerializeToString(), authorization=f"Bearer {secret}")
    assert answer.status_code == 200, answer.content


def test_a_live_budget_is_spent_by_spans_and_stops_requests_only(start, tmp_path):  # noqa: F811
    path = tmp_path / "keys.toml"
    _, secret = new_key(path, "acme")
    budget(path, "0.0005", per="day", hard=True)
    gateway = receiving(start, keys=path)
    assert ask(gateway, secret).status_code == 200
    for number in range(1, 4):
        send(gateway, secret, number)
    spent = ask(gateway, secret)
    assert spent.status_code == 429 and spent.json()["error"]["code"] == "insufficient_quota"
    # What was done elsewhere has been done: it is taken and billed all the same.
    send(gateway, secret, 4)
    gateway.kill()
    again = receiving(start, keys=path)
    assert ask(again, secret).status_code == 429, "the ledger knows what was spent"


def test_what_one_gateway_receives_is_spent_for_all_that_share_a_redis(start, redis, tmp_path):  # noqa: F811
    path = tmp_path / "keys.toml"
    _, secret = new_key(path, "acme")
    budget(path, "0.0005", per="day", hard=True)
    env = {"TOLLGATE_REDIS_URL": f"redis://127.0.0.1:{redis.port}"}
    one = receiving(start, "one", keys=path, env=env)
    two = start("two", keys=path, env=env)
    assert ask(two, secret).status_code == 200
    for number in range(1, 4):
        send(one, secret, number)
    until(lambda: ask(two, secret).status_code == 429, what="the spend of the other gateway")


def test_rates_are_of_requests_that_are_served_here(start, tmp_path):  # noqa: F811
    path = tmp_path / "keys.toml"
    limits = ["--requests-per-minute", "2", "--tokens-per-minute", "500", "--concurrent", "1"]
    _, secret = new_key(path, "acme", *limits)
    gateway = receiving(start, keys=path)
    for number in range(1, 8):
        send(gateway, secret, number)
    answer = ask(gateway, secret)
    assert answer.status_code == 200, "spans have taken nothing of the limits"
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"
