"""Every dependency in the lock file has a licence that `.deny.toml` lets in, comes from crates.io, and is not banned."""

import json
import re
import subprocess
import tomllib

import pytest

from conftest import ROOT

RULES = tomllib.loads((ROOT / ".deny.toml").read_text())
ALLOWED = set(RULES["licenses"]["allow"])


def holds(expression, allowed=ALLOWED):
    """Whether an SPDX expression can be met; old manifests have `/` for OR."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def either():
        value = both()
        while words and words[0] == "OR":
            words.pop(0)
            value = both() or value
        return value

    def both():
        value = one()
        while words and words[0] == "AND":
            words.pop(0)
            value = one() and value
        return value

    def one():
        word = words.pop(0)
        if word == "(":
            value = either()
            assert words.pop(0) == ")"
            return value
        if words and words[0] == "WITH":
            words.pop(0)
            word = f"{word} WITH {words.pop(0)}"
        return word in allowed

    value = either()
    assert not words, expression
    return value


@pytest.mark.parametrize(
    ("expression", "fine"),
    [
        ("MIT OR GPL-3.0", True),
        ("MIT/GPL-3.0", True),
        ("GPL-3.0", False),
        ("MIT AND GPL-3.0", False),
        ("(GPL-3.0 OR MIT) AND ISC", True),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", True),
        ("Apache-2.0 WITH Some-exception", False),
    ],
)
def test_expressions(expression, fine):
    assert holds(expression) == fine


@pytest.mark.parametrize("manifest", ["Cargo.toml", "plugins/Cargo.toml"])
def test_dependencies(manifest):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path", ROOT / manifest]
    packages = json.loads(subprocess.run(command, capture_output=True, check=True, text=True, timeout=300).stdout)["packages"]
    assert len(packages) > 10
    banned = {ban["crate"] for ban in RULES["bans"]["deny"]}
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["source"] is None:  # ours
            continue
        assert package["license"] and holds(package["license"]), f"{name}: {package['license']}"
        assert package["name"] not in banned, name
        assert package["source"].endswith("github.com/rust-lang/crates.io-index"), name
