"""Encoders answer `/v1/embeddings` with the vectors that their papers' formulas give."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest

from conftest import until
from independent_encoders import SHAPES, VOCABULARY, States, write_folder
from test_doctor import doctor, expect  # noqa: F401 - a fixture

TOLERANCE = 1e-4
TEXTS = ["w5 w9 w11 w100", "w7", "w8 w8 w8 w9 " * 11, "w77 w2 w30"]


def tokens_of(text):
    """With what the tokenizer puts around it."""
    return [101, *(int(word[1:]) for word in text.split()), 102]


def pooled(states, pooling):
    vector = {None: states.mean(axis=0), "mean_tokens": states.mean(axis=0), "cls_token": states[0]}[pooling]
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", [None, "cls_token"])
@pytest.mark.parametrize("shape", SHAPES)
def test_vectors_are_those_of_the_formulas(tmp_path, start_gateway, shape, pooling):
    folder = write_folder(tmp_path / "tiny", shape, pooling)
    # A pass is never too short for a text.
    gateway = start_gateway(arguments=["--model", folder, "--max-step-tokens", "16"])
    architecture = SHAPES[shape]["architectures"][0]
    context = 94 if shape == "xlm-roberta" else 96
    told = f"tiny ({architecture}, cpu, context {context}, one text at a time, embeddings only)"
    until(lambda: told in gateway.log(), 10, told)
    states = States(folder, shape)
    wanted = [pooled(states(tokens_of(text)), pooling) for text in TEXTS]
    apart = np.array(wanted) @ np.array(wanted).T
    assert np.abs(apart - np.eye(len(TEXTS))).max() < 0.999, "vectors that hardly differ would agree by chance"
    for given in (TEXTS, [tokens_of(text) for text in TEXTS]):
        answer = gateway.openai.embeddings.create(model="tiny", input=given)
        for one, vector in zip(answer.data, wanted, strict=True):
            assert np.abs(np.array(one.embedding) - vector).max() < TOLERANCE
        assert answer.usage.prompt_tokens == sum(len(tokens_of(text)) for text in TEXTS)


@pytest.mark.parametrize(("shape", "outer"), [("bert", "bert."), ("modernbert", "model.")])
def test_names_that_models_for_other_tasks_have_are_read(tmp_path, start_gateway, shape, outer):
    folder = write_folder(tmp_path / "tiny", shape, outer=outer)
    gateway = start_gateway(arguments=["--model", folder])
    answer = gateway.openai.embeddings.create(model="tiny", input=TEXTS[0])
    wanted = pooled(States(folder, shape)(tokens_of(TEXTS[0])), None)
    assert np.abs(np.array(answer.data[0].embedding) - wanted).max() < TOLERANCE


def test_it_writes_nothing_and_reads_no_more_than_it_can(tmp_path, start_gateway):
    gateway = start_gateway(arguments=["--model", write_folder(tmp_path / "tiny", "xlm-roberta")])
    for path, body in [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "w5"}]}),
        ("/v1/completions", {"prompt": "w5"}),
    ]:
        refused = gateway.http.post(path, json={"model": "tiny"} | body)
        assert refused.status_code == 400 and "/v1/embeddings" in refused.json()["error"]["message"]
    # Two of 96 positions are padding's and the one before it.
    (card,) = gateway.http.get("/v1/models").json()["data"]
    assert card["max_model_len"] == 94
    assert len(gateway.openai.embeddings.create(model="tiny", input=[[5] * 94]).data) == 1
    with pytest.raises(openai.BadRequestError, match="94"):
        gateway.openai.embeddings.create(model="tiny", input=[[5] * 95])
    with pytest.raises(openai.BadRequestError):
        gateway.openai.embeddings.create(model="tiny", input=[[VOCABULARY]])


def test_many_at_a_time_get_what_they_get_alone(tmp_path, start_gateway):
    folder = write_folder(tmp_path / "tiny", "bert", "mean_tokens")
    gateway = start_gateway(arguments=["--model", folder])
    random = np.random.default_rng(4)
    asks = [[[int(token) for token in random.integers(4, 100, size=size)] for size in random.integers(1, 90, size=5)] for _ in range(12)]

    def ask(texts):
        answer = gateway.http.post("/v1/embeddings", json={"model": "tiny", "input": texts})
        answer.raise_for_status()
        return [one["embedding"] for one in answer.json()["data"]]

    alone = [ask(texts) for texts in asks]
    with ThreadPoolExecutor(12) as together:
        assert list(together.map(ask, asks)) == alone


def test_what_is_not_computed_is_refused(tmp_path, doctor):
    folder = write_folder(tmp_path / "tiny", "bert")
    expect(doctor("--model", folder), "model", "ok", "BertModel", "one text at a time", "context 96")
    for changes, words in [
        ({"position_embedding_type": "relative_key"}, ["position_embedding_type", "absolute"]),
        ({"is_decoder": True}, ["is_decoder"]),
        ({"hidden_act": "gelu_new"}, ["gelu_new"]),
        ({"num_attention_heads": 5}, ["5 heads"]),
        ({"architectures": ["T5EncoderModel"]}, ["T5EncoderModel", "`BertModel`"]),
    ]:
        (folder / "config.json").write_text(json.dumps(SHAPES["bert"] | changes))
        expect(doctor("--model", folder), "model", "failed", *words)
