"""The forward pass agrees with one that shares no code with it."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, environment
from independent_llama import SHAPES, Independent, write_folder

LOGITS = Path(os.environ.get("TOLLGATE_LOGITS", ROOT / "target/debug/examples/logits"))
TOLERANCE = 1e-3
PROMPT = [int(token) for token in np.random.default_rng(7).integers(2, 128, size=70)]
FOLLOWING = 24


def ours(folder):
    """What `cargo run -p tollgate-model --example logits` prints."""
    assert LOGITS.is_file(), f"{LOGITS} is missing: cargo build -p tollgate-model --example logits"
    done = subprocess.run(
        [LOGITS, folder, str(FOLLOWING)],
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
    theirs = Independent(folder)
    answer = ours(folder)

    expected = theirs.logits(PROMPT)
    logits = np.array(answer["logits"], dtype=np.float64)
    assert logits.shape == expected.shape
    assert expected.std() > 0.3, "logits that hardly differ would agree by chance"
    assert np.abs(logits - expected).max() < TOLERANCE

    greedy, leads = theirs.greedy(PROMPT, FOLLOWING)
    assert min(leads) > TOLERANCE, "a tie would make the tokens a matter of rounding"
    assert len(set(greedy)) > 3, "a model that repeats itself shows little"
    assert answer["greedy"] == greedy


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
