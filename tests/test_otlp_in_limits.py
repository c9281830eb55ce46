"""What received spans do to budgets and limits: they cost like requests that were served here, and none is refused. What
senders may send is limited by bytes, and said in the words of either protocol."""

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from conftest import free_port, until
from senders import chat, export, post, request, span
from test_otlp_passed import logs
from test_tenants import ask, budget, new_key, redis, start  # noqa: F401 - fixtures


def receiving(start, name="one", arguments=(), **more):  # noqa: F811
    port = free_port()
    gateway = start(name, arguments=["--otlp-listen", f"127.0.0.1:{port}", *arguments], **more)
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


def refused_over_grpc(gateway, message, **metadata):
    """The code of a refusal, and the seconds after which to come again, as gRPC tells them."""
    with grpc.insecure_channel(gateway.otlp.removeprefix("http://")) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            TraceServiceStub(channel).Export(message, timeout=30, metadata=tuple(metadata.items()))
    details = dict(refused.value.trailing_metadata()).get("grpc-status-details-bin")
    status, wait = Status.FromString(details), RetryInfo()
    assert status.code == refused.value.code().value[0] and status.message == refused.value.details()
    if not status.details:
        return refused.value.code(), None
    assert status.details[0].Unpack(wait)
    return refused.value.code(), wait.retry_delay.seconds


def test_a_sender_may_send_so_many_bytes_a_minute(start, tmp_path):  # noqa: F811
    path = tmp_path / "keys.toml"
    (_, loud), (_, quiet) = new_key(path, "acme"), new_key(path, "umbrella")
    gateway = receiving(start, keys=path, arguments=["--otlp-mib-per-minute", "1"])
    keys = {name: f"Bearer {secret}" for name, secret in (("loud", loud), ("quiet", quiet))}
    # Spans and logs count together. What is left of the allowance lets a whole request in.
    body = request(span(1, text="x" * 700_000)).SerializeToString()
    assert post(gateway, body, authorization=keys["loud"]).status_code == 200
    body = logs("x" * 700_000).SerializeToString()
    assert post(gateway, body, path="/v1/logs", authorization=keys["loud"]).status_code == 200
    small = request(chat(2))
    refused = post(gateway, small.SerializeToString(), authorization=keys["loud"])
    assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 60
    assert "otlp-mib-per-minute" in Status.FromString(refused.content).message
    code, seconds = refused_over_grpc(gateway, small, authorization=keys["loud"])
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED and 1 <= seconds <= 60
    assert post(gateway, small.SerializeToString(), authorization=keys["quiet"]).status_code == 200, "others have their own"


def test_grpc_says_whether_to_come_again(start, tmp_path):  # noqa: F811
    gateway = receiving(start)
    # What is too large is so the next time, too: no word on when.
    large = request(*(chat(number, trace=number) for number in range(1, 10_002)))
    assert refused_over_grpc(gateway, large) == (grpc.StatusCode.RESOURCE_EXHAUSTED, None)
    export(gateway, chat(1))


def test_grpc_says_when_to_come_again_where_nothing_can_be_kept(start_gateway):
    port = free_port()
    full = start_gateway(ready=False, arguments=["--otlp-listen", f"127.0.0.1:{port}", "--ledger-min-free-mib", str(10**9)])
    full.otlp = f"http://127.0.0.1:{port}"

    def answers():
        try:
            return httpx.get(f"{full.otlp}/v1/traces", trust_env=False).status_code == 405
        except httpx.TransportError:
            return False

    until(answers, 60, "an answer")
    code, seconds = refused_over_grpc(full, request(chat(1)))
    assert code == grpc.StatusCode.UNAVAILABLE and seconds >= 1
