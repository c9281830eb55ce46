"""`tollgate import-prices`: what LiteLLM's file says is what the gateway bills, to the last digit."""

import csv
import json
import re
import shutil
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest

from conftest import ROOT, component, exact, free_port, replace_file
from test_settings import run
from test_tenants import CHAT, ROUTE
from backends import ANSWER, scripted, send_json  # noqa: F401 - a fixture

FILE = Path(__file__).with_name("litellm_prices.json")
PRICES = json.loads(FILE.read_text(), parse_float=Decimal)


def imported(*arguments, status=0):
    code, stdout, stderr = run("import-prices", FILE, *arguments)
    assert code == status, stderr
    return stdout, stderr


def test_the_table_is_one_that_the_plugin_takes(tmp_path):
    stdout, stderr = imported("--strip-prefix", "--left-out", tmp_path / "left.csv")
    table = json.loads(stdout)
    assert [entry["match"] for entry in table["models"]] == ["embed", "large", "large", "ranged", "small"]
    assert table["models"][1]["service_tier"] == "flex" and table["models"][1]["cache_read"] == "$0.31/M"
    assert table["models"][2]["context_over"] == [{"tokens": 200000, "input": "$2.5/M", "output": "$16.5/M"}]
    (tmp_path / "table.json").write_text(stdout)
    code, said, _ = run("plugin", "check", "--config", tmp_path / "table.json", component("cost-per-token"))
    assert code == 0, said
    assert "4 models imported" in stderr and "input_cost_per_image" in stderr
    left = list(csv.DictReader((tmp_path / "left.csv").open()))
    assert {(row["model"], row["field"]) for row in left} == {
        ("acme/free", "*"),
        ("acme/picture", "*"),
        ("acme/picture", "output_cost_per_image"),
        ("acme/large", "input_cost_per_image"),
        ("acme/large", "search_context_cost_per_query"),
    }


def test_what_there_is_to_choose():
    assert [entry["match"] for entry in json.loads(imported("--provider", "other")[0])["models"]] == ["other/small"]
    assert "acme/free" in imported("--keep-free")[0] and "acme/free" not in imported()[0]
    assert "no model" in imported("--provider", "nobody", status=1)[1]


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_a_file_that_is_none(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    code, _, stderr = run("import-prices", tmp_path / "x.json")
    assert code == 1 and "no price file" in stderr
    code, _, stderr = run("import-prices", tmp_path / "none.json")
    assert code == 1 and "cannot read" in stderr


@pytest.fixture
def billed(start_gateway, scripted, tmp_path):  # noqa: F811 - the fixture
    """What a gateway with the imported prices bills for an answer with that usage, and what becomes of another model."""
    plugins_toml, _ = imported("--format", "plugins-toml", "--strip-prefix")
    answers = []
    server = scripted(lambda connection, _: send_json(connection, answers[-1]))
    backends = tmp_path / "backends.toml"
    backends.write_text(f'[[backend]]\nname = "b"\nurl = "{server.url}/v1"\n')
    gateway = start_gateway(plugins=("cost-per-token",), plugins_toml=plugins_toml, arguments=["--backends", backends])

    def billed(model, usage, **more):
        answers.append(ANSWER | {"model": model, "usage": usage} | more)
        asked = gateway.http.post(ROUTE, json=CHAT | {"model": model} | more)
        assert asked.status_code == 200, asked.text
        return exact(asked)["cost"]

    return billed


def usage_of(tokens):
    return {
        "prompt_tokens": tokens,
        "completion_tokens": 77,
        "total_tokens": tokens + 77,
        "prompt_tokens_details": {"cached_tokens": 123},
        "completion_tokens_details": {"reasoning_tokens": 7},
    }


@pytest.mark.parametrize(("tier", "tokens"), [(None, 1000), (None, 200_001), ("flex", 1000)])
def test_what_is_billed(billed, tier, tokens):
    cost = billed("large", usage_of(tokens), **({"service_tier": tier} if tier else {}))
    of = PRICES["acme/large"]
    end = "_flex" if tier else "_above_200k_tokens" if tokens > 200_000 else ""
    wanted = (tokens - 123) * of[f"input_cost_per_token{end}"] + 123 * of["cache_read_input_token_cost"]
    wanted += 70 * of[f"output_cost_per_token{end}"] + 7 * of["output_cost_per_reasoning_token"]
    assert cost["status"] == "priced" and Decimal(cost["amount"]) == wanted
    assert billed("free", usage_of(tokens))["status"] == "unpriced"


def test_what_is_billed_by_ranges(billed):
    """The whole request by the range of its input; cached tokens of a range that says nothing of them cost what its input does."""
    ranges = PRICES["acme/ranged"]["tiered_pricing"]
    for tokens, index in [(1000, 0), (32_000, 0), (32_001, 1), (128_000, 1), (128_001, 2), (256_001, 2)]:
        of = ranges[index]
        cached = of.get("cache_read_input_token_cost", of["input_cost_per_token"])
        wanted = (tokens - 123) * of["input_cost_per_token"] + 123 * cached + 77 * of["output_cost_per_token"]
        cost = billed("ranged", usage_of(tokens))
        assert cost["status"] == "priced" and Decimal(cost["amount"]) == wanted, tokens


COOKBOOK = (ROOT / "plugins/COOKBOOK.md").read_text()
# An entry of plugins.toml, the amount and its currency, and the usage that costs it.
RECIPES = re.findall(r"(?ms)^```toml\n([^`]*?)^```\n\n`(\S+) ([A-Z]{3})` for\n\n```json\n(.*?)^```$", COOKBOOK)
ALLOWANCE = re.search(r"(?ms)^```toml\n(\[\[tenant\]\][^`]*?)^```$", COOKBOOK)[1]


def test_the_cookbook(start_gateway, tmp_path):
    """Each recipe, pasted into the folder of a gateway that runs, costs what it says, asked of the plugin it is about."""
    assert len(RECIPES) == len(re.findall(r"(?m)^`\S+ [A-Z]{3}` for$", COOKBOOK)) == 9
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "keys.toml").write_text(ALLOWANCE)
    arguments = ["--admin-listen", address, "--keys-file", tmp_path / "keys.toml"]
    gateway = start_gateway(plugins=("cost-per-token", "cost-device-seconds"), arguments=arguments)
    for entry, amount, currency, usage in RECIPES:
        replace_file(gateway.plugins / "plugins.toml", entry)
        copy = gateway.plugins / "cost-in-euros.wasm"
        copy.unlink(missing_ok=True)
        if copy.name in entry:
            shutil.copyfile(component("cost-per-token"), copy)
        reloaded = gateway.http.post(f"http://{address}/admin/plugins/reload").json()
        assert not [plugin for plugin in reloaded["plugins"] if plugin["error"]], entry
        file = tomllib.loads(entry)["plugin"][-1]["file"]
        usage = {"request_model": "m"} | json.loads(usage)
        priced = gateway.http.post(f"http://{address}/admin/plugins/{file}/price", json=usage).json()
        assert (priced.get("status"), priced.get("amount"), priced.get("currency")) == ("priced", amount, currency), (entry, priced)
        if copy.name in entry:
            costs = {model: gateway.complete(model=model, max_tokens=1)["cost"] for model in ("mistral-7b", "gpt-4o-mini")}
            assert {model: cost["currency"] for model, cost in costs.items()} == {"mistral-7b": "EUR", "gpt-4o-mini": "USD"}
            assert all(cost["status"] == "priced" for cost in costs.values())
    (tenant,) = gateway.http.get(f"http://{address}/admin/limits").json()["tenants"]
    (budget,) = tenant["budgets"]
    assert (tenant["name"], budget["amount"], budget["currency"], budget["per"]) == ("acme", "5", "USD", "month")
