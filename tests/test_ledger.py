"""What the ledger does to requests and to exporters when disks, receivers and processes fail."""

import json
import shutil
import subprocess
import threading

import httpx
import pytest

from backends import ANSWER, USAGE, begin_events, chunk, front, scripted, send_json, to
from conftest import PROGRAM, exact, read_events, until
from receivers import GrpcReceiver
from test_crash import ledger

FSYNC_FAILS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int fails(void) { const char *path = getenv("FSYNC_FAILS"); return path && access(path, F_OK) == 0; }
int fsync(int fd) { if (fails()) { errno = EIO; return -1; } return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { if (fails()) { errno = EIO; return -1; } return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"""


def ends(gateway):
    return {entry["trace_id"]: entry for entry in ledger(gateway) if entry["kind"] != "started"}


def ask(gateway, **more):
    body = {"model": "mistral-7b", "prompt": "What is a span?", "max_tokens": 4, **more}
    return gateway.http.post("/v1/completions", json=body)


def test_every_answer_is_on_record_as_it_was_told(start_gateway):
    gateway = start_gateway()
    plain = gateway.complete(user="tenant-acme", max_tokens=12)
    with gateway.http.stream(
        "POST", "/v1/completions", json={"model": "mistral-7b", "prompt": "Hi", "stream": True, "max_tokens": 12}
    ) as stream:
        streamed = read_events(stream.iter_lines())[-1]
    refused = ask(gateway, model="no-such-model")
    assert refused.status_code == 404
    found = ends(gateway)
    for answer in (plain, streamed):
        entry = found[answer["trace_id"]]
        told = (answer["cost"]["amount"], answer["prompt_tokens"], answer["completion_tokens"])
        assert (entry["amount"], entry["input_tokens"], entry["output_tokens"]) == told
        record = json.loads(entry["body"])
        assert record["trace"]["trace_id"] == answer["trace_id"], "ids are readable in the stored record"
        assert record["cost"]["plugin"]["digest"] == answer["cost"]["plugin"]["digest"]
    assert found[plain["trace_id"]]["tenant"] == "tenant-acme"
    entry = found[refused.headers["x-tollgate-trace-id"]]
    assert (entry["kind"], entry["outcome"], entry["cost_status"]) == ("refused", "refused", "unpriced")


LONG = {"model": "mistral-7b", "prompt": "Tell me everything about spans.", "max_tokens": 400, "ignore_eos": True, "temperature": 2.0, "stream": True}


def torn(gateway, lines, end):
    """Reads so many lines of a long stream, then does `end` to it; its trace and how many pieces came. Answers that were
    over before are asked for again with another seed."""
    for seed in range(20):
        with gateway.http.stream("POST", "/v1/completions", json=LONG | {"seed": seed}) as stream:
            trace, pieces = stream.headers["x-tollgate-trace-id"], 0
            for line in stream.iter_lines():
                pieces += line.startswith("data:")
                if "[DONE]" in line:
                    break
                if pieces == lines:
                    end(stream)
                    return trace, pieces
    raise AssertionError("no answer was long enough")


def test_a_client_that_leaves_is_billed_what_it_used(start_gateway):
    gateway = start_gateway()
    for _ in range(20):
        trace, seen = torn(gateway, 5, lambda stream: stream.close())
        entry = until(lambda: ends(gateway).get(trace), what="the end on record")
        if entry["outcome"] == "client_gone":
            break
    assert entry["outcome"] == "client_gone" and entry["cost_status"] == "priced"
    assert seen <= entry["output_tokens"] < 400


@pytest.mark.parametrize("durability", ["power", "process"])
def test_what_was_in_flight_is_aborted_and_priced(start_gateway, durability):
    arguments = ["--ledger-durability", durability]
    gateway = start_gateway(arguments=arguments)
    trace, seen = torn(gateway, 10, lambda _: gateway.kill())
    again = start_gateway(data=gateway.data, arguments=arguments)
    entry = ends(again)[trace]
    assert (entry["kind"], entry["outcome"], entry["cost_status"]) == ("aborted", "aborted", "priced")
    assert seen <= entry["output_tokens"] < 400
    span = again.root_span(trace)
    assert span["attributes"]["tollgate.outcome"] == "aborted" and span["status"] == "ERROR"
    assert span["attributes"]["tollgate.cost.amount"] == entry["amount"]
    assert "in flight" in again.log()


def test_with_other_plugins_what_was_in_flight_is_not_priced(start_gateway):
    gateway = start_gateway()
    trace, _ = torn(gateway, 1, lambda _: gateway.kill())
    again = start_gateway(data=gateway.data, plugins=["cost-device-seconds"])
    entry = ends(again)[trace]
    assert (entry["cost_status"], entry["amount"]) == ("unpriced", None)
    assert json.loads(entry["body"])["cost"]["reason"] == "plugins_changed"


def test_a_second_gateway_is_told_to_use_another_folder(start_gateway):
    gateway = start_gateway()
    second = start_gateway(data=gateway.data, ready=False)
    assert second.process.wait(30) == 1
    assert "in use by another process" in second.log()
    gateway.still_serves()


@pytest.fixture
def small_disk(tmp_path):
    """A folder that holds 24 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs is for root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("min_free", ["0", "4"], ids=["writes-fail", "reserve"])
def test_a_full_disk_refuses_requests_and_recovers(start_gateway, small_disk, tmp_path, min_free):
    # Its span file elsewhere, so that only the ledger is short of room.
    config = tmp_path / "tollgate.toml"
    spans = tmp_path / "spans.ndjson"
    config.write_text(f'[[exporter]]\nname = "ndjson"\nkind = "ndjson"\npath = "{spans}"\n')
    arguments = ["--config", config, "--ledger-min-free-mib", min_free, "--ledger-partition-mib", "2"]
    gateway = start_gateway(data=small_disk / "data", arguments=arguments)
    told = {gateway.complete()["trace_id"]}
    fill = small_disk / "fill"
    with fill.open("wb") as file:
        try:
            while True:
                file.write(b"x" * 65536)
                file.flush()
        except OSError:
            pass

    def refused():
        response = ask(gateway)
        if response.status_code == 200:
            told.add(exact(response)["trace_id"])
        return response if response.status_code == 503 else None

    response = until(refused, 30, "a refusal")
    assert response.json()["error"]["code"] == "record_unavailable", response.text
    assert int(response.headers["retry-after"]) > 0
    ready = gateway.http.get("/ready")
    assert ready.status_code == 503 and "space" in ready.json()["reason"], ready.text
    fill.unlink()
    until(lambda: gateway.http.get("/ready").status_code == 200, 60, "recovery")
    told.add(gateway.complete()["trace_id"])
    gateway.stop()
    assert told <= ends(gateway).keys()
    assert audit(gateway).returncode == 0


@pytest.fixture
def failing_fsync(tmp_path):
    """An environment in which fsync fails as long as the file is there."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "shim.c").write_text(FSYNC_FAILS)
    shim, switch = tmp_path / "shim.so", tmp_path / "fails"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, tmp_path / "shim.c", "-ldl"], check=True)
    return {"LD_PRELOAD": shim, "FSYNC_FAILS": switch}, switch


@pytest.mark.parametrize("form", ["plain", "streamed", "unknown"])
def test_another_servers_answer_that_cannot_be_recorded_has_no_good_end(front, scripted, failing_fsync, form):
    env, switch = failing_fsync
    asked, broken = threading.Event(), threading.Event()

    def script(connection, _):
        if form == "streamed":
            begin_events(connection)
            connection.sendall(chunk("Hello"))
        if form == "unknown":
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 20\r\n\r\n" + b"x" * 10)
        asked.set()
        broken.wait(60)
        if form == "streamed":
            connection.sendall(chunk(".", "stop") + chunk(usage=USAGE) + b"data: [DONE]\n\n")
        elif form == "unknown":
            connection.sendall(b"y" * 10)
        else:
            send_json(connection, ANSWER)

    gateway = front(to(scripted(script), models=["*"]), env=env)
    body = {"model": "mistral-7b", "messages": [{"role": "user", "content": "Hi"}], "stream": form == "streamed"}
    answers = []

    def ask():
        path = "/v1/audio/speech" if form == "unknown" else "/v1/chat/completions"
        try:
            answers.append(gateway.http.post(path, json=body))
        except httpx.TransportError as torn:
            answers.append(torn)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    assert asked.wait(30)
    until(lambda: ledger(gateway), what="the start on record")
    switch.touch()
    broken.set()
    asking.join(60)
    (answer,) = answers
    if form == "plain":
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "record_unavailable", answer.text
        assert "choices" not in answer.json()
    elif form == "streamed":
        assert "[DONE]" not in answer.text and '"code":"record_unavailable"' in answer.text, answer.text
        assert '"finish_reason": "stop"' not in answer.text.partition('"error"')[2]
    else:
        assert isinstance(answer, httpx.RemoteProtocolError), "what is cut off is no whole answer"
    switch.unlink()
    until(lambda: gateway.http.get("/ready").status_code == 200, 60, "recovery")
    # The end is owed, and put on record as the client was told of it.
    (entry,) = until(lambda: list(ends(gateway).values()), what="the end")
    assert entry["outcome"] == "failed"
    gateway.stop()
    assert audit(gateway).returncode == 0


def test_a_failing_fsync_acknowledges_nothing(start_gateway, failing_fsync):
    env, switch = failing_fsync
    gateway = start_gateway(env=env)
    told = {gateway.complete()["trace_id"]}
    switch.touch()
    assert ask(gateway).status_code == 503
    assert ask(gateway).json()["error"]["code"] == "record_unavailable"
    switch.unlink()
    until(lambda: gateway.http.get("/ready").status_code == 200, 60, "recovery")
    told.add(gateway.complete()["trace_id"])
    gateway.stop()
    assert told <= ends(gateway).keys()
    assert audit(gateway).returncode == 0


def test_a_damaged_page_is_found(start_gateway):
    gateway = start_gateway()
    answers = [gateway.complete(max_tokens=2) for _ in range(20)]
    gateway.stop()
    assert audit(gateway).returncode == 0
    (path,) = (gateway.data / "ledger").glob("*.sqlite")
    content = bytearray(path.read_bytes())
    place = content.find(answers[10]["id"].removeprefix("cmpl-").encode())
    assert place > 0
    content[place] ^= 1
    path.write_bytes(content)
    verified = audit(gateway)
    assert verified.returncode == 1 and path.name in verified.stdout + verified.stderr


def test_a_receiver_that_was_down_for_the_whole_run_gets_everything_later(start_gateway):
    with GrpcReceiver() as early:
        endpoint = early.endpoint
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    gateway = start_gateway(env=env)
    traces = {gateway.complete(max_tokens=1)["trace_id"] for _ in range(30)}
    gateway.stop()
    with GrpcReceiver(port=int(endpoint.rpartition(":")[2])) as receiver:
        again = start_gateway(data=gateway.data, env=env)
        traces.add(again.complete(max_tokens=1)["trace_id"])
        until(lambda: traces <= {span.trace_id for span in list(receiver.spans)}, 30, "all traces")
        again.stop()
    assert len(receiver.spans) == 5 * len(traces), "each span arrives once"
    order = list(dict.fromkeys(span.trace_id for span in receiver.spans))
    assert len(order) == len(traces)


def audit(gateway):
    return subprocess.run([PROGRAM, "audit", "verify", "--data-dir", gateway.data], capture_output=True, text=True, check=False)
