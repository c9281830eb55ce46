"""Prices come from plugins: exact to the last digit, replaced under load, and never at the mercy of a bad one."""

import hashlib
import os
import shutil
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest

from conftest import ROOT, Gateway, component, exact, read_events, replace_file, until

# The tutorial's table, USD per 1 000 tokens; `default` is reached by the served model's own name.
TABLE = {
    "gpt-3.5-turbo": ("0.0005", "0.0015"),
    "gpt-4o-mini": ("0.00015", "0.0006"),
    "mistral-7b": ("0.00010", "0.00020"),
    "llama-3-8b": ("0.00010", "0.00020"),
    "default": ("0.00020", "0.00040"),
}
COUNTS = [(1, 1), (2, 7), (13, 3), (64, 16), (101, 40)]
COMPONENT_BUILD = Path(
    os.environ.get("TOLLGATE_COMPONENT_BUILD", ROOT / "target/component/wasm32-wasip1/release/cost_per_token.wasm")
)


def price(model, answer, factor=1):
    per_input, per_output = (Decimal(text) * factor / 1000 for text in TABLE[model])
    return answer["prompt_tokens"] * per_input + answer["completion_tokens"] * per_output


def served_name(gateway):
    return gateway.http.get("/v1/models").json()["data"][0]["root"]


def manifest(factor=1, order=0, more=""):
    """`plugins.toml` with the table's prices times `factor`."""

    def prices(row):
        return ", ".join(f'{k} = "${Decimal(v) * factor}/1k"' for k, v in zip(("input", "output"), TABLE[row], strict=True))

    models = ", ".join(f'{{ match = "{row}", {prices(row)} }}' for row in TABLE if row != "default")
    config = f"{{ models = [{models}], default = {{ {prices('default')} }} }}"
    return f'[[plugin]]\nfile = "cost-per-token.wasm"\norder = {order}\nconfig = {config}\n{more}'


@pytest.mark.parametrize("row", TABLE)
@pytest.mark.parametrize(("prompt_tokens", "max_tokens"), COUNTS)
def test_exact_cost_of_each_row(gateway, row, prompt_tokens, max_tokens):
    model = served_name(gateway) if row == "default" else row
    body = {"model": model, "prompt": [65] * prompt_tokens, "max_tokens": max_tokens, "temperature": 1.0, "seed": 11}
    # Each for a tenant of its own, so that nobody finds what another has read.
    payers = (f"{kind}-{row}-{prompt_tokens}" for kind in ("plain", "streamed"))
    answer = gateway.complete(**body | {"user": next(payers)})
    assert answer["prompt_tokens"] == prompt_tokens and 0 < answer["completion_tokens"] <= max_tokens
    expected = price(row, answer)
    assert answer["estimated_cost_usd"] == expected
    assert Decimal(answer["cost"]["amount"]) == expected
    assert (answer["cost"]["status"], answer["cost"]["currency"]) == ("priced", "USD")
    assert "e" not in answer["cost"]["amount"].lower() and not answer["cost"]["amount"].endswith("0")
    streamed = body | {"stream": True, "stream_options": {"include_usage": True}, "user": next(payers)}
    with gateway.http.stream("POST", "/v1/completions", json=streamed) as stream:
        last = read_events(stream.iter_lines())[-1]
    assert last["cost"] == answer["cost"] and last["usage"] == answer["usage"]


def test_the_cost_says_which_build_computed_it(gateway):
    answer = gateway.complete()
    plugin = answer["cost"]["plugin"]
    assert plugin["name"].endswith("cost-per-token") and plugin["version"]
    assert plugin["digest"] == digest(component("cost-per-token").read_bytes())
    attributes = gateway.root_span(answer["trace_id"])["attributes"]
    assert attributes["tollgate.cost.amount"] == answer["cost"]["amount"]
    assert attributes["tollgate.cost.plugin.digest"] == plugin["digest"]
    assert attributes["llm.estimated_cost_usd"] == float(answer["estimated_cost_usd"])


def digest(content):
    return hashlib.sha256(content).hexdigest()


class Load:
    """Clients that ask without a pause, and every answer they got, in the order it was asked for."""

    def __init__(self, gateway, clients=4):
        self.answers, self._gateway, self._stop = [], gateway, threading.Event()
        self._failures = []
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, number):
        models = [row for row in TABLE if row != "default"]
        while not self._stop.is_set():
            model = models[number % len(models)]
            body = {"model": model, "prompt": "Price this.", "max_tokens": 3}
            try:
                response = self._gateway.http.post("/v1/completions", json=body)
                answer = exact(response)
                assert response.status_code == 200, response.text
                assert answer["cost"]["status"] == "priced", answer
                self.answers.append((model, answer))
            except Exception as failure:  # noqa: BLE001 - told to the test
                self._failures.append(failure)
                return

    def check(self, *factors):
        """Every answer so far has exactly one of the prices; which ones have been seen."""
        assert not self._failures, self._failures[0]
        seen = []
        for model, answer in list(self.answers):
            fitting = [f for f in factors if answer["estimated_cost_usd"] == price(model, answer, f)]
            assert fitting, f"{answer['estimated_cost_usd']} for {model} {answer['usage']} is neither price"
            seen.append(fitting[0])
        return seen

    def more(self, count=20):
        """Waits for that many further answers."""
        goal = len(self.answers) + count
        until(lambda: self._failures or len(self.answers) >= goal, 60, "more answers")


def test_a_new_price_list_under_load(start_gateway):
    gateway = start_gateway(plugins_toml=manifest(1))
    with Load(gateway) as load:
        load.more()
        assert set(load.check(1)) == {1}
        for old, new in ((1, 2), (2, 1), (1, 2)):
            before = len(load.answers)
            replace_file(gateway.plugins / "plugins.toml", manifest(new))
            until(lambda new=new, before=before: new in load.check(1, 2)[before:], 30, "the new price")
            load.more(8)  # what was admitted before the change may still be under way
            settled = len(load.answers)
            load.more()
            assert set(load.check(1, 2)[settled:]) == {new}, f"only the new price is used after {old} became {new}"
    assert len(load.check(1, 2)) > 100


def test_a_new_build_under_load(start_gateway):
    gateway = start_gateway(plugins=["cost-per-token"])
    file = gateway.plugins / "cost-per-token.wasm"
    first = component("cost-per-token").read_bytes()
    # A section that says nothing makes another build of it.
    contents = [first, first + b"\0\x05\x04note"]
    if COMPONENT_BUILD.is_file():
        contents.append(COMPONENT_BUILD.read_bytes())
    builds = {digest(content): content for content in contents}
    with Load(gateway) as load:
        load.more()
        for wanted, content in list(reversed(builds.items())) + list(builds.items()):
            replace_file(file, content)
            until(lambda wanted=wanted: last_digest(load) == wanted, 30, "an answer by the new build")
            load.more()
        load.check(1)
    assert {answer["cost"]["plugin"]["digest"] for _, answer in load.answers} == set(builds)


def last_digest(load):
    return load.answers and load.answers[-1][1]["cost"]["plugin"]["digest"]


def test_what_cargo_component_builds_prices_the_same(start_gateway):
    if not COMPONENT_BUILD.is_file():
        skip_unless_required()
    gateway = start_gateway(plugins=[])
    shutil.copyfile(COMPONENT_BUILD, gateway.plugins / "cost-per-token.wasm")
    answer = until(lambda: (a := gateway.complete())["cost"]["status"] == "priced" and a, 30, "a price")
    assert answer["cost"]["plugin"]["digest"] == digest(COMPONENT_BUILD.read_bytes())
    assert answer["estimated_cost_usd"] == price("mistral-7b", answer)


def skip_unless_required():
    """`cargo xtask test` names the file, and then it has to be there."""
    assert "TOLLGATE_COMPONENT_BUILD" not in os.environ, f"{COMPONENT_BUILD} is missing"
    pytest.skip(f"{COMPONENT_BUILD} is missing: `cargo xtask test component` builds it")


# What it does in every call, and a word of the reason for which it is refused.
HOSTILE_ACTS = {
    "loop": "deadline",
    "memory-bomb": "",
    "trap": "trap",
    "panic": "trap",
    "recursion": "",
    "exit": "",
    "greatest-amounts": "overflow",
    "least-amounts": "overflow",
    "huge-error": "too_large",
    "many-lines": "",
    "bad-currency": "",
}

# What it does only after it was taken in, or does in due form, and the kinds of fault that may follow.
LATER_ACTS = {
    'act = "error"': {"reported"},
    'act = "trap-at", n = 4': {"trap", "unavailable", "breaker_open"},
}


def hostile(file, act):
    # In this role alone: an instance counts its calls in all of them, and how many spans it is shown is not told.
    more = f'[[plugin]]\nfile = "{file}"\norder = -1\nroles = ["cost-model"]\nconfig = {{ {act}, on = "price" }}\n'
    return manifest(more=more)


@pytest.fixture(scope="module")
def besieged(tmp_path_factory):
    """A gateway that goes through every hostile act, one after the other."""
    gateway = Gateway(tmp_path_factory.mktemp("besieged"), plugins=["cost-per-token"], plugins_toml=manifest())
    try:
        yield gateway.wait_until_ready()
        gateway.stop()
    finally:
        gateway.kill()


@pytest.fixture
def intruder(besieged):
    """Puts a file into the plugin folder, and takes it out again."""
    files = []

    def put(name, content, act=None):
        files.append(besieged.plugins / name)
        if act:
            replace_file(besieged.plugins / "plugins.toml", hostile(name, act))
        replace_file(files[-1], content)

    yield put
    for file in files:
        file.unlink()
    replace_file(besieged.plugins / "plugins.toml", manifest())
    until(lambda: priced_by_table(besieged), 30, "the usual price once it is gone")


def priced_by_table(gateway):
    answer = gateway.complete()
    return answer["cost"]["status"] == "priced" and answer["estimated_cost_usd"] == price("mistral-7b", answer)


def complaint(gateway, file):
    """What the log says of a file."""
    return next((line for line in gateway.log().splitlines() if file in line and "refused" in line), None)


@pytest.mark.parametrize("act", HOSTILE_ACTS)
def test_a_hostile_plugin_is_refused_before_it_prices_anything(besieged, intruder, act):
    file = f"hostile-{act}.wasm"
    intruder(file, component("hostile").read_bytes(), f'act = "{act}"')

    def refused():
        assert priced_by_table(besieged), "the others go on pricing"
        return complaint(besieged, file)

    assert HOSTILE_ACTS[act] in until(refused, 30, f"a word about {file} in the log")


@pytest.mark.parametrize("act", LATER_ACTS)
def test_one_that_turns_hostile_costs_its_own_answers_only(besieged, intruder, act):
    file = f"later-{list(LATER_ACTS).index(act)}.wasm"
    intruder(file, component("hostile").read_bytes(), act)

    def failed():
        answer = besieged.complete()
        assert answer["text"] and answer["completion_tokens"] > 0, "every request is served"
        assert answer["cost"]["status"] in ("priced", "plugin_failed")
        return answer["cost"]["status"] == "plugin_failed" and answer

    answer = until(failed, 30, "plugin_failed")
    assert answer["estimated_cost_usd"] is None, "no silent zero"
    assert answer["cost"]["plugin"]["name"] == "tollgate/hostile"
    assert answer["cost"]["reason"] in LATER_ACTS[act]
    attributes = besieged.root_span(answer["trace_id"])["attributes"]
    assert attributes["tollgate.cost.status"] == "plugin_failed"
    assert attributes["tollgate.cost.reason"] == answer["cost"]["reason"]
    assert "llm.estimated_cost_usd" not in attributes


JUNK = {"empty": b"", "text": b"not wasm", "core": b"\0asm\x01\0\0\0", "zeros": bytes(1 << 20)}


@pytest.mark.parametrize("kind", JUNK)
def test_what_is_no_plugin_changes_nothing(besieged, intruder, kind):
    intruder(f"junk-{kind}.wasm", JUNK[kind])
    until(lambda: complaint(besieged, f"junk-{kind}.wasm"), 30, "a word about it in the log")
    assert priced_by_table(besieged)


def test_a_broken_price_list_keeps_the_last_good_one(start_gateway):
    gateway = start_gateway(plugins=["cost-per-token"], plugins_toml=manifest(2))
    answer = gateway.complete()
    assert answer["estimated_cost_usd"] == price("mistral-7b", answer, 2)
    for broken in ('[[plugin]]\nfile = "cost-per-token.wasm"\nconfig = { default = { input = "cheap" } }\n', "[[plugin"):
        seen = len(gateway.log())
        replace_file(gateway.plugins / "plugins.toml", broken)
        until(lambda seen=seen: "plugins.toml" in gateway.log()[seen:] or "cost-per-token" in gateway.log()[seen:], 30, "a complaint")
        answer = gateway.complete()
        assert answer["estimated_cost_usd"] == price("mistral-7b", answer, 2)


def test_without_plugins_requests_are_served_and_say_so(start_gateway):
    gateway = start_gateway(plugins=[])
    answer = gateway.complete()
    assert answer["estimated_cost_usd"] is None
    assert answer["cost"] == {"status": "unpriced", "reason": "no_cost_plugin"}


def test_between_requests_nothing_wakes_for_plugins(start_gateway):
    """What polices guests counts milliseconds, and rests while there are none."""
    gateway = start_gateway()

    def wakes():
        tasks = Path(f"/proc/{gateway.process.pid}/task").iterdir()
        (clock,) = [task for task in tasks if (task / "comm").read_text().strip() == "tollgate-epoch"]
        status = dict(line.split(":") for line in (clock / "status").read_text().splitlines())
        return int(status["voluntary_ctxt_switches"])

    def rests():
        before = wakes()
        time.sleep(1)
        return wakes() - before < 20

    # An instance has a second to start, half of which is watched however soon it is done.
    until(rests, 20, "rest")
    before = wakes()
    assert gateway.complete()["cost"]["status"] == "priced"
    until(lambda: wakes() - before > 2, 5, "watch")
    until(rests, 20, "rest after a request")


def containing(entry, rest=""):
    """`plugins.toml` with the price list and an entry for a hostile plugin that is asked first."""
    return manifest(more=f'[[plugin]]\nfile = "hostile.wasm"\norder = -1\n{entry}\n{rest}')


# Its trial is three calls, one for each of its roles, and every fourth call of an instance traps.
TRAPS = 'roles = ["cost-model"]\nconfig = { act = "trap-at", n = 4, on = "price" }'


def test_a_plugin_that_goes_on_failing_is_left_alone(start_gateway):
    gateway = start_gateway(plugins=["cost-per-token", "hostile"], plugins_toml=containing(TRAPS))
    seen = []

    def asked_no_more():
        answer = gateway.complete(max_tokens=2)
        seen.append(answer["cost"].get("reason"))
        return seen[-1] == "breaker_open" and answer

    answer = until(asked_no_more, 60, "breaker_open")
    assert seen.count("trap") >= 5, seen
    assert answer["estimated_cost_usd"] is None and answer["cost"]["status"] == "plugin_failed"
    event = failure_on_span(gateway, answer)
    assert event["tollgate.plugin.role"] == "cost-model" and event["tollgate.plugin.fault.kind"] == "breaker_open"
    assert event["tollgate.plugin.digest"] == digest(component("hostile").read_bytes())
    assert "trap" in event["tollgate.plugin.fault.message"], "it says what went wrong before"
    # It is tried again by itself, and its failures are its own: what it is not for is priced as ever.
    replace_file(gateway.plugins / "plugins.toml", containing(TRAPS + '\nmatch = { models = ["gpt-*"] }'))
    until(lambda: priced_by_table(gateway), 30, "the usual price")


def failure_on_span(gateway, answer):
    events = gateway.root_span(answer["trace_id"])["events"]
    return next(event["attributes"] for event in events if event["name"] == "tollgate.plugin.failed")


def test_requests_that_cannot_be_priced_are_refused_if_the_operator_says_so(start_gateway):
    gateway = start_gateway(
        plugins=["cost-per-token", "hostile"], plugins_toml=containing(f'{TRAPS}\non-failure = "closed"')
    )

    def refused():
        response = gateway.http.post("/v1/completions", json={"model": "mistral-7b", "prompt": "x", "max_tokens": 1})
        return response.status_code != 200 and response

    response = until(refused, 60, "a refusal")
    assert response.status_code == 503 and int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["code"] == "pricing_unavailable"
    attributes = gateway.root_span(response.json()["trace_id"])["attributes"]
    assert attributes["tollgate.outcome"] == "refused" and attributes["error.type"] == "pricing_unavailable"


def test_a_bad_new_build_is_rolled_back(start_gateway):
    gateway = start_gateway(plugins=["cost-per-token"])
    good = digest(component("cost-per-token").read_bytes())
    file = gateway.plugins / "cost-per-token.wasm"
    # The old build does not take the new one's settings, and goes on with its own.
    replace_file(gateway.plugins / "plugins.toml", f'[[plugin]]\nfile = "{file.name}"\n{TRAPS}\n')
    replace_file(file, component("hostile").read_bytes())
    used = []

    def rolled_back():
        answer = gateway.complete(max_tokens=2)
        used.append(answer["cost"]["plugin"]["digest"])
        return len(set(used)) == 2 and used[-1] == good

    until(rolled_back, 60, "the old build after the new one")
    assert "plugin rolled back" in gateway.log()
    for _ in range(10):
        answer = gateway.complete(max_tokens=2)
        assert answer["cost"]["plugin"]["digest"] == good
        assert answer["estimated_cost_usd"] == price("mistral-7b", answer)


def test_a_shadow_is_on_no_bill(start_gateway):
    candidate = '[[plugin]]\nfile = "candidate.wasm"\norder = -9\nshadow = true\n'
    dear = 'config = { default = { input = "$1/1k", output = "$2/1k" } }\n'
    gateway = start_gateway(plugins=["cost-per-token"], plugins_toml=manifest(more=candidate + dear))
    shutil.copyfile(component("cost-per-token"), gateway.plugins / "candidate.wasm")
    until(lambda: 'file="candidate.wasm"' in gateway.log() or "candidate.wasm" in gateway.log(), 30, "the candidate")
    for _ in range(5):
        assert priced_by_table(gateway)
    # A shadow alone bills nothing.
    (gateway.plugins / "cost-per-token.wasm").unlink()
    answer = until(lambda: (a := gateway.complete())["cost"]["status"] == "unpriced" and a, 30, "unpriced")
    assert answer["cost"] == {"status": "unpriced", "reason": "no_cost_plugin"}


@pytest.mark.parametrize(("isolation", "shared"), [("plugin", True), ("tenant", False), ("batch", False)])
def test_what_one_tenant_leaves_behind_no_other_sees(start_gateway, isolation, shared):
    # Its cost is how often the instance was called.
    fickle = f'[[plugin]]\nfile = "hostile.wasm"\nroles = ["cost-model"]\nisolation = "{isolation}"\n'
    fickle += 'config = { act = "fickle" }\n'
    gateway = start_gateway(plugins=["hostile"], plugins_toml=fickle)

    def calls(tenant):
        return int(Decimal(gateway.complete(user=tenant, max_tokens=1)["cost"]["amount"]) * 10**12)

    seen = [calls(tenant) for tenant in ("acme", "acme", "other", "acme", "other")]
    first = seen[2]
    if shared:
        assert first == seen[1] + 1, "the fixture sees what was before, or this test shows nothing"
    else:
        assert seen == {"tenant": [1, 2, 1, 3, 2], "batch": [1] * 5}[isolation]


def test_a_failed_enricher_is_on_the_span(start_gateway):
    fails = 'roles = ["attribute-enricher"]\nconfig = { act = "trap-at", n = 4, on = "enrich" }'
    gateway = start_gateway(plugins=["cost-per-token", "hostile"], plugins_toml=containing(fails))

    def marked():
        answer = gateway.complete(max_tokens=1)
        assert answer["cost"]["status"] == "priced"
        events = gateway.root_span(answer["trace_id"])["events"]
        return any(event["name"] == "tollgate.plugin.failed" for event in events) and answer

    event = failure_on_span(gateway, until(marked, 60, "a failure on a span"))
    assert event["tollgate.plugin.role"] == "attribute-enricher"
    assert event["tollgate.plugin.name"] == "tollgate/hostile"
