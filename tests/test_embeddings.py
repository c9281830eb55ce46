"""Embeddings by the model in this process: OpenAI's shapes, the numbers that an independent implementation computes, and
what they cost."""

import base64
import json
from decimal import Decimal

import httpx
import numpy as np
import openai
import pytest
from safetensors.numpy import load_file, save_file

from independent_llama import Independent, write_folder

TOLERANCE = 2e-4
TEXTS = ["w5 w9 w11 w100", "w3", "w8 w8 w8 w9 " * 20, "w77 w2"]
PRICE = '{ match = "*", input = "$1/M", output = "$9/M" }'
PLUGINS = {
    "plugins": ["cost-per-token"],
    "plugins_toml": f'[[plugin]]\nfile = "cost-per-token.wasm"\nconfig = {{ models = [{PRICE}] }}\n',
}


def tokens_of(text):
    return [int(word[1:]) for word in text.split()]


def folder_with(tmp_path, pooling, shape="grouped-query", **config):
    """A model folder with what sentence-transformers keeps beside it."""
    folder = write_folder(tmp_path / "tiny", shape)
    if pooling:
        modules = [
            {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for at, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")])
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    if config:
        (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | config))
    return folder


def expected(independent, tokens, pooling, dimensions=None):
    import mlx.core as mx

    states = np.array(independent.model.model(mx.array([tokens]))[0].astype(mx.float32), dtype=np.float64)
    vector = {"mean_tokens": states.mean(axis=0), "lasttoken": states[-1], "cls_token": states[0]}[pooling or "lasttoken"]
    vector = vector[:dimensions]
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", [None, "mean_tokens", "lasttoken", "cls_token"])
def test_vectors_are_those_of_another_implementation(tmp_path, start_gateway, pooling):
    folder = folder_with(tmp_path, pooling)
    gateway = start_gateway(arguments=["--model", folder], **PLUGINS)
    independent = Independent(folder)
    as_tokens = [tokens_of(text) for text in TEXTS]
    for given in (TEXTS, as_tokens):
        answer = gateway.openai.embeddings.create(model="tiny", input=given)
        assert [one.index for one in answer.data] == [0, 1, 2, 3]
        for one, tokens in zip(answer.data, as_tokens):
            assert np.abs(np.array(one.embedding) - expected(independent, tokens, pooling)).max() < TOLERANCE
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, as_tokens))


def test_both_forms_hold_the_same_numbers_and_cost_the_same(tmp_path, start_gateway):
    gateway = start_gateway(arguments=["--model", folder_with(tmp_path, "mean_tokens")], **PLUGINS)
    ask = {"model": "tiny", "input": TEXTS[0], "user": "acme"}
    plain = gateway.http.post("/v1/embeddings", json=ask | {"encoding_format": "float"})
    packed = gateway.http.post("/v1/embeddings", json=ask | {"encoding_format": "base64"})
    numbers = np.array(plain.json()["data"][0]["embedding"], dtype=np.float32)
    bits = np.frombuffer(base64.b64decode(packed.json()["data"][0]["embedding"]), dtype="<f4")
    assert (numbers == bits).all() and abs(np.linalg.norm(numbers) - 1) < 1e-6 and len(numbers) == 64
    for answer in (plain, packed):
        body = answer.json()
        assert body["object"] == "list" and body["model"] == "tiny"
        assert body["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
        assert body["cost"]["status"] == "priced" and Decimal(body["cost"]["amount"]) == Decimal(4) / 1_000_000
    trace = plain.headers["x-tollgate-trace-id"]
    root = gateway.root_span(trace)["attributes"]
    assert root["gen_ai.operation.name"] == "embeddings" and root["gen_ai.usage.input_tokens"] == 4
    assert root["tollgate.outcome"] == "completed" and Decimal(root["tollgate.cost.amount"]) == Decimal(4) / 1_000_000
    names = {span["name"] for span in gateway.spans(trace)}
    assert {"inference.queue", "inference.tokenize", "inference.prefill"} <= names and "inference.decode" not in names


def test_more_texts_than_may_wait_are_embedded_in_one_request(tmp_path, start_gateway, in_background):
    """Beside answers, which come to their turn meanwhile."""
    folder = folder_with(tmp_path, "mean_tokens")
    gateway = start_gateway(arguments=["--model", folder, "--max-queued", "8", "--max-running", "4"], **PLUGINS)
    inputs = [[2 + (at * 7 + place) % 120 for place in range(1 + at % 40)] for at in range(600)]
    written = []
    ask = {"model": "tiny", "prompt": [5, 6, 7], "max_tokens": 5}
    in_background(lambda: written.extend(gateway.http.post("/v1/completions", json=ask).status_code for _ in range(5)))
    answer = gateway.http.post("/v1/embeddings", json={"model": "tiny", "input": inputs}).json()
    independent = Independent(folder)
    for at in (0, 39, 200, 599):
        vector = np.array(answer["data"][at]["embedding"])
        assert np.abs(vector - expected(independent, inputs[at], "mean_tokens")).max() < TOLERANCE
    assert len(answer["data"]) == 600 and answer["usage"]["prompt_tokens"] == sum(map(len, inputs))


def test_shorter_vectors_only_where_the_model_was_trained_for_them(tmp_path, start_gateway):
    folder = folder_with(tmp_path, "lasttoken", is_matryoshka=True)
    gateway = start_gateway(arguments=["--model", folder])
    answer = gateway.openai.embeddings.create(model="tiny", input=TEXTS[0], dimensions=16)
    wanted = expected(Independent(folder), tokens_of(TEXTS[0]), "lasttoken", 16)
    assert np.abs(np.array(answer.data[0].embedding) - wanted).max() < TOLERANCE


def test_what_cannot_be_embedded_is_refused_by_name(tmp_path, start_gateway):
    gateway = start_gateway(arguments=["--model", folder_with(tmp_path, "mean_tokens")])
    cases = [
        ({"input": "w1", "dimensions": 16}, "dimensions", "must be 64"),
        ({"input": "w1", "dimensions": 65}, "dimensions", "at most 64"),
        ({"input": []}, "input", "empty"),
        ({"input": ["w1", [1]], "encoding_format": "int8"}, "encoding_format", "float"),
        ({"input": [[1], [500]]}, "input[1]", "500"),
        ({"input": ["w1", "w1 " * 257]}, "input[1]", "at most 256"),
        ({"input": ["w1"] * 2049}, "input", "2048"),
    ]
    for ask, param, message in cases:
        error = gateway.http.post("/v1/embeddings", json={"model": "tiny"} | ask)
        assert error.status_code == 400, error.text
        assert error.json()["error"]["param"] == param and message in error.json()["error"]["message"]
    longest = gateway.http.post("/v1/embeddings", json={"model": "tiny", "input": ["w1 " * 256]})
    assert longest.status_code == 200, "a text may fill the context, since nothing follows it"


def test_a_model_without_a_head_embeds_and_writes_nothing(tmp_path, start_gateway):
    """As models of embeddings are often published: no head, and names without their outermost part."""
    folder = folder_with(tmp_path, "lasttoken", shape="qwen3")
    independent = Independent(folder)
    weights = load_file(folder / "model.safetensors")
    inner = {name.removeprefix("model."): value for name, value in weights.items() if name != "lm_head.weight"}
    save_file(inner, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["Qwen3Model"]}
    (folder / "config.json").write_text(json.dumps(config))
    gateway = start_gateway(arguments=["--model", folder])
    answer = gateway.openai.embeddings.create(model="tiny", input=TEXTS[0])
    wanted = expected(independent, tokens_of(TEXTS[0]), "lasttoken")
    assert np.abs(np.array(answer.data[0].embedding) - wanted).max() < TOLERANCE
    with pytest.raises(openai.BadRequestError, match="makes embeddings and writes no text"):
        gateway.openai.completions.create(model="tiny", prompt="w1")
    assert "embeddings only" in gateway.log()


def test_a_client_that_leaves_is_billed_what_was_read(tmp_path, start_gateway):
    gateway = start_gateway(arguments=["--model", folder_with(tmp_path, "mean_tokens"), "--max-running", "1"], **PLUGINS)
    inputs = ["w5 " * 250] * 1200
    with pytest.raises(httpx.TimeoutException):
        answer = gateway.http.post("/v1/embeddings", json={"model": "tiny", "input": inputs}, timeout=1)
        raise AssertionError(f"it was not slow enough to leave: {answer.status_code} {answer.text:.300}")
    gateway.stop()
    (root,) = [span for span in gateway.spans() if span["name"] == "inference.request"]
    read = root["attributes"]["gen_ai.usage.input_tokens"]
    assert root["attributes"]["tollgate.outcome"] == "client_gone" and 0 <= read < 300_000 and read % 250 == 0
    assert Decimal(root["attributes"]["tollgate.cost.amount"]) == Decimal(read) / 1_000_000
