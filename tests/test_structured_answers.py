"""Answers that a JSON schema holds, through OpenAI's own client: whatever the demo model would rather say."""

import json

import jsonschema
import openai
import pytest

PROMPT = "Describe a plugin as JSON."
MESSAGES = [{"role": "user", "content": PROMPT}]
SCHEMAS = {
    "flat": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "role": {"enum": ["cost-model", "attribute-enricher", "export-filter"]},
            "count": {"type": "integer", "minimum": -5, "maximum": 120},
            "signed": {"type": "boolean"},
        },
        "required": ["name", "role", "count", "signed"],
        "additionalProperties": False,
    },
    "nested": {
        "$defs": {"part": {"type": "object", "properties": {"id": {"type": "string", "pattern": "^[a-z]{1,5}-[0-9]{2}$"}}, "required": ["id"], "additionalProperties": False}},
        "type": "object",
        "properties": {
            "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "minItems": 1, "maxItems": 3},
            "note": {"anyOf": [{"type": "null"}, {"const": "é \" \\"}]},
        },
        "required": ["parts", "note"],
        "additionalProperties": False,
    },
    "no-object": {"type": "string", "format": "date"},
}


def held(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_answer_is_what_its_schema_says(gateway, name):
    schema = SCHEMAS[name]
    seen = set()
    for seed in range(4):
        answer = gateway.openai.chat.completions.create(
            model="mistral-7b", messages=MESSAGES, n=16, seed=seed, temperature=1.5, max_tokens=300, response_format=held(schema)
        )
        for choice in answer.choices:
            assert choice.finish_reason == "stop", choice
            jsonschema.validate(json.loads(choice.message.content), schema, format_checker=jsonschema.FormatChecker())
            seen.add(choice.message.content)
    assert len(seen) > 20, "the model has its say in it"


def test_an_object_is_what_is_asked_for(gateway):
    ask = {"model": "mistral-7b", "prompt": PROMPT, "max_tokens": 60, "n": 8, "seed": 3}
    answers = gateway.http.post("/v1/completions", json=ask | {"response_format": {"type": "json_object"}}).json()
    for choice in answers["choices"]:
        assert choice["text"].startswith("{")
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(choice["text"]), dict)
    free = gateway.http.post("/v1/completions", json=ask | {"response_format": {"type": "text"}}).json()
    assert not any(choice["text"].startswith("{") for choice in free["choices"])


def test_streams_limits_and_stop_strings_do_as_ever(gateway):
    create = gateway.openai.chat.completions.create
    ask = {"model": "mistral-7b", "messages": MESSAGES, "seed": 5, "max_tokens": 200, "response_format": held(SCHEMAS["flat"])}
    plain = create(**ask)
    text = plain.choices[0].message.content
    assert plain.choices[0].finish_reason == "stop"
    streamed = list(create(**ask, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == text
    assert streamed[-1].choices[0].finish_reason == "stop"
    cut = create(**ask | {"max_tokens": 5})
    assert cut.choices[0].finish_reason == "length" and text.startswith(cut.choices[0].message.content)
    stopped = create(**ask, stop=['"role"'])
    assert stopped.choices[0].message.content == text[: text.index('"role"')]
    # What would end or bend the text otherwise does not break the schema.
    biased = {"ignore_eos": True, "min_tokens": 150, "repetition_penalty": 1.5}
    bent = create(**ask, logit_bias={str(token): 100 for token in range(300, 340)}, extra_body=biased)
    jsonschema.validate(json.loads(bent.choices[0].message.content), SCHEMAS["flat"])
    told = create(**ask, logprobs=True, top_logprobs=2)
    assert told.choices[0].message.content == text
    assert len(told.choices[0].logprobs.content) == told.usage.completion_tokens


def test_others_in_the_batch_notice_nothing(gateway, in_background):
    ask = {"model": "mistral-7b", "prompt": "What is a span?", "seed": 9, "max_tokens": 80, "ignore_eos": True}
    alone = gateway.http.post("/v1/completions", json=ask).json()["text"]

    def constrained(seed):
        body = {"model": "mistral-7b", "messages": MESSAGES, "n": 4, "seed": seed, "max_tokens": 200, "response_format": held(SCHEMAS["nested"])}
        for choice in gateway.http.post("/v1/chat/completions", json=body).json()["choices"]:
            jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMAS["nested"])

    for seed in range(3):
        in_background(constrained, seed)
    for _ in range(3):
        assert gateway.http.post("/v1/completions", json=ask).json()["text"] == alone


@pytest.mark.parametrize(
    ("response_format", "param", "words"),
    [
        (held({"type": "object", "not": {"type": "string"}}), "response_format", "not"),
        (held({"$ref": "https://example.com/schema"}), "response_format", "schema"),
        (held({"type": "integer", "minimum": 5, "maximum": 1}), "response_format", "schema"),
        (held({"enum": ["x" * 70_000]}), "response_format", "65536 bytes"),
        (held([]), "response_format.json_schema.schema", "an object"),
        ({"type": "xml"}, "response_format.type", "json_schema"),
    ],
)
def test_what_cannot_be_held_is_refused_by_name(gateway, response_format, param, words):
    with pytest.raises(openai.BadRequestError, match=words) as raised:
        gateway.openai.chat.completions.create(model="mistral-7b", messages=MESSAGES, response_format=response_format)
    assert raised.value.param == param
