"""Keys, limits and budgets, of one gateway and of two that share a Redis, with OpenAI's client and a real Redis."""

import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import openai
import pytest

from conftest import PROGRAM, Gateway, environment, free_port, replace_file, until
from test_admin import Admin

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What does a plugin do?"}], "max_tokens": 8, "seed": 7}
ROUTE = "/v1/chat/completions"


def key_command(*arguments, status=0):
    done = subprocess.run([PROGRAM, "key", *arguments], capture_output=True, text=True, timeout=60, env=environment())
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def new_key(path, tenant, *arguments):
    """Makes a key; its id and its secret."""
    told = key_command("create", "--keys-file", path, "--tenant", tenant, *arguments)
    return re.search(r"^id +(\S+)$", told, re.M)[1], re.search(r"^secret +(\S+)$", told, re.M)[1]


@pytest.fixture
def start(tmp_path):
    """Starts gateways with these keys."""
    started = []

    def one(name="one", keys=None, arguments=(), env=(), **more):
        keys = ["--keys-file", keys] if keys else []
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        gateway = Gateway(folder, arguments=["--console", "off", *keys, *arguments], env=env, **more)
        started.append(gateway)
        return gateway.wait_until_ready()

    yield one
    for gateway in started:
        gateway.kill()


def ask(gateway, key=None, **more):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return gateway.http.post(ROUTE, json=CHAT | more, headers=headers)


def test_a_key_lets_in_names_who_pays_and_can_be_revoked(start, tmp_path):
    path = tmp_path / "keys.toml"
    key_id, secret = new_key(path, "acme", "--models", "gpt-*,mistral-7b", "--note", "the tests'")
    assert secret.startswith("tg-") and secret not in path.read_text(), "only its digest is kept"
    assert path.stat().st_mode & 0o077 == 0
    gateway = start(keys=path)
    for wrong in (None, "tg-wrong", secret[:-1]):
        refused = ask(gateway, wrong)
        assert refused.status_code == 401 and refused.json()["error"]["code"] == "unauthorized"
        assert secret[:-1] not in refused.text
    assert gateway.http.get("/v1/models").status_code == 401
    client = gateway.openai.with_options(api_key=secret)
    answer = client.chat.completions.with_raw_response.create(**CHAT, user="somebody")
    attributes = gateway.root_span(answer.headers["x-tollgate-trace-id"])["attributes"]
    assert attributes["tollgate.tenant"] == "acme" and attributes["llm.user"] == "somebody"
    assert attributes["tollgate.key.id"] == key_id
    assert {model.id for model in client.models.list()} == {"gpt-4o-mini", "gpt-3.5-turbo", "mistral-7b"}
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**CHAT | {"model": "llama-3-8b"})
    assert key_id in key_command("list", "--keys-file", path) and "the tests'" in key_command("list", "--keys-file", path)
    key_command("revoke", "--keys-file", path, key_id)
    until(lambda: ask(gateway, secret).status_code == 401, what="the revocation")
    assert "revoked" in key_command("list", "--keys-file", path)
    _, other = new_key(path, "globex")
    until(lambda: ask(gateway, other).status_code == 200, what="the new key")
    assert "no key" in key_command("revoke", "--keys-file", path, "nobody", status=1).lower()
    # Strangers leave nothing in the ledger.
    assert all(span["attributes"].get("http.response.status_code") != 401 for span in gateway.spans())


def test_keys_of_the_environment_and_who_listens_where(start, tmp_path):
    gateway = start(env={"TOLLGATE_KEYS": "acme:a-secret-of-the-environment"})
    assert ask(gateway).status_code == 401
    assert ask(gateway, "a-secret-of-the-environment").status_code == 200
    listen = ["--listen", f"0.0.0.0:{free_port()}", "--data-dir", tmp_path / "open", "--plugins", tmp_path]
    refused = subprocess.run([PROGRAM, "serve", *listen], capture_output=True, text=True, timeout=60, env=environment())
    assert refused.returncode == 1 and "--anonymous" in refused.stderr and "tollgate key create" in refused.stderr


def test_limits_refuse_tell_and_are_on_record(start, tmp_path):
    path = tmp_path / "keys.toml"
    _, secret = new_key(path, "acme", "--requests-per-minute", "2")
    gateway = start(keys=path)
    first = ask(gateway, secret)
    assert first.headers["x-ratelimit-limit-requests"] == "2" and first.headers["x-ratelimit-remaining-requests"] == "1"
    assert "ratelimit-policy" in first.headers and "ratelimit" in first.headers
    assert ask(gateway, secret).status_code == 200
    with pytest.raises(openai.RateLimitError) as raised:
        gateway.openai.with_options(api_key=secret).chat.completions.create(**CHAT)
    refused = raised.value.response
    assert raised.value.code == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 60 and refused.headers["x-ratelimit-remaining-requests"] == "0"
    root = gateway.root_span(refused.headers["x-tollgate-trace-id"])
    (event,) = root["events"]
    assert event["name"] == "rate_limit.applied"
    assert event["attributes"]["tollgate.limit.scope"] == "key" and event["attributes"]["tollgate.limit.of"] == "requests"
    assert root["attributes"]["http.response.status_code"] == 429 and root["attributes"]["tollgate.tenant"] == "acme"


def test_tokens_are_reserved_before_and_settled_after(start, tmp_path):
    path = tmp_path / "keys.toml"
    replace_file(path, '[[tenant]]\nname = "acme"\n[tenant.limits]\ntokens-per-minute = 2000\n')
    _, secret = new_key(path, "acme")
    gateway = start(keys=path)
    too_much = ask(gateway, secret, model="mistral-7b", messages=[{"role": "user", "content": "word " * 10}], max_tokens=1000)
    assert too_much.status_code == 200
    used = too_much.json()["usage"]["total_tokens"]
    left = int(ask(gateway, secret).headers["x-ratelimit-remaining-tokens"])
    assert left > 2000 - 1000, f"of 1,000 that were reserved {used} were used, the rest came back: {left}"
    never = ask(gateway, secret, max_tokens=None, model="gpt-4o-mini")
    assert never.status_code in (200, 429)


def test_places_are_freed_when_requests_end(start, tmp_path):
    path = tmp_path / "keys.toml"
    _, secret = new_key(path, "acme", "--concurrent", "1")
    gateway = start(keys=path)
    headers = {"authorization": f"Bearer {secret}"}
    # Its text would end long before the second request on a fast machine.
    long = CHAT | {"stream": True, "max_tokens": 900, "ignore_eos": True}
    with gateway.http.stream("POST", ROUTE, json=long, headers=headers) as answer:
        # Kept, since an iterator that is let go closes the connection.
        lines = answer.iter_lines()
        next(lines)
        second = ask(gateway, secret)
        assert second.status_code == 429 and "at the same time" in second.json()["error"]["message"]
    until(lambda: ask(gateway, secret).status_code == 200, what="the place of the one that left")


def test_the_key_with_the_higher_priority_is_served_first(start, tmp_path):
    path = tmp_path / "keys.toml"
    # Of one tenant: between two the one that was served least would come first anyhow.
    _, usual = new_key(path, "acme")
    urgent_id, urgent = new_key(path, "acme")
    replace_file(path, path.read_text().replace(f'id = "{urgent_id}"', f'id = "{urgent_id}"\npriority = 10'))
    port = free_port()
    gateway = start(keys=path, arguments=["--max-running", "1", "--admin-listen", f"127.0.0.1:{port}"])
    admin = Admin(gateway, port, None)
    long = CHAT | {"stream": True, "max_tokens": 900, "ignore_eos": True}
    headers = {"authorization": f"Bearer {usual}"}

    def one(name, key):
        answer = ask(gateway, key)
        assert answer.status_code == 200
        # Answers leave when they are on record, several at a time: what tells the order is when a prompt was read.
        trace = answer.headers["x-tollgate-trace-id"]
        gateway.root_span(trace)
        (read,) = [span for span in gateway.spans(trace) if span["name"] == "inference.prefill"]
        return read["start_time_ns"], name

    with ThreadPoolExecutor(4) as pool, gateway.http.stream("POST", ROUTE, json=long, headers=headers) as answer:
        lines = answer.iter_lines()
        next(lines)
        jobs = [pool.submit(one, "usual", usual) for _ in range(3)]
        until(lambda: admin.value("vllm:num_requests_waiting") == 3, what="three that wait")
        jobs.append(pool.submit(one, "urgent", urgent))
        until(lambda: admin.value("vllm:num_requests_waiting") == 4, what="one more that waits")
        answer.close()
        served = sorted(job.result() for job in jobs)
    assert [name for _, name in served] == ["urgent", "usual", "usual", "usual"]


def budget(path, amount, **more):
    words = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    text = path.read_text() if path.exists() else ""
    replace_file(path, f'{text}\n[[tenant]]\nname = "acme"\n[[tenant.budget]]\namount = "{amount}"\ncurrency = "USD"\n{words}')


def test_each_budget_that_is_nearly_spent_warns(start, tmp_path):
    path = tmp_path / "keys.toml"
    _, secret = new_key(path, "acme")
    of = '[[tenant.budget]]\namount = "{}"\ncurrency = "USD"\nper = "{}"\nsoft = 0.0001\n'
    replace_file(path, f'{path.read_text()}\n[[tenant]]\nname = "acme"\n{of.format("0.001", "day")}{of.format("0.002", "month")}')
    gateway = start(keys=path)
    ask(gateway, secret)
    warned = ask(gateway, secret).headers.multi_items()
    told = [value.split(";")[1:3] for name, value in warned if name == "x-tollgate-budget-warning"]
    assert told == [["per=day", "amount=0.001"], ["per=month", "amount=0.002"]]


def test_a_budget_warns_stops_and_survives_a_restart(start, tmp_path):
    path = tmp_path / "keys.toml"
    _, secret = new_key(path, "acme")
    gateway = start(keys=path)
    price = Decimal(ask(gateway, secret).json()["cost"]["amount"])
    gateway.stop()
    # Four requests fit, one of which has been; the soft threshold is after the second.
    budget(path, format(price * 4, "f"), per="day", soft=0.5, hard=True)
    gateway = start(keys=path)
    second = ask(gateway, secret)
    assert second.status_code == 200
    third = ask(gateway, secret)
    assert third.status_code == 200 and "x-tollgate-budget-warning" in third.headers
    root = gateway.root_span(third.headers["x-tollgate-trace-id"])
    assert [e["name"] for e in root["events"] if "budget" in e["name"]] == ["tollgate.budget.soft_threshold"]
    assert ask(gateway, secret).status_code == 200
    spent = ask(gateway, secret)
    assert spent.status_code == 429 and spent.json()["error"]["code"] == "insufficient_quota"
    assert spent.headers["x-should-retry"] == "false"
    gateway.kill()
    again = start(keys=path)
    assert ask(again, secret).status_code == 429, "the ledger knows what was spent"


def test_a_budget_that_is_new_knows_what_was_spent(start, tmp_path):
    path = tmp_path / "keys.toml"
    _, secret = new_key(path, "acme")
    gateway = start(keys=path)
    costs = [Decimal(ask(gateway, secret).json()["cost"]["amount"]) for _ in range(30)]
    budget(path, format(max(costs) * 40, "f"), per="month", hard=True)
    # These alone would not spend it.
    for _ in range(30):
        answer = ask(gateway, secret)
        if answer.status_code == 429:
            break
        time.sleep(0.5)
    assert answer.status_code == 429 and answer.json()["error"]["code"] == "insufficient_quota"


class Redis:
    """A Redis of our own; `tls` is the certificate that it shows and its key, if it speaks TLS."""

    def __init__(self, folder, tls=None):
        self.port = free_port()
        self._tls = tls is not None
        ports = ["--port", str(self.port)]
        if tls:
            certificate, key = tls
            ports = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no", "--tls-ca-cert-file", certificate]
            ports += ["--tls-cert-file", certificate, "--tls-key-file", key]
        self._command = ["redis-server", *ports, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self.start()

    def start(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        until(self._answers, what="Redis")

    def _answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                if self._tls:
                    return True
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def pause(self):
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self._process.send_signal(signal.SIGCONT)

    def stop(self):
        self._process.kill()
        self._process.wait()


@pytest.fixture
def redis(tmp_path):
    assert shutil.which("redis-server"), "install redis-server (Debian: redis-server)"
    server = Redis(tmp_path)
    yield server
    server.stop()


def test_two_gateways_share_one_limit(start, redis, tmp_path):
    path = tmp_path / "keys.toml"
    _, secret = new_key(path, "acme", "--requests-per-minute", "20")
    env = {"TOLLGATE_REDIS_URL": f"redis://127.0.0.1:{redis.port}"}
    gateways = [start(name, keys=path, env=env, plugins=()) for name in ("one", "two")]
    began = time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        asked = [pool.submit(ask, gateways[i % 2], secret, max_tokens=1) for i in range(64)]
        statuses = [future.result().status_code for future in asked]
    # What flows out of the bucket meanwhile, and nothing more.
    flowed = int((time.monotonic() - began) * 20 / 60) + 1
    assert 20 <= statuses.count(200) <= 20 + flowed and set(statuses) == {200, 429}, statuses


@pytest.mark.parametrize("away, status", [("local", 200), ("open", 200), ("closed", 503)])
def test_redis_that_is_away_costs_what_was_chosen(start, redis, tmp_path, away, status):
    path = tmp_path / "keys.toml"
    _, secret = new_key(path, "acme", "--requests-per-minute", "1000")
    env = {"TOLLGATE_REDIS_URL": f"redis://127.0.0.1:{redis.port}"}
    gateway = start(keys=path, env=env, arguments=["--redis-away", away])
    assert ask(gateway, secret).status_code == 200
    redis.pause()
    answer = ask(gateway, secret)
    assert answer.status_code == status
    redis.go_on()
    redis.stop()
    answer = ask(gateway, secret)
    assert answer.status_code == status
    root = gateway.root_span(answer.headers["x-tollgate-trace-id"])
    if status == 200:
        assert root["attributes"]["tollgate.limits.degraded"] == away
    else:
        assert answer.json()["error"]["code"] == "limits_unavailable" and "retry-after" in answer.headers
    redis.start()

    def together_again():
        answer = ask(gateway, secret)
        span = gateway.root_span(answer.headers["x-tollgate-trace-id"])
        return answer.status_code == 200 and "tollgate.limits.degraded" not in span["attributes"]

    until(together_again, seconds=20, what="Redis to be used again")
