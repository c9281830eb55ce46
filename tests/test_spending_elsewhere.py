"""What requests to other servers cost: by whose price, out of which budget, and whoever leaves or is killed in the middle."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import httpx
import pytest

from backends import ANSWER, front, scripted, send_json, to
from conftest import replace_file, until
from test_upstream import CHAT, ROUTE, amount, cost_of, refuses


TABLE = """[[plugin]]
file = "cost-per-token.wasm"
[plugin.config]
%s
models = [{ match = "gpt-4o-mini", input = "$1/M", output = "$1/M" }]
"""


@pytest.mark.parametrize(
    ("resolved", "price_by", "told"),
    [
        ("mistral-7b", "", ("unpriced", None)),
        ("gpt-4o-mini-2024-07-18", "", ("priced", "0.00012")),
        ("mistral-7b", 'price_by = "request"', ("priced", "0.00012")),
    ],
)
def test_an_alias_has_a_price_only_where_the_operator_says_so(front, scripted, resolved, price_by, told):
    server = scripted(lambda connection, _: send_json(connection, ANSWER))
    table = to(server) | {"models": [{"as": "gpt-4o-mini", "name": resolved}]}
    gateway = front(table, plugins=("cost-per-token",), plugins_toml=TABLE % price_by)
    answer = gateway.http.post(ROUTE, json=CHAT)
    attributes = gateway.root_span(answer.headers["x-tollgate-trace-id"])["attributes"]
    assert (attributes["tollgate.cost.status"], attributes.get("tollgate.cost.amount")) == told
    assert attributes.get("tollgate.cost.reason") == (None if told[1] else "unknown_model")


BUDGET = '[[tenant]]\nname = "acme"\n[[tenant.budget]]\namount = "0.001"\ncurrency = "USD"\nper = "day"\n'


@pytest.fixture
def acme(front, tmp_path):
    """A gateway in front of these backends that has a tenant with a budget, and what its requests show."""

    def start(*tables):
        replace_file(tmp_path / "keys.toml", BUDGET)
        env = {"TOLLGATE_KEYS": "acme:a-secret-of-the-environment"}
        gateway = front(*tables, arguments=["--keys-file", tmp_path / "keys.toml"], env=env)
        gateway.http.headers["authorization"] = "Bearer a-secret-of-the-environment"
        return gateway

    return start


@pytest.mark.parametrize(
    ("path", "many"),
    [("/v1/chat/completions", {"messages": CHAT["messages"], "n": 128}), ("/v1/completions", {"prompt": ["Hi"] * 64, "n": 2})],
)
def test_many_answers_to_one_request_do_not_overrun_a_budget(acme, scripted, path, many):
    usage = {"prompt_tokens": 10, "completion_tokens": 128 * 12, "total_tokens": 10 + 128 * 12}

    def script(connection, _):
        time.sleep(0.5)
        send_json(connection, ANSWER | {"usage": usage})

    server = scripted(script)
    gateway = acme(to(server))
    with ThreadPoolExecutor(24) as pool:
        ask = {"model": "gpt-4o-mini", "max_tokens": 12} | many
        answers = list(pool.map(lambda _: gateway.http.post(path, json=ask), range(24)))
    served = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} == {200, 429} and len(served) == len(server.heads) == 3
    spent = sum(Decimal(answer.json()["cost"]["amount"]) for answer in served)
    assert spent == 3 * cost_of("mistral-7b", 10, 128 * 12) <= Decimal("0.001")


def test_an_image_is_not_counted_by_its_bytes(front, scripted, tmp_path):
    server = scripted(lambda connection, _: send_json(connection, ANSWER))
    replace_file(tmp_path / "keys.toml", '[[tenant]]\nname = "acme"\n[tenant.limits]\ntokens-per-minute = 5000\n')
    env = {"TOLLGATE_KEYS": "acme:a-secret-of-the-environment"}
    gateway = front(to(server), arguments=["--keys-file", tmp_path / "keys.toml"], env=env)
    url = "data:image/png;base64," + "A" * 900_000
    looks = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]

    def ask(content):
        body = CHAT | {"messages": [{"role": "user", "content": content}]}
        return gateway.http.post(ROUTE, json=body, headers={"authorization": "Bearer a-secret-of-the-environment"})

    answer = ask(looks)
    assert answer.status_code == 200, answer.text
    # What only looks like one is text, and the server would read it.
    assert ask(url).status_code == 429


def test_who_leaves_while_no_backend_works_pays_nothing(front, scripted):
    busy = scripted(lambda connection, _: send_json(connection, {}, "503 Service Unavailable", "retry-after: 4\r\n"))
    gateway = front(to(busy, retries=1))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with pytest.raises(httpx.ReadTimeout):
        gateway.http.post(ROUTE, json=CHAT, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}, timeout=2)
    attributes = gateway.root_span(trace)["attributes"]
    assert attributes["tollgate.outcome"] == "client_gone" and attributes["tollgate.cost.reason"] == "not_served"
    assert attributes["tollgate.usage.source"] == "estimated" and len(busy.heads) == 1


def test_leaving_before_the_first_byte_again_and_again_does_not_evade_a_budget(acme, scripted):
    server = scripted(lambda connection, _: time.sleep(60))
    gateway = acme(to(server))
    # Some 2,000 tokens, 0.0002 USD.
    long = CHAT | {"messages": [{"role": "user", "content": "a word and " * 700}]}

    def leaves():
        asked = len(server.heads)
        try:
            answer = gateway.http.post(ROUTE, json=long, timeout=1)
        except httpx.ReadTimeout:
            assert len(server.heads) == asked + 1
            return 0
        return answer.status_code

    refused = until(leaves, 60, "the end of the budget")
    assert refused == 429 and 3 <= len(server.heads) <= 6


IN_FLIGHT = {"model": "gpt-4o-mini", "prompt": "Tell me everything about spans.", "max_tokens": 400, "ignore_eos": True, "temperature": 2.0}


@pytest.mark.parametrize("works", ["the backend", "the model here"])
def test_with_a_model_here_too_a_killed_gateway_has_the_request_on_record(front, scripted, works):
    asked = threading.Event()

    def script(connection, _):
        asked.set()
        time.sleep(60)

    server = scripted(script) if works == "the backend" else refuses()
    gateway = front(to(server), arguments=["--model", "demo"])
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    begun = threading.Event()

    def ask():
        try:
            with gateway.http.stream("POST", "/v1/completions", json=IN_FLIGHT | {"stream": True}, headers=headers) as answer:
                for count, _ in enumerate(answer.iter_lines()):
                    if count == 10:
                        begun.set()
        except httpx.TransportError:
            pass

    threading.Thread(target=ask, daemon=True).start()
    assert (asked if works == "the backend" else begun).wait(30)
    ledger = sqlite3.connect(f"file:{gateway.data / 'ledger' / 'ledger-00000001.sqlite'}?mode=ro", uri=True)
    until(lambda: ledger.execute("SELECT count(*) FROM in_flight").fetchone()[0], seconds=30, what="the start")
    gateway.kill()
    again = front(to(refuses()), arguments=["--model", "demo"])
    attributes = again.root_span(trace)["attributes"]
    assert attributes["tollgate.outcome"] == "aborted"
    assert ledger.execute("SELECT count(*) FROM entry WHERE kind = 'started'").fetchone()[0] == 1
    ledger.close()
    if works == "the backend":
        assert attributes["gen_ai.provider.name"] == "other" and attributes["gen_ai.response.model"] == "mistral-7b"
    else:
        assert attributes["gen_ai.provider.name"] == "tollgate" and "tollgate.backend" not in attributes
        tokens = attributes["llm.prompt_tokens"], attributes["llm.completion_tokens"]
        assert tokens[1] > 0 and attributes["tollgate.cost.status"] == "priced"
        assert amount(attributes) == cost_of("gpt-4o-mini", *tokens)
