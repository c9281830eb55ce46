"""Each call is billed once, and to whoever it was for: whatever tells of it, in whichever order, and however late."""

import time

import openai
import pytest
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

from conftest import until
from senders import chat, export, post, provider, request, span
from test_otlp_in import receiver, report, start, total  # noqa: F401 - fixtures

PROCESS = {"gen_ai__request__model": "gpt-4o-mini"}
KEYS = {"TOLLGATE_KEYS": "acme:tg-acme-0123456789,umbrella:tg-umbrella-0123456789"}


def vllm(number, trace, parent, request_id, output, prompt=1000, **more):
    """What vLLM sends of one sequence."""
    return span(
        number, trace=trace, parent=parent, name="llm_request", gen_ai__usage__prompt_tokens=prompt,
        gen_ai__usage__completion_tokens=output, gen_ai__latency__e2e="1", gen_ai__request__id=request_id, **more,
    )


def arrived(receiver, number):  # noqa: F811
    """So many spans by their trace and id, once they are there."""
    spans = until(lambda: len(receiver.spans) >= number and list(receiver.spans), what=f"{number} spans")
    found = {(int(s.trace_id, 16), int(s.span_id, 16)): s.attributes for s in spans}
    assert len(found) == len(spans) == number
    return found


def status(attributes):
    return attributes.get("tollgate.cost.status"), attributes.get("tollgate.cost.reason")


PRICED, COUNTED = ("priced", None), ("unpriced", "counted_elsewhere")


def test_requests_that_a_mesh_gives_one_name_are_billed_each(start, receiver):  # noqa: F811
    gateway = start()
    name = "chatcmpl-req-0123456789abcdef"
    export(gateway, vllm(1, 1, 20, name, 100), **PROCESS)
    export(gateway, vllm(1, 2, 20, name, 900), **PROCESS)
    # The client of the second one, by another writer and in a trace of its own.
    export(gateway, chat(1, trace=3, gen_ai__response__id=name))
    # Choices of one request: their prompt is billed once, and all that came out.
    for number, output in ((1, 50), (2, 60), (3, 70)):
        export(gateway, vllm(number, 4, 10, "chatcmpl-9f1c2b3a4d5e6f708192a3b4c5d6e7f8", output), **PROCESS)
    spans = arrived(receiver, 6)
    assert {place: status(found) for place, found in spans.items()} == {
        (1, 1): PRICED, (2, 1): PRICED, (3, 1): COUNTED, (4, 1): PRICED, (4, 2): PRICED, (4, 3): PRICED
    }  # fmt: skip
    prompts = {number: spans[4, number].get("tollgate.usage.prompt") for number in (1, 2, 3)}
    assert prompts == {1: None, 2: "counted_elsewhere", 3: "counted_elsewhere"}
    assert float(spans[4, 2]["tollgate.cost.amount"]) < float(spans[4, 1]["tollgate.cost.amount"])
    told = total(gateway)
    assert (told["requests"], told["tokens"]["input"], told["tokens"]["output"]) == (5, 3000, 1180)


@pytest.mark.parametrize("stream", [False, True])
def test_an_instrumented_client_of_the_gateway_is_billed_once(start, receiver, stream):  # noqa: F811
    gateway = start()
    sender = provider(HttpExporter(endpoint=f"{gateway.otlp}/v1/traces"))
    instrumentor = OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=sender)
    try:
        # It passes no trace on, and has the answer's id in the answer alone.
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0)
        asked = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        if stream:
            list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        else:
            client.chat.completions.create(**asked)
        client.close()
    finally:
        instrumentor.uninstrument()
    sender.shutdown()
    spans = until(lambda: [s for s in receiver.spans if s.name == "ChatCompletion"], what="the client's span")
    assert status(spans[0].attributes) == COUNTED
    assert total(gateway)["requests"] == 1


def test_no_flood_of_plain_spans_makes_a_call_new_again(start, receiver):  # noqa: F811
    gateway = start()
    call = chat(1, trace=1)
    export(gateway, call)
    for trace in range(2, 16):
        export(gateway, *(span(number, trace=trace, name="plain") for number in range(1, 10_001)))
    export(gateway, call)
    export(gateway, chat(2, trace=1))
    until(lambda: len([s for s in receiver.spans if s.name.startswith("chat")]) >= 2, 120, what="both calls")
    time.sleep(0.5)
    assert total(gateway)["requests"] == 2
    assert len([s for s in receiver.spans if s.name.startswith("chat")]) == 2


def test_who_pays_is_what_any_span_of_the_call_says(start, receiver):  # noqa: F811
    gateway = start()
    # Together: the server's span is billed and names nobody, the client's does.
    client = chat(1, trace=1, tollgate__tenant="acme")
    between = span(2, trace=1, parent=1, name="POST")
    export(gateway, client, between, vllm(3, 1, 2, "cmpl-1", 100), **PROCESS)
    # The same, joined by the answer's id.
    answer = "chatcmpl-0123456789abcdef"
    client = chat(1, trace=2, tenant__id="umbrella", gen_ai__response__id=answer)
    export(gateway, client, vllm(2, 3, 9, answer, 100), **PROCESS)
    # By a client that came before and had no counts.
    early = span(1, trace=4, gen_ai__operation__name="chat", gen_ai__request__model="gpt-4o-mini", tenant__id="early")
    export(gateway, early)
    export(gateway, vllm(2, 4, 1, "cmpl-2", 100), **PROCESS)
    # A number is a name; one that is too long is none.
    export(gateway, chat(1, trace=5, tenant__id=42))
    export(gateway, chat(1, trace=6, tollgate__tenant="x" * 300, tenant__id="short"))
    spans = arrived(receiver, 9)
    assert {status(found) for place, found in spans.items() if place in ((1, 3), (4, 2))} == {PRICED}
    tenants = {group["tenant"]: group["requests"] for group in report(gateway)["groups"]}
    assert tenants == {"acme": 1, "umbrella": 1, "early": 2, "42": 1, "short": 1}


def test_no_sender_can_make_the_spans_of_another_one_disappear(start, receiver):  # noqa: F811
    gateway = start(env=KEYS)

    def send(tenant, made):
        answer = post(gateway, request(made).SerializeToString(), authorization=f"Bearer tg-{tenant}-0123456789")
        assert answer.status_code == 200, answer.content

    answer = "chatcmpl-0123456789abcdef"
    send("umbrella", span(1, trace=1, name="the same ids"))
    send("umbrella", chat(9, trace=2, gen_ai__response__id=answer))
    for _ in range(2):
        send("acme", chat(1, trace=1))
        send("acme", chat(1, trace=3, gen_ai__response__id=answer))
    until(lambda: len(receiver.spans) >= 4, what="the spans of both")
    time.sleep(0.5)
    assert len(receiver.spans) == 4
    tenants = {group["tenant"]: group["requests"] for group in report(gateway)["groups"]}
    assert tenants == {"acme": 2, "umbrella": 1}


def test_what_is_half_told_is_an_estimate(start, receiver):  # noqa: F811
    gateway = start()
    told = {"gen_ai__operation__name": "chat", "gen_ai__request__model": "gpt-4o-mini"}
    export(gateway, span(1, trace=1, gen_ai__usage__input_tokens=1000, **told))
    export(gateway, span(1, trace=2, gen_ai__usage__input_tokens=-5, gen_ai__usage__output_tokens=5, **told))
    export(gateway, span(1, trace=3, llm__model_name="gpt-4o-mini", llm__token_count__prompt=10, llm__token_count__completion=5))
    spans = arrived(receiver, 3)
    assert [status(spans[trace, 1])[0] for trace in (1, 2, 3)] == ["estimated", "estimated", "priced"]
    assert spans[1, 1]["tollgate.usage.source"] == "estimated"
