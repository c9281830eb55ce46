"""Chat templates of published models, as the package `guidance` has them, rendered by the gateway and by transformers."""

import ast
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from conftest import ROOT, Gateway



def published():
    """The package's constants, by name: read, not imported, since it would bring servers and notebooks along."""
    source = Path(find_spec("guidance").origin).with_name("chat.py").read_text()
    constants = [(node.targets[0], node.value) for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    named = {target.id: value.value for target, value in constants if isinstance(target, ast.Name) and isinstance(value, ast.Constant)}
    return {name.removesuffix("_template"): text for name, text in named.items() if name.endswith("_template")}


TEMPLATES = published()
CONVERSATIONS = {
    "question": ["user: What is a span?"],
    "dialogue": ["user: Hi", "assistant: Hello!\n", "user:  Two  lines\nof it — «é» "],
    "system": ["system: Be brief.", "user: What is a span?"],
    "system-dialogue": ["system: Be brief.", "user: Hi", "assistant: Hello!", "user: Go on"],
    "out-of-turn": ["user: Hi", "user: Hi again"],
    "thought": ["user: 2 + 2?", "assistant: <think>\neasy\n</think>\n\n4", "user: And 3 + 3?"],
    "empty": ["user: "],
}


def messages(conversation):
    return [dict(zip(("role", "content"), line.split(": ", 1))) for line in CONVERSATIONS[conversation]]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """One with a model for each template."""
    folder = tmp_path_factory.mktemp("templates")
    arguments = ["--console", "off"]
    for name, template in TEMPLATES.items():
        model = folder / name
        shutil.copytree(ROOT / "host/assets/demo-model", model, ignore=shutil.ignore_patterns("corpus"))
        path = model / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
        arguments += ["--model", f"{name}={model}"]
    gateway = Gateway(folder, arguments=arguments)
    try:
        yield gateway.wait_until_ready()
    finally:
        gateway.kill()


def bytes_of_names():
    """What the vocabulary's characters stand for: those that can be seen for themselves, the others, in order, for the rest."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + place): byte for place, byte in enumerate(rest)}


BYTES = bytes_of_names()


def ours(gateway, name, conversation):
    """The prompt, put together from its tokens; none if the template refuses."""
    ask = {"model": name, "messages": messages(conversation), "return_token_strs": True}
    answer = gateway.http.post("/tokenize", json=ask)
    if answer.status_code == 400:
        return None
    assert answer.status_code == 200, answer.text
    return bytes(BYTES[character] for token in answer.json()["token_strs"] for character in token).decode()


def theirs(name, conversation):
    # The gateway's day is always the one that Llama's templates fall back to, so that equal requests cost the same.
    known = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "date_string": "26 Jul 2024"}
    try:
        rendered, _ = render_jinja_template([messages(conversation)], chat_template=TEMPLATES[name], add_generation_prompt=True, **known)
    except TemplateError:
        return None
    return rendered[0]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_of_a_published_model_makes_the_same_prompt(gateway, name):
    rendered = {conversation: theirs(name, conversation) for conversation in CONVERSATIONS}
    assert {conversation: ours(gateway, name, conversation) for conversation in CONVERSATIONS} == rendered
    assert rendered["question"], "it takes a plain question"


def test_there_are_templates_of_the_usual_families():
    families = {name.partition("_")[0] for name in TEMPLATES}
    assert {"chatml", "gemma2", "llama2", "llama3", "llama3dot2", "mistral", "phi3", "qwen2dot5", "qwen3"} <= families
