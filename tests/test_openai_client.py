"""OpenAI's own client, unchanged, against the gateway."""

from decimal import Decimal

import openai
import pytest

from conftest import exact, free_port, read_events

ALIASES = {"mistral-7b", "llama-3-8b", "gpt-4o-mini", "gpt-3.5-turbo"}
PROMPT = "What does a plugin do?"
MESSAGES = [{"role": "user", "content": PROMPT}]
SAMPLED = {"temperature": 0.8, "seed": 7, "max_tokens": 24}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def test_models_show_what_is_an_alias_of_what(gateway):
    models = {model.id: model.model_dump() for model in gateway.openai.models.list()}
    assert ALIASES < models.keys()
    (served,) = models.keys() - ALIASES
    assert all(model["object"] == "model" and model["root"] == served for model in models.values())
    assert gateway.openai.models.retrieve("gpt-4o-mini").root == served


def test_completion(gateway):
    answer = gateway.openai.completions.create(model="mistral-7b", prompt=PROMPT, **SAMPLED)
    assert answer.object == "text_completion" and answer.model == "mistral-7b"
    (choice,) = answer.choices
    assert choice.text.strip() and choice.finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > 0 and 0 < answer.usage.completion_tokens <= 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    again = gateway.openai.completions.create(model="mistral-7b", prompt=PROMPT, **SAMPLED)
    assert again.choices[0].text == choice.text, "the same seed gives the same text"
    assert again.id != answer.id


def test_chat(gateway):
    answer = gateway.openai.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, **SAMPLED)
    assert answer.object == "chat.completion"
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.message.content.strip()
    assert choice.finish_reason in ("stop", "length")


def test_streamed_completion_says_the_same_as_the_plain_one(gateway):
    create = gateway.openai.completions.create
    plain = create(model="llama-3-8b", prompt=PROMPT, **SAMPLED)
    chunks = list(create(model="llama-3-8b", prompt=PROMPT, **SAMPLED, **WITH_USAGE))
    *pieces, last = chunks
    assert "".join(c.choices[0].text for c in pieces) == plain.choices[0].text
    assert [c.choices[0].finish_reason for c in pieces if c.choices[0].finish_reason] == [plain.choices[0].finish_reason]
    assert last.choices == [] and last.usage.model_dump() == plain.usage.model_dump()
    assert len({c.id for c in chunks}) == 1
    assert all(c.usage is None for c in pieces)


def test_streamed_chat_says_the_same_as_the_plain_one(gateway):
    create = gateway.openai.chat.completions.create
    plain = create(model="gpt-3.5-turbo", messages=MESSAGES, **SAMPLED)
    chunks = list(create(model="gpt-3.5-turbo", messages=MESSAGES, **SAMPLED, **WITH_USAGE))
    *pieces, last = chunks
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in pieces) == plain.choices[0].message.content
    assert last.choices == [] and last.usage.model_dump() == plain.usage.model_dump()
    assert {c.object for c in chunks} == {"chat.completion.chunk"}


def test_no_usage_chunk_unless_asked_for(gateway):
    chunks = list(gateway.openai.completions.create(model="mistral-7b", prompt=PROMPT, **SAMPLED, stream=True))
    assert all(chunk.choices and not chunk.usage for chunk in chunks)


@pytest.mark.parametrize(
    ("path", "prompt"), [("/v1/completions", {"prompt": PROMPT}), ("/v1/chat/completions", {"messages": MESSAGES})]
)
def test_stream_and_plain_cost_the_same(gateway, path, prompt):
    body = {"model": "gpt-4o-mini", **prompt, **SAMPLED}
    response = gateway.http.post(path, json=body)
    plain = exact(response)
    assert isinstance(plain["estimated_cost_usd"], Decimal) and plain["estimated_cost_usd"] > 0
    assert response.headers["x-tollgate-cost-status"] == "priced"
    assert Decimal(response.headers["x-tollgate-cost"].split()[0]) == plain["estimated_cost_usd"]
    with gateway.http.stream("POST", path, json=body | WITH_USAGE) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        last = read_events(stream.iter_lines())[-1]
    assert last["usage"] == plain["usage"]
    assert last["cost"] == plain["cost"] and last["cost"]["status"] == "priced"
    assert last["estimated_cost_usd"] == plain["estimated_cost_usd"]
    assert last["trace_id"] != plain["trace_id"]


def test_max_completion_tokens_and_stop_are_honoured(gateway):
    create = gateway.openai.chat.completions.create
    long = create(model="mistral-7b", messages=MESSAGES, temperature=0, max_completion_tokens=12)
    assert long.usage.completion_tokens <= 12
    text = long.choices[0].message.content
    stop = text.split()[2]
    cut = create(model="mistral-7b", messages=MESSAGES, temperature=0, max_completion_tokens=12, stop=[stop])
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.content == text[: text.index(stop)]


@pytest.mark.parametrize(
    ("change", "exception", "param"),
    [
        ({"model": "no-such-model"}, openai.NotFoundError, "model"),
        ({"max_tokens": -1}, openai.BadRequestError, "max_tokens"),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"prompt": ""}, openai.BadRequestError, "prompt"),
        ({"prompt": "word " * 20_000}, openai.BadRequestError, "prompt"),
    ],
    ids=["model", "max_tokens", "temperature", "empty", "too-long"],
)
def test_errors_are_the_clients_own_exceptions(gateway, change, exception, param):
    call = {"model": "mistral-7b", "prompt": PROMPT, **change}
    with pytest.raises(exception) as raised:
        gateway.openai.completions.create(**call)
    assert raised.value.param == param
    assert raised.value.type and raised.value.code is not None


def test_a_prompt_that_was_read_before_is_not_read_again(gateway):
    ask = {"model": "mistral-7b", "prompt": "What does a plugin do? " * 12, "max_tokens": 8, "temperature": 0}

    def answer(user):
        told = gateway.http.post("/v1/completions", json=ask | {"user": user})
        return told.json(), told.headers["x-tollgate-trace-id"]

    first, _ = answer("reader-a")
    again, trace_id = answer("reader-a")
    other, _ = answer("reader-b")
    cached = [told["usage"]["prompt_tokens_details"]["cached_tokens"] for told in (first, again, other)]
    assert cached[0] == 0 and cached[2] == 0, "one tenant does not learn what another has sent"
    assert 16 <= cached[1] < again["usage"]["prompt_tokens"]
    assert first["text"] == again["text"] == other["text"], "and it makes no difference to the answer"
    gateway.root_span(trace_id)
    spans = {span["name"]: span["attributes"] for span in gateway.spans(trace_id)}
    assert spans["inference.prefill"]["tollgate.engine.cached_tokens"] == cached[1]
    assert spans["inference.decode"]["tollgate.engine.passes"] >= 8
    assert spans["inference.request"]["gen_ai.usage.cache_read.input_tokens"] == cached[1]


def test_options_beyond_openais_are_heeded(gateway):
    ask = {"model": "mistral-7b", "prompt": PROMPT, "max_tokens": 120, "temperature": 0}
    plain = gateway.http.post("/v1/completions", json=ask).json()
    assert plain["choices"][0]["finish_reason"] == "stop" and plain["completion_tokens"] < 120
    on = gateway.http.post("/v1/completions", json=ask | {"ignore_eos": True}).json()
    assert on["choices"][0]["finish_reason"] == "length" and on["completion_tokens"] == 120
    longer = gateway.http.post("/v1/completions", json=ask | {"min_tokens": plain["completion_tokens"] + 3}).json()
    assert longer["completion_tokens"] >= plain["completion_tokens"] + 3
    varied = gateway.http.post("/v1/completions", json=ask | {"repetition_penalty": 100}).json()
    assert varied["text"] != plain["text"]
    wrong = gateway.http.post("/v1/completions", json=ask | {"logit_bias": {"5": 101}})
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "logit_bias.5"


def test_chats_tell_how_likely_tokens_were(gateway):
    create = gateway.openai.chat.completions.create
    ask = {"model": "mistral-7b", "messages": MESSAGES, **SAMPLED, "logprobs": True, "top_logprobs": 3}
    plain = create(**ask)
    (choice,) = plain.choices
    told = choice.logprobs.content
    assert len(told) == plain.usage.completion_tokens
    ended = choice.finish_reason == "stop"
    text = b"".join(bytes(token.bytes) for token in (told[:-1] if ended else told))
    assert text.decode(errors="replace") == choice.message.content
    for token in told:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        likely = [top.logprob for top in token.top_logprobs]
        assert likely == sorted(likely, reverse=True) and likely[0] >= token.logprob
        assert bytes(token.bytes).decode(errors="replace") == token.token or token.token.startswith("\\x")
    chunks = list(create(**ask, **WITH_USAGE))
    streamed = [t for c in chunks for choice in c.choices if choice.logprobs for t in choice.logprobs.content]
    assert streamed == told
    without = create(**ask | {"logprobs": False, "top_logprobs": None})
    assert without.choices[0].logprobs is None
    assert without.choices[0].message.content == choice.message.content, "telling changes nothing"


def test_completions_tell_how_likely_tokens_were(gateway):
    create = gateway.openai.completions.create
    ask = {"model": "mistral-7b", "prompt": PROMPT, "max_tokens": 12, "temperature": 0, "logprobs": 2}
    plain = create(**ask)
    (choice,) = plain.choices
    told = choice.logprobs
    assert len(told.tokens) == plain.usage.completion_tokens
    for token, logprob, top, offset in zip(told.tokens, told.token_logprobs, told.top_logprobs, told.text_offset):
        assert top[token] == logprob == max(top.values()) and len(top) == 2
        assert choice.text[offset:].startswith(token) or offset == len(choice.text)
    pieces = [c.choices[0] for c in create(**ask, stream=True)]
    for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [one for piece in pieces if piece.logprobs for one in getattr(piece.logprobs, field)] == getattr(told, field)
    assert len(create(**ask | {"logprobs": 0}).choices[0].logprobs.top_logprobs[0]) == 1


def test_a_completion_can_begin_with_its_prompt(gateway):
    create = gateway.openai.completions.create
    ask = {"model": "mistral-7b", "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    plain, echoed = create(**ask), create(**ask, echo=True)
    assert echoed.choices[0].text == PROMPT + plain.choices[0].text
    assert echoed.usage.completion_tokens == plain.usage.completion_tokens
    streamed = list(create(**ask, echo=True, stream=True))
    assert "".join(c.choices[0].text for c in streamed) == echoed.choices[0].text


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_several_choices_share_one_prompt_one_bill_and_one_trace(gateway, path):
    prompt = "What does a plugin do? " * 8
    prompts = {"prompt": prompt} if path == "/v1/completions" else {"messages": [{"role": "user", "content": prompt}]}
    body = {"model": "gpt-4o-mini", "user": f"chooser{path}", "max_tokens": 16, "temperature": 2.0, "seed": 11, **prompts}

    def text(choice):
        return choice["text"] if "text" in choice else choice["message"]["content"]

    one = exact(gateway.http.post(path, json=body))
    response = gateway.http.post(path, json=body | {"n": 4})
    four = exact(response)
    texts = [text(choice) for choice in four["choices"]]
    assert [choice["index"] for choice in four["choices"]] == [0, 1, 2, 3]
    assert texts[0] == text(one["choices"][0]) == four["text"], "the first choice has the seed that was given"
    assert len(set(texts)) > 1, "each draws by a seed of its own"
    assert four["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert four["usage"]["completion_tokens"] > one["usage"]["completion_tokens"]
    assert four["cost"]["status"] == "priced"
    again = exact(gateway.http.post(path, json=body | {"n": 4}))
    assert [text(choice) for choice in again["choices"]] == texts

    with gateway.http.stream("POST", path, json=body | WITH_USAGE | {"n": 4}) as stream:
        *chunks, last = read_events(stream.iter_lines())
    streamed = [""] * 4
    for chunk in chunks:
        (choice,) = chunk["choices"]
        streamed[choice["index"]] += choice.get("text") or choice.get("delta", {}).get("content") or ""
    assert streamed == texts
    ends = [c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]]
    assert sorted(ends) == [0, 1, 2, 3]
    assert last["usage"]["completion_tokens"] == four["usage"]["completion_tokens"]

    trace_id = response.headers["x-tollgate-trace-id"]
    root = gateway.root_span(trace_id)["attributes"]
    assert root["gen_ai.request.choice.count"] == 4
    assert root["gen_ai.response.finish_reasons"] == [choice["finish_reason"] for choice in four["choices"]]
    assert root["gen_ai.usage.output_tokens"] == four["usage"]["completion_tokens"]
    decode = next(span for span in gateway.spans(trace_id) if span["name"] == "inference.decode")["attributes"]
    assert decode["tollgate.engine.batch_max"] >= 2, "choices share passes"
    assert decode["tollgate.engine.passes"] >= four["usage"]["completion_tokens"]


def test_a_client_that_leaves_gives_up_all_its_choices(gateway):
    body = {"model": "mistral-7b", "prompt": PROMPT, "max_tokens": 900, "ignore_eos": True, "n": 3, "stream": True}
    with gateway.http.stream("POST", "/v1/completions", json=body) as stream:
        trace_id = stream.headers["x-tollgate-trace-id"]
        next(line for line in stream.iter_lines() if line.startswith("data:"))
    root = gateway.root_span(trace_id)["attributes"]
    assert root["tollgate.outcome"] == "client_gone" and root["tollgate.cost.status"] == "priced"
    assert 0 < root["gen_ai.usage.output_tokens"] < 3 * 900
    gateway.still_serves()


def test_choices_beyond_what_is_made_are_refused_by_name(gateway):
    for change, param, words in [
        ({"n": 0}, "n", "from 1 to 128"),
        ({"n": 129}, "n", "from 1 to 128"),
        ({"n": 2, "best_of": 4}, "best_of", "`logprobs`"),
    ]:
        with pytest.raises(openai.BadRequestError, match=words) as raised:
            gateway.openai.completions.create(model="mistral-7b", prompt=PROMPT, **change)
        assert raised.value.param == param
    same = gateway.openai.completions.create(model="mistral-7b", prompt=PROMPT, n=2, best_of=2, max_tokens=2)
    assert len(same.choices) == 2


def test_tokens_are_counted_as_the_model_reads_them(gateway):
    def ask(path, **body):
        return gateway.http.post(path, json={"model": "mistral-7b", **body})

    told = ask("/tokenize", prompt=PROMPT, return_token_strs=True).json()
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert told["max_model_len"] == gateway.http.get("/v1/models/mistral-7b").json()["max_model_len"]
    answer = gateway.openai.completions.create(model="mistral-7b", prompt=PROMPT, max_tokens=1)
    assert answer.usage.prompt_tokens == told["count"]
    chat = ask("/tokenize", messages=MESSAGES).json()
    assert chat["token_strs"] is None
    answer = gateway.openai.chat.completions.create(model="mistral-7b", messages=MESSAGES, max_tokens=1)
    assert answer.usage.prompt_tokens == chat["count"]
    plain = ask("/tokenize", prompt=PROMPT, add_special_tokens=False).json()
    assert ask("/detokenize", tokens=plain["tokens"]).json() == {"prompt": PROMPT}
    assert PROMPT in ask("/detokenize", tokens=chat["tokens"]).json()["prompt"]
    for path, body, status, param in [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "model": "none-such"}, 404, "model"),
        ("/detokenize", {"tokens": [1, 10**9]}, 400, "tokens"),
        ("/detokenize", {"tokens": [1, "a"]}, 400, "tokens[1]"),
    ]:
        refused = ask(path, **body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (status, param), refused.text


SECRET = "a-secret-of-acme-and-nobody-else"


def test_tokens_are_told_to_those_who_have_a_key(start_gateway):
    gateway = start_gateway(env={"TOLLGATE_KEYS": f"acme:{SECRET}"})
    for path, body in [("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})]:
        assert gateway.http.post(path, json=body).status_code == 401
        with_key = gateway.http.post(path, json=body, headers={"authorization": f"Bearer {SECRET}"})
        assert with_key.status_code == 200


def test_several_models_run_side_by_side(start_gateway):
    models = ["--model", "one=demo", "--model", "two=demo"]
    admin = f"127.0.0.1:{free_port()}"
    gateway = start_gateway(arguments=[*models, "--kv-memory-mib", "16", "--admin-listen", admin])
    served = {model.id: model.model_dump() for model in gateway.openai.models.list()}
    assert {"one", "two"} <= served.keys()
    assert {name: served[name]["root"] for name in ("one", "two", "mistral-7b")} == {"one": "one", "two": "two", "mistral-7b": "one"}
    ask = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    texts = set()
    for name in ("one", "two"):
        answer = gateway.openai.completions.with_raw_response.create(model=name, **ask)
        root = gateway.root_span(answer.headers["x-tollgate-trace-id"])["attributes"]
        assert (root["gen_ai.request.model"], root["gen_ai.response.model"]) == (name, name)
        parsed = answer.parse()
        assert parsed.usage.prompt_tokens_details.cached_tokens == 0, "each has memory of its own"
        texts.add(parsed.choices[0].text)
    assert len(texts) == 1, "they are the same model"
    metrics = gateway.http.get(f"http://{admin}/metrics").text
    for name in ("one", "two"):
        assert f'vllm:num_requests_running{{model_name="{name}"}}' in metrics
        assert f'vllm:prompt_tokens_total{{model_name="{name}"}}' in metrics
    unnamed = gateway.http.post("/v1/completions", json=ask)
    assert unnamed.status_code == 404 and "Say which" in unnamed.json()["error"]["message"]


def test_two_models_of_one_name_do_not_start(start_gateway):
    gateway = start_gateway(ready=False, arguments=["--model", "demo", "--model", "tollgate-demo=demo"])
    gateway.process.wait(60)
    assert "two models go by the name tollgate-demo" in gateway.log()
