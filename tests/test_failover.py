"""Backends whose answers are none: what they cost, what is on record of them, and who is asked next."""

import collections
import json
import socket
import sqlite3

import pytest

from backends import ANSWER, USAGE, chunk, front, scripted, send_json, stream_of, to
from test_upstream import CHAT, LATER, ROUTE, amount, cost_of


def raw(answer):
    def script(connection, _):
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_RDWR)

    return script


def head(status="200 OK", length=None, more="content-type: application/json"):
    length = "" if length is None else f"content-length: {length}\r\n"
    return f"HTTP/1.1 {status}\r\n{more}\r\nconnection: close\r\n{length}\r\n".encode()


FAILED = json.dumps({"error": {"message": "out of memory", "type": "server_error", "param": None, "code": None}}).encode()
NO_ANSWERS = {
    "garbage": (head() + b'{"id": nope', 502),
    "cut": (head(length=5000) + json.dumps(ANSWER).encode()[:200], 502),
    "empty": (head(length=0), 502),
    "no object": (head(length=2) + b"[]", 502),
    "page": (head(length=6, more="content-type: text/html") + b"<html>", 502),
    "redirect": (head("307 Temporary Redirect", 2, "location: /elsewhere\r\ncontent-type: application/json") + b"{}", 502),
    "failed": (head("500 Internal Server Error", len(FAILED)) + FAILED, 500),
    # In the words of the server, which no status of ours could be truer to.
    "error": (head(length=len(FAILED)) + FAILED, 200),
}


@pytest.mark.parametrize("kind", NO_ANSWERS)
def test_what_is_no_answer_costs_nothing_and_has_the_status_that_was_sent(front, scripted, kind):
    sent, status = NO_ANSWERS[kind]
    gateway = front(to(scripted(raw(sent)), retries=0))
    answer = gateway.http.post(ROUTE, json=CHAT)
    assert answer.status_code == status and "error" in answer.json(), answer.text
    attributes = gateway.root_span(answer.headers["x-tollgate-trace-id"])["attributes"]
    assert attributes["http.response.status_code"] == status
    assert attributes["tollgate.outcome"] == "failed" and attributes["tollgate.cost.reason"] == "not_served"


def test_what_a_failed_answer_reports_is_billed(front, scripted):
    failed = b"data: " + FAILED + b"\n\n"
    server = scripted(lambda connection, _: stream_of(connection, chunk(usage=USAGE), failed))
    gateway = front(to(server, retries=0))
    answer = gateway.http.post(ROUTE, json=CHAT | {"stream": True})
    assert answer.status_code == 200 and "out of memory" in answer.text
    attributes = gateway.root_span(answer.headers["x-tollgate-trace-id"])["attributes"]
    assert attributes["tollgate.outcome"] == "failed" and amount(attributes) == cost_of("mistral-7b", 100, 20)


def in_ledger(gateway):
    """How often a request has begun and ended, by its trace."""
    found = collections.Counter()
    for path in (gateway.data / "ledger").glob("*.sqlite"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            found.update(db.execute("SELECT trace_id, kind = 'started' FROM entry").fetchall())
        db.close()
    return found


BETTER_ELSEWHERE = {
    "key": head("401 Unauthorized", 2) + b"{}",
    "forbidden": head("403 Forbidden", 2) + b"{}",
    "unknown": head("404 Not Found", 2) + b"{}",
    "slow": head("408 Request Timeout", 2) + b"{}",
    "failed": NO_ANSWERS["failed"][0],
    "edge": head("520 Web Server Returned an Unknown Error", 2) + b"{}",
    "cut": NO_ANSWERS["cut"][0],
    "no stream": head(more="content-type: text/event-stream"),
}


@pytest.mark.parametrize("next_is", ["another", "here"])
@pytest.mark.parametrize("kind", BETTER_ELSEWHERE)
def test_who_may_do_better_is_asked_once_and_on_record_once(front, scripted, kind, next_is):
    bad, good = scripted(raw(BETTER_ELSEWHERE[kind])), scripted(lambda connection, _: send_json(connection, ANSWER))
    tables = [to(bad, "bad", weight=9, retries=0)] + ([to(good, **LATER)] if next_is == "another" else [])
    gateway = front(*tables, arguments=["--model", "demo"] if next_is == "here" else [])
    traces = set()
    for _ in range(3):
        answer = gateway.http.post(ROUTE, json=CHAT)
        assert answer.status_code == 200 and answer.json()["choices"], answer.text
        traces.add(answer.headers["x-tollgate-trace-id"])
    assert len(bad.heads) >= 1 and len(good.heads) == (3 if next_is == "another" else 0)
    for trace in traces:
        root = gateway.root_span(trace)
        assert root["attributes"]["tollgate.cost.status"] == "priced"
        served = {"another": "elsewhere", "here": "tollgate"}[next_is]
        assert root["attributes"]["gen_ai.provider.name"] == served
        roots = [span for span in gateway.spans(trace) if span["name"] == root["name"]]
        assert len(roots) == 1, "one root span for each"
    assert in_ledger(gateway) == {(trace, started): 1 for trace in traces for started in (0, 1)}
