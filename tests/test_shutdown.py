"""SIGTERM and SIGINT let what is in flight finish, put it on record, and end cleanly."""

import signal
import time

import httpx
import pytest

from conftest import free_port, read_events, until

LONG = {"model": "mistral-7b", "prompt": "Tell me everything about spans.", "max_tokens": 400, "temperature": 1.2, "seed": 1}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_running_stream_is_finished(start_gateway, number):
    gateway = start_gateway()
    with gateway.http.stream("POST", "/v1/completions", json=LONG | STREAMED) as stream:
        lines = stream.iter_lines()
        next(lines)
        gateway.process.send_signal(number)
        events = read_events(lines)
    assert events[-1]["cost"]["status"] == "priced"
    gateway.stop(number)
    spans = gateway.spans(events[-1]["trace_id"])
    assert len(spans) == 5
    (root,) = [span for span in spans if span["name"] == "inference.request"]
    assert root["attributes"]["tollgate.outcome"] == "completed"
    assert root["attributes"]["tollgate.cost.amount"] == events[-1]["cost"]["amount"]


def test_what_does_not_finish_in_time_is_on_record_as_our_doing(start_gateway, in_background):
    metrics = f"127.0.0.1:{free_port()}"
    gateway = start_gateway(arguments=["--drain-seconds", "0", "--admin-listen", metrics])
    count = 24

    def ask(seed):
        body = LONG | {"seed": seed}
        answer = httpx.post(f"{gateway.url}/v1/completions", json=body, timeout=60, trust_env=False)
        assert answer.status_code == 200 or answer.json()["error"]["code"] == "shutting_down", answer.text

    asking = [in_background(ask, seed) for seed in range(count)]

    def all_are_in():
        text = httpx.get(f"http://{metrics}/metrics", trust_env=False).text
        return f"\ntollgate_ledger_started_total {count}\n" in text

    until(all_are_in, what="all requests on record")
    gateway.stop(status=1)
    for thread in asking:
        thread.join()
    roots = [span["attributes"] for span in gateway.spans() if span["name"] == "inference.request"]
    assert len(roots) == count
    cut_off = [root for root in roots if root["tollgate.outcome"] != "completed"]
    assert cut_off, "everything had finished already"
    for root in cut_off:
        assert (root["tollgate.outcome"], root["error.type"]) == ("failed", "shutting_down")
        assert root["tollgate.cost.status"] in ("priced", "unpriced")


def test_everything_answered_is_in_the_file(start_gateway):
    gateway = start_gateway()
    traces = {gateway.complete(max_tokens=1)["trace_id"] for _ in range(50)}
    gateway.stop()
    spans = gateway.spans()
    assert {span["trace_id"] for span in spans} == traces and len(spans) == 5 * len(traces)


def test_no_new_request_is_taken_while_draining(start_gateway, in_background):
    gateway = start_gateway()
    with gateway.http.stream("POST", "/v1/completions", json=LONG | STREAMED) as stream:
        lines = stream.iter_lines()
        next(lines)
        gateway.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        if gateway.process.poll() is None:
            try:
                late = httpx.post(f"{gateway.url}/v1/completions", json=LONG | {"max_tokens": 1}, trust_env=False)
                assert late.status_code in (200, 503)
            except httpx.TransportError:
                pass  # not accepted any more
        read_events(lines)
    gateway.stop()


def test_an_idle_connection_does_not_hold_it_up(start_gateway):
    gateway = start_gateway()
    gateway.complete(max_tokens=1)  # leaves its connection open in the pool
    began = time.monotonic()
    gateway.stop()
    assert time.monotonic() - began < 10


def test_a_new_process_goes_on_in_the_same_file(start_gateway):
    first = start_gateway()
    before = first.complete(max_tokens=1)["trace_id"]
    first.stop()
    second = start_gateway(data=first.data)
    after = second.complete(max_tokens=1)["trace_id"]
    second.stop()
    assert {span["trace_id"] for span in first.spans()} == {before, after}
