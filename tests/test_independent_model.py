"""The forward pass agrees with one that shares no code with it."""

import json
import os
import subprocess
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, environment
from independent_llama import SHAPES, Independent, damage, store, write_folder, write_gguf

LOGITS = Path(os.environ.get("TOLLGATE_LOGITS", ROOT / "target/debug/examples/logits"))
TOLERANCE = 1e-3
PROMPT = [int(token) for token in np.random.default_rng(7).integers(2, 128, size=70)]
FOLLOWING = 24


def ours(folder, *piece):
    """What `cargo run -p tollgate-model --example logits` prints of a folder or GGUF file. The prompt is read at once, or so many
    tokens at a time."""
    assert LOGITS.is_file(), f"{LOGITS} is missing: cargo build -p tollgate-model --example logits"
    done = subprocess.run(
        [LOGITS, folder, str(FOLLOWING), *map(str, piece)],
        input=json.dumps(PROMPT),
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_and_greedy_tokens_agree(tmp_path, shape):
    folder = write_folder(tmp_path / shape, shape)
    agree(ours(folder), Independent(folder))


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_numbers_of_each_kind_in_several_files_agree(tmp_path, kind):
    folder = write_folder(tmp_path / kind, "grouped-query")
    theirs = store(folder, kind, 3)
    assert len(list(folder.glob("*.safetensors"))) == 3
    agree(ours(folder), theirs)


@pytest.mark.parametrize("packing", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "llama3-positions"])
def test_the_same_model_as_gguf_agrees(tmp_path, shape, packing):
    folder = write_folder(tmp_path / shape, shape)
    file = write_gguf(folder, tmp_path / "model.gguf", packing)
    agree(ours(file), Independent(folder))


def agree(answer, theirs):
    expected = theirs.logits(PROMPT)
    logits = np.array(answer["logits"], dtype=np.float64)
    assert logits.shape == expected.shape
    assert expected.std() > 0.3, "logits that hardly differ would agree by chance"
    assert np.abs(logits - expected).max() < TOLERANCE

    greedy, leads = theirs.greedy(PROMPT, FOLLOWING)
    # From a tie on, the tokens are a matter of rounding.
    decided = next((at for at, lead in enumerate(leads) if lead <= TOLERANCE), FOLLOWING)
    assert decided >= 4 and len(set(greedy[:decided])) > 2, f"too little to compare: {leads}"
    assert answer["greedy"][:decided] == greedy[:decided]


def test_a_gguf_file_is_served(tmp_path, start_gateway):
    """Its tokenizer too: `the` is one token by the file's merges, and a begin token is not added unless it asks."""
    folder = write_folder(tmp_path / "tiny", "grouped-query")
    gateway = start_gateway(arguments=["--model", write_gguf(folder, tmp_path / "tiny.gguf", "Q8_0")])
    assert [model["id"] for model in gateway.http.get("/v1/models").json()["data"]] == ["tiny"]
    answer = gateway.complete(model="tiny", prompt="the thin", max_tokens=8, temperature=0)
    assert answer["prompt_tokens"] == len(["the", "\u0120", "th", "i", "n"])
    assert 1 <= answer["completion_tokens"] <= 8


def test_a_model_folder_is_served(tmp_path, start_gateway):
    """The same folder through the whole program, token by token."""
    folder = write_folder(tmp_path / "tiny", "grouped-query")
    gateway = start_gateway(arguments=["--model", folder])
    (served,) = [model["id"] for model in gateway.http.get("/v1/models").json()["data"]]
    greedy, _ = Independent(folder).greedy(PROMPT, 12)
    body = {"model": served, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    answer = gateway.complete(**body)
    expected = greedy[: greedy.index(1)] if 1 in greedy else greedy
    assert answer["text"].split() == [f"w{token}" for token in expected]
    assert answer["prompt_tokens"] == len(PROMPT)


def test_a_model_that_fails_in_the_middle_is_billed_what_it_made(tmp_path, start_gateway):
    folder = write_folder(tmp_path / "tiny", "grouped-query")
    greedy, _ = Independent(folder).greedy(PROMPT, 12)
    at = next(at for at, token in enumerate(greedy) if at >= 3 and token not in [1, *PROMPT, *greedy[:at]])
    assert 1 not in greedy[:at], "it ends before it could fail"
    damage(folder, greedy[at])
    price = '{ match = "*", input = "$1/M", output = "$2/M" }'
    gateway = start_gateway(
        arguments=["--model", folder],
        plugins=["cost-per-token"],
        plugins_toml=f'[[plugin]]\nfile = "cost-per-token.wasm"\nconfig = {{ models = [{price}] }}\n',
    )
    (served,) = [model["id"] for model in gateway.http.get("/v1/models").json()["data"]]
    body = {"model": served, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    plain = gateway.http.post("/v1/completions", json=body)
    assert plain.status_code == 500 and "failed while answering" in plain.json()["error"]["message"]
    with gateway.http.stream("POST", "/v1/completions", json=body | {"stream": True}) as stream:
        trace = stream.headers["x-tollgate-trace-id"]
        lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: ")]
    text = "".join(json.loads(line)["choices"][0]["text"] for line in lines if "choices" in line)
    assert text.split() == [f"w{token}" for token in greedy[: at + 1]]
    assert "failed while answering" in lines[-1] and "[DONE]" not in lines
    for trace_id in (plain.headers["x-tollgate-trace-id"], trace):
        attributes = gateway.root_span(trace_id)["attributes"]
        assert attributes["tollgate.outcome"] == "failed" and attributes["tollgate.cost.status"] == "priced"
        assert attributes["gen_ai.usage.output_tokens"] == at + 1
        expected = Decimal(len(PROMPT) + 2 * (at + 1)) / 1_000_000
        assert Decimal(attributes["tollgate.cost.amount"]) == expected
    # Only what reads that token fails.
    assert gateway.complete(model=served, prompt=PROMPT, max_tokens=at)["completion_tokens"] == at
