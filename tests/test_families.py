"""Families that candle-transformers runs, one sequence at a time: what they compute, and what is said of it."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import until
from independent_families import SHAPES, Other, config_of, write_folder
from test_doctor import doctor, expect  # noqa: F401 - a fixture
from test_independent_model import PROMPT, agree, ours


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_and_greedy_tokens_agree(tmp_path, shape):
    """Of a prompt in one piece, in several, and of its tokens one after another."""
    folder = write_folder(tmp_path / shape, shape)
    theirs = Other(folder, shape)
    agree(ours(folder), theirs)
    agree(ours(folder, 16), theirs)


def text_of(tokens):
    """Up to the end of the text."""
    tokens = tokens[: tokens.index(1)] if 1 in tokens else tokens
    return [f"w{token}" for token in tokens]


# Contexts that end with a window, and those of the shapes.
CONTEXTS = {"gemma3": 256, "phi3": 200, "mixtral": 256, "deepseek2": 256, "gpt-bigcode": 4096, "granite": 256, "lfm2": 256}
CONTEXTS |= {"mamba": 256, "phi": 256, "recurrent-gemma": 128, "stablelm": 256}


@pytest.mark.parametrize("shape, context", CONTEXTS.items())
def test_it_is_served_one_at_a_time_and_says_so(tmp_path, start_gateway, shape, context):
    folder = write_folder(tmp_path / "tiny", shape)
    # Prompts are read in pieces.
    gateway = start_gateway(arguments=["--model", folder, "--max-step-tokens", "16"])
    told = f"tiny ({SHAPES[shape][1]}, cpu, context {context}, one sequence at a time)"
    until(lambda: told in gateway.log(), 10, told)
    independent = Other(folder, shape)
    prompts = [PROMPT[at : at + 40] for at in range(0, 24, 6)]
    expected = [text_of(independent.greedy(prompt, 8)[0]) for prompt in prompts]

    def ask(prompt):
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 8, "temperature": 0, "logprobs": 1}
        answer = gateway.http.post("/v1/completions", json=body)
        answer.raise_for_status()
        trace = answer.headers["x-tollgate-trace-id"]
        gateway.root_span(trace)
        return answer.json(), {name: value for span in gateway.spans(trace) for name, value in span["attributes"].items()}

    with ThreadPoolExecutor(len(prompts)) as together:
        answers = list(together.map(ask, prompts * 2))
    for (answer, span), text in zip(answers, expected * 2, strict=True):
        assert answer["choices"][0]["text"].split() == text
        assert span["tollgate.engine.batch_max"] == 1 and span["tollgate.engine.batch_mean"] == 1.0
        assert span["tollgate.engine.prefill_chunks"] >= 3
        assert answer["usage"].get("prompt_tokens_details", {}).get("cached_tokens", 0) == 0


def test_choices_and_told_prompts(tmp_path, start_gateway):
    """Choices read the prompt each for itself; how likely a prompt was is told of each of its tokens."""
    folder = write_folder(tmp_path / "tiny", "qwen3-moe")
    gateway = start_gateway(arguments=["--model", folder])
    body = {"model": "tiny", "prompt": PROMPT[:20], "max_tokens": 6, "temperature": 0, "ignore_eos": True}
    several = gateway.http.post("/v1/completions", json=body | {"n": 3}).json()
    greedy, _ = Other(folder, "qwen3-moe").greedy(PROMPT[:20], 6)
    texts = {choice["text"] for choice in several["choices"]}
    assert len(several["choices"]) == 3 and [text.split() for text in texts] == [[f"w{token}" for token in greedy]]
    assert several["usage"]["prompt_tokens"] == 20
    echo = gateway.http.post("/v1/completions", json=body | {"max_tokens": 0, "echo": True, "logprobs": 1}).json()
    told = echo["choices"][0]["logprobs"]["token_logprobs"]
    assert told[0] is None and len(told) == 20 and all(one < 0 for one in told[1:])


def test_memory_for_keys_and_values_is_a_limit(tmp_path, start_gateway):
    folder = write_folder(tmp_path / "tiny", "phi3", max_position_embeddings=4096, sliding_window=None)
    gateway = start_gateway(arguments=["--model", folder, "--kv-memory-mib", "1"])
    (card,) = gateway.http.get("/v1/models").json()["data"]
    # A token's keys and values: 3 layers, 2 heads, 16 numbers each of four bytes.
    assert card["max_model_len"] == (1 << 20) // (3 * 2 * 2 * 16 * 4) // 16 * 16
    room = card["max_model_len"]
    body = {"model": "tiny", "prompt": [5] * (room + 1), "max_tokens": 1}
    refused = gateway.http.post("/v1/completions", json=body)
    assert refused.status_code == 400 and str(room) in refused.json()["error"]["message"]
    assert gateway.http.post("/v1/completions", json=body | {"prompt": [5] * (room - 1)}).status_code == 200


def test_what_is_not_computed_is_refused(tmp_path, doctor):
    """By the doctor as by a start, before weights are read."""
    folder = write_folder(tmp_path / "tiny", "gemma2")
    found = doctor("--model", folder)
    expect(found, "model", "ok", "Gemma2ForCausalLM", "one sequence at a time", "context 128")
    for changes, words in [
        ({"architectures": ["FalconForCausalLM"], "model_type": "falcon"}, ["`model_type` falcon", "`Gemma2ForCausalLM`", "Llama"]),
        ({"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, ["linear", "plain"]),
        ({"hidden_activation": "relu"}, ["hidden_activation", "relu"]),
        ({"num_attention_heads": 0}, ["num_attention_heads"]),
        ({"num_hidden_layers": 1 << 22}, ["num_hidden_layers"]),
    ]:
        (folder / "config.json").write_text(json.dumps(config_of("gemma2") | changes))
        expect(doctor("--model", folder), "model", "failed", *words)
