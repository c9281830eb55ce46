"""The plugin is replaced again and again under load: no request fails, none goes unpriced, and each is priced by the set
that it was admitted under, however often that was replaced before the request ended.

How that is told from outside: a version is the bundled component with other digits in its price list, so an answer names its
version twice, by the plugin's digest and by its amount. The one who swaps writes down when a version was put into the
folder and when the log said that it serves. Admission lies between the sending of a request and the arrival of its
first byte; a version that cannot have served within that time must not have priced it. Streams are read slowly, so that
many of them outlive the set they began with.

TOLLGATE_SWAPS says how often; `cargo xtask swaps` sets it.
"""

import hashlib
import json
import os
import random
import threading
import time
from decimal import Decimal

import httpx

from conftest import component, exact, replace_file, until

SWAPS = int(os.environ.get("TOLLGATE_SWAPS", "40"))
MODEL = "mistral-7b"
# Digits of the two prices, USD per 10 million tokens.
PRICES = [(1, 2), (3, 5), (7, 4), (9, 9), (2, 8)]


def build(prices):
    """The bundled component with another price list."""
    old = b'"mistral-7b", "input": "$0.0001/1k", "output": "$0.0002/1k"'
    content = component("cost-per-token").read_bytes()
    assert content.count(old) == 1, "the price list is not where this test looks for it"
    return content.replace(old, b'"mistral-7b", "input": "$0.000%d/1k", "output": "$0.000%d/1k"' % prices)


CONTENTS = [build(prices) for prices in PRICES]
DIGESTS = [hashlib.sha256(content).hexdigest() for content in CONTENTS]


class Swaps:
    """What served when, as far as one can tell from outside."""

    def __init__(self, gateway):
        self.gateway, self.terms = gateway, [[0, 0.0, time.monotonic()]]  # version, placed, seen
        self._log = (gateway.folder / "log.txt").open(errors="replace")
        self._log.read()

    def to(self, version):
        placed = time.monotonic()
        replace_file(self.gateway.plugins / "cost-per-token.wasm", CONTENTS[version])
        wanted, told = DIGESTS[version], []

        def serves():
            told.append(self._log.read())
            text = "".join(told)
            return "set swapped" in text.partition(wanted)[2]

        until(serves, 60, f"version {version} in the log")
        self.terms.append([version, placed, time.monotonic()])

    def may_have_served(self, sent, first):
        """The versions that may have admitted a request in this time."""
        found = set()
        for number, (version, placed, _) in enumerate(self.terms):
            over = self.terms[number + 1][2] if number + 1 < len(self.terms) else float("inf")
            if placed <= first and sent <= over:
                found.add(version)
        return found


class Client(threading.Thread):
    """Asks without a pause, in turn plain and streamed, and keeps what it was told."""

    def __init__(self, url, number, stop):
        super().__init__(daemon=True)
        self.http = httpx.Client(base_url=url, timeout=120, trust_env=False)
        self.stop, self.random = stop, random.Random(number)
        self.answers, self.failures, self.streams = [], [], number % 2 == 1

    def run(self):
        while not self.stop.is_set():
            body = {"model": MODEL, "prompt": "Price this." * self.random.randint(1, 4)}
            try:
                ask = self.streamed if self.streams else self.plain
                self.answers.append(ask(body))
            except Exception as failure:  # noqa: BLE001 - counted and told
                self.failures.append(failure)
                time.sleep(0.1)

    def plain(self, body):
        sent = time.monotonic()
        response = self.http.post("/v1/completions", json=body | {"max_tokens": 3})
        assert response.status_code == 200, response.text
        ended = time.monotonic()
        return sent, ended, ended, exact(response)

    def streamed(self, body):
        more = {"max_tokens": 100, "stream": True, "stream_options": {"include_usage": True}, "temperature": 1.0}
        sent, first, last = time.monotonic(), None, None
        with self.http.stream("POST", "/v1/completions", json=body | more) as stream:
            assert stream.status_code == 200, stream.read()
            # A client that is as slow as people read.
            patience = self.random.choice((0, 0.02, 0.06))
            for line in stream.iter_lines():
                if not line.startswith("data:"):
                    continue
                first = first or time.monotonic()
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return sent, first, time.monotonic(), last
                last = json.loads(data, parse_float=Decimal)
                time.sleep(patience)
        raise AssertionError(f"the stream ended without [DONE], after {last}")


def tokens(answer):
    usage = answer.get("usage") or {}
    pick = lambda name: usage.get(name, answer.get(name))  # noqa: E731
    return pick("prompt_tokens"), pick("completion_tokens")


def test_swaps_under_load(start_gateway):
    gateway = start_gateway(plugins=[], ready=False)
    replace_file(gateway.plugins / "cost-per-token.wasm", CONTENTS[0])
    gateway.wait_until_ready()
    until(lambda: gateway.complete()["cost"]["status"] == "priced", 30, "a first price")
    swaps, stop = Swaps(gateway), threading.Event()
    clients = [Client(gateway.url, number, stop) for number in range(6)]
    for client in clients:
        client.start()
    began = time.monotonic()
    try:
        for number in range(SWAPS):
            swaps.to((number + 1) % len(CONTENTS))
            time.sleep(clients[0].random.choice((0, 0.1, 0.4)))
        time.sleep(1)
    finally:
        stop.set()
    took = time.monotonic() - began
    for client in clients:
        client.join(120)
        assert not client.is_alive(), "a request hangs"
        client.http.close()

    failures = [failure for client in clients for failure in client.failures]
    answers = [answer for client in clients for answer in client.answers]
    unpriced = [a for *_, a in answers if a["cost"]["status"] != "priced"]
    wrong_amount, wrong_set, certain, outlived = [], [], 0, 0
    for sent, first, ended, answer in answers:
        if answer["cost"]["status"] != "priced":
            continue
        version = DIGESTS.index(answer["cost"]["plugin"]["digest"])
        (per_input, per_output), (prompt, completion) = PRICES[version], tokens(answer)
        expected = (prompt * per_input + completion * per_output) * Decimal("0.0000001")
        if Decimal(answer["cost"]["amount"]) != expected:
            wrong_amount.append((version, answer))
        may = swaps.may_have_served(sent, first)
        if version not in may:
            wrong_set.append((version, may, answer))
        certain += len(may) == 1
        # A version in force at admission, and another one for certain before the end.
        outlived += len(may) == 1 and any(placed > first and seen < ended for _, placed, seen in swaps.terms)
    told = {
        "test": "swaps",
        "swaps": SWAPS,
        "seconds": round(took, 1),
        "requests": len(answers),
        "failed": len(failures),
        "unpriced": len(unpriced),
        "wrong_amount": len(wrong_amount),
        "wrong_set": len(wrong_set),
        "set_certain": certain,
        "outlived_their_set": outlived,
    }
    print("\n" + json.dumps(told))
    assert not failures, failures[:3]
    assert not unpriced, unpriced[:3]
    assert not wrong_amount, wrong_amount[:3]
    assert not wrong_set, wrong_set[:3]
    assert len(answers) > SWAPS and outlived > 0 and certain > len(answers) // 10, told

    # What is on record is what the client was told.
    by_trace = {a["trace_id"]: a["cost"]["plugin"]["digest"] for *_, a in answers if "trace_id" in a}
    recorded = until(lambda: (r := on_record(gateway)) and by_trace.keys() <= r.keys() and r, 30, "all spans")
    assert all(recorded[trace] == digest for trace, digest in by_trace.items())


def on_record(gateway):
    roots = (span for span in gateway.spans() if span["name"] == "inference.request")
    return {span["trace_id"]: span["attributes"].get("tollgate.cost.plugin.digest") for span in roots}
