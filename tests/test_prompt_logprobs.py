"""How likely the tokens of a prompt were: `echo` with `logprobs` as OpenAI had it, and vLLM's `prompt_logprobs`, against an
independent implementation."""

import numpy as np
import openai
import pytest

from independent_llama import Independent, write_folder

TOLERANCE = 1e-3
PROMPT = [int(token) for token in np.random.default_rng(3).integers(2, 128, size=90)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("model") / "tiny", "grouped-query")


@pytest.fixture(scope="module")
def expected(folder):
    """The logarithms of all tokens' probabilities, after each token of the prompt."""
    logits = Independent(folder).logits(PROMPT).astype(np.float64)
    highest = logits.max(axis=1, keepdims=True)
    return logits - highest - np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("tokens", [0, 1, 5])
def test_an_answer_that_begins_with_its_prompt_tells_of_it_too(folder, expected, start_gateway, tokens):
    """Twice, so that the prompt is in memory already the second time."""
    gateway = start_gateway(arguments=["--model", folder])
    ask = {"model": "tiny", "prompt": PROMPT, "max_tokens": tokens, "echo": True, "logprobs": 3, "temperature": 0}
    for _ in range(2):
        answer = gateway.http.post("/v1/completions", json=ask | {"ignore_eos": True})
        assert answer.status_code == 200, answer.text
        (choice,) = answer.json()["choices"]
        told = choice["logprobs"]
        assert told["tokens"][: len(PROMPT)] == [f"w{token}" for token in PROMPT]
        assert len(told["tokens"]) == len(told["top_logprobs"]) == len(PROMPT) + tokens
        assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
        for at, token in enumerate(PROMPT[1:]):
            assert abs(told["token_logprobs"][at + 1] - expected[at, token]) < TOLERANCE
            best = np.sort(expected[at])[::-1][:3]
            assert np.abs(np.sort(list(told["top_logprobs"][at + 1].values()))[::-1][:3] - best).max() < TOLERANCE
        assert answer.json()["usage"]["completion_tokens"] == tokens
        assert choice["finish_reason"] == "length" and choice["text"].startswith(" ".join(f"w{t}" for t in PROMPT))


def test_prompt_logprobs_are_vllm_s(folder, expected, start_gateway):
    gateway = start_gateway(arguments=["--model", folder])
    ask = {"model": "tiny", "prompt": PROMPT, "max_tokens": 2, "prompt_logprobs": 2, "n": 2, "temperature": 0}
    choices = gateway.http.post("/v1/completions", json=ask).json()["choices"]
    assert len(choices) == 2 and choices[0]["prompt_logprobs"] == choices[1]["prompt_logprobs"]
    told = choices[0]["prompt_logprobs"]
    assert told[0] is None and len(told) == len(PROMPT) and choices[0]["logprobs"] is None
    for at, token in enumerate(PROMPT[1:]):
        place = told[at + 1]
        assert 2 <= len(place) <= 3
        for id, likely in place.items():
            assert abs(likely["logprob"] - expected[at, int(id)]) < TOLERANCE
            assert likely["decoded_token"] == f"w{id}"
            lead = (expected[at] > expected[at, int(id)] + TOLERANCE).sum() + 1
            assert lead <= likely["rank"] <= lead + 2
        assert str(token) in place


def test_a_stream_has_them_with_the_prompt_and_chats_have_them_once(gateway):
    ask = {"model": "mistral-7b", "prompt": "What is a span?", "max_tokens": 3, "temperature": 0}
    whole = gateway.openai.completions.create(**ask, echo=True, logprobs=2).choices[0]
    chunks = list(gateway.openai.completions.create(**ask, echo=True, logprobs=2, stream=True))
    parts = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(part.text for part in parts) == whole.text
    for name in ("tokens", "token_logprobs", "text_offset"):
        streamed = [value for part in parts if part.logprobs for value in getattr(part.logprobs, name)]
        assert streamed == getattr(whole.logprobs, name), name
    with pytest.raises(openai.BadRequestError, match="prompt_logprobs"):
        gateway.openai.completions.create(**ask, stream=True, extra_body={"prompt_logprobs": 1})
    messages = [{"role": "user", "content": "What is a span?"}]
    body = {"model": "mistral-7b", "messages": messages, "max_tokens": 2, "prompt_logprobs": 0}
    answer = gateway.http.post("/v1/chat/completions", json=body).json()
    assert len(answer["prompt_logprobs"]) == answer["usage"]["prompt_tokens"]
    assert "prompt_logprobs" not in answer["choices"][0]
