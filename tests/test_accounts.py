"""What the books say afterwards: `tollgate report`, `reprice`, `reconcile` and `audit verify` on records of real requests."""

import csv
import gzip
import io
import json
import shutil
import sqlite3
import subprocess
from collections import defaultdict
from decimal import Decimal

import pytest

from conftest import PROGRAM, component, environment, replace_file, until


def prices(factor):
    models = [{"match": "mistral-7b", "input": f"${factor}/M", "output": f"${2 * factor}/M"}]
    return json.dumps({"models": models})


def manifest(factor):
    model = f'{{ match = "mistral-7b", input = "${factor}/M", output = "${2 * factor}/M" }}'
    return f'[[plugin]]\nfile = "cost-per-token.wasm"\nconfig = {{ models = [{model}] }}\n'


def tollgate(*arguments, status=0):
    command = [PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout if status == 0 else done.stdout + done.stderr


def answer(*arguments, status=0):
    return json.loads(tollgate(*arguments, "--format", "json", status=status))


class Books:
    """A gateway that has served some requests, and what its clients were told of each."""

    def __init__(self, gateway):
        self.gateway, self.told = gateway, []
        for tenant in ("acme", "globex"):
            for model in ("mistral-7b", "gpt-4o-mini"):
                for tokens in (3, 8):
                    self.ask(tenant, model, tokens)

    def ask(self, tenant, model, tokens):
        self.told.append((tenant, model, self.gateway.complete(model=model, user=tenant, max_tokens=tokens)))

    @property
    def ledger(self):
        return self.gateway.data / "ledger"

    def sums(self):
        """Amount and tokens by tenant and model, as clients were told."""
        sums = defaultdict(lambda: [None, 0, 0])
        for tenant, model, told in self.told:
            group = sums[tenant, model]
            if told["cost"]["status"] == "priced":
                group[0] = (group[0] or 0) + Decimal(told["cost"]["amount"])
            group[1] += told["prompt_tokens"]
            group[2] += told["completion_tokens"]
        return dict(sums)


@pytest.fixture
def books(start_gateway):
    return Books(start_gateway(plugins=["cost-per-token"], plugins_toml=manifest(1)))


def grouped(report):
    def amount(group):
        assert len(group["amounts"]) <= 1
        return Decimal(group["amounts"][0]["amount"]) if group["amounts"] else None

    return {
        (group["tenant"], group["model"]): [amount(group), group["tokens"]["input"], group["tokens"]["output"]]
        for group in report["groups"]
    }


def test_a_report_adds_up_what_clients_were_told(books):
    data = ("--data-dir", books.gateway.data)
    report = answer("report", *data)
    assert grouped(report) == books.sums()
    total = report["total"]
    assert total["requests"] == len(books.told) and total["outcomes"] == {"completed": 8}
    assert total["cost_status"]["priced"] == 4 and total["cost_status"]["unpriced"] == {"unknown_model": 4}
    assert 0 < total["duration_ms"]["p50"] <= total["duration_ms"]["p90"] <= total["duration_ms"]["p99"]
    assert 0 < total["first_token_ms"]["p50"] <= total["duration_ms"]["p99"]

    rows = list(csv.DictReader(io.StringIO(tollgate("report", *data, "--format", "csv", "--by", "plugin,day,tenant"))))
    assert sum(Decimal(row["amount"]) for row in rows if row["amount"]) == Decimal(total["amounts"][0]["amount"])
    digests = {told["cost"]["plugin"]["digest"] for _, _, told in books.told if told["cost"]["status"] == "priced"}
    assert {row["plugin_digest"] for row in rows if row["plugin_digest"]} == digests

    table = tollgate("report", *data, "--tenant", "acme")
    assert "acme" in table and "globex" not in table and "unpriced: unknown_model 2" in table
    assert answer("report", *data, "--until", "2020-01-01")["total"]["requests"] == 0


def test_a_report_from_span_files_is_the_same(books, tmp_path):
    def delivered():
        return sum(span["name"] == "inference.request" for span in books.gateway.spans()) == len(books.told)

    until(delivered, what="all root spans in the file")
    spans = books.gateway.span_file
    packed = tmp_path / "older.ndjson.gz"
    packed.write_bytes(gzip.compress(spans.read_bytes()))
    # What is in both counts once.
    report = answer("report", "--from-spans", spans, packed)
    assert grouped(report) == books.sums()
    assert report["total"]["requests"] == len(books.told)


def test_a_second_ledger_has_the_new_prices_and_the_first_keeps_its_own(books, tmp_path):
    data, second = ("--data-dir", books.gateway.data), tmp_path / "second"
    head = tollgate("audit", "verify", *data).splitlines()[-1]
    candidate = component("cost-per-token")
    reprice = ("reprice", *data, "--plugin", candidate, "--config", prices(3), "--into", second)
    difference = answer(*reprice)
    assert difference["records"] == len(books.told)
    sums = books.sums()
    for group in difference["groups"]:
        old = sums[group["tenant"], group["model"]][0]
        if old is None:
            assert group["amounts"] == [] and group["same"] == group["requests"] == 2
            continue
        (amounts,) = group["amounts"]
        assert [Decimal(amounts[key]) for key in ("old", "new", "difference")] == [old, 3 * old, 2 * old]
        assert group["changed"] == 2
    assert grouped(answer("report", "--ledger", second)) == {
        key: [amount and 3 * amount, *tokens] for key, (amount, *tokens) in sums.items()
    }
    assert "ok" in tollgate("audit", "verify", "--ledger", second)
    assert tollgate("audit", "verify", *data).splitlines()[-1] == head, "the first ledger is as it was"
    # Where no folder is named it is named after the plugin, beside the first.
    beside = books.gateway.data / f"repriced-{difference['plugin']['digest'][:12]}"
    assert answer(*reprice[:-2])["into"] == str(beside)
    assert grouped(answer("report", "--ledger", beside)) == grouped(answer("report", "--ledger", second))
    # Once more would write over it.
    assert "is not empty" in tollgate(*reprice, status=2)
    inside = tollgate(*reprice[:-1], books.ledger / "x", status=2)
    assert "folder of its own" in inside and not (books.ledger / "x").exists()


def test_every_price_comes_out_the_same_from_what_the_gateway_keeps(books, tmp_path):
    """Two configurations, then another plugin: each price names its own, and both are kept."""
    gateway = books.gateway
    replace_file(gateway.plugins / "plugins.toml", manifest(5))

    def dearer():
        books.ask("acme", "mistral-7b", 4)
        told = books.told[-1][2]
        expected = (5 * told["prompt_tokens"] + 10 * told["completion_tokens"]) * Decimal("0.000001")
        return Decimal(told["cost"]["amount"]) == expected

    until(dearer, what="the new configuration")
    (gateway.plugins / "plugins.toml").unlink()
    (gateway.plugins / "cost-per-token.wasm").unlink()

    def free():
        books.ask("acme", "mistral-7b", 2)
        return books.told[-1][2]["cost"]["status"] == "unpriced"

    until(free, what="no plugin")
    priced = sum(told["cost"]["status"] == "priced" for _, _, told in books.told)
    data = ("--data-dir", gateway.data)
    checked = answer("reprice", "--check", *data)
    assert checked["ok"] and checked["same"] == priced and checked["differs"] is None

    # A record that was altered is found by its price, too.
    altered = tmp_path / "altered"
    shutil.copytree(books.ledger, altered / "ledger")
    shutil.copytree(gateway.data / "plugins", altered / "plugins")
    with sqlite3.connect(altered / "ledger/ledger-00000001.sqlite") as file:
        (seq, body), *_ = file.execute("SELECT seq, body FROM entry WHERE cost_status = 'priced' ORDER BY seq").fetchall()
        record = json.loads(body)
        record["usage"]["tokens"]["output"] += 1
        file.execute("UPDATE entry SET body = ? WHERE seq = ?", (json.dumps(record), seq))
    file.close()
    checked = answer("reprice", "--check", "--data-dir", altered, status=1)
    assert checked["differs"]["entry"] == seq and checked["differs"]["request"] == record["id"]

    # What is not kept is named, and can be brought.
    configurations = list((gateway.data / "plugins/configurations").iterdir())
    assert len(configurations) == 2
    for file in configurations:
        config = json.loads(file.read_text())
        if config["models"][0]["input"] == "$5/M":
            file.unlink()
            lost = file.stem
    told = tollgate("reprice", "--check", *data, status=1)
    assert lost in told and "--config" in told
    checked = answer("reprice", "--check", *data, "--config", prices(5))
    assert checked["ok"] and checked["same"] == priced


def test_an_invoice_is_explained_by_status(books, tmp_path):
    data = ("--data-dir", books.gateway.data)
    sums = books.sums()
    ours = sum(amount for amount, *_ in sums.values() if amount)
    (day,) = {group["day"] for group in answer("report", *data, "--by", "day")["groups"]}
    invoice = tmp_path / "invoice.csv"

    def reconciled(*lines, arguments=(), status=0):
        invoice.write_text("date,model,cost\n" + "\n".join(lines) + "\n")
        naming = ("--naming", "requested")
        found = answer("reconcile", *data, "--invoice", invoice, *naming, *arguments, status=status)
        return {row["model"]: row for row in found["rows"]}

    row = reconciled(f"{day},mistral-7b,{ours:f}")["mistral-7b"]
    assert row["verdict"] == "agrees" and Decimal(row["gap"]) == 0
    # What has no price with us is on the provider's bill.
    row = reconciled(f"{day},gpt-4o-mini,0.01")["gpt-4o-mini"]
    assert row["verdict"] == "explained" and row["ours"]["amount"] is None
    assert [(status["status"], status["requests"]) for status in row["statuses"]] == [("unpriced", 4)]
    assert reconciled(f"{day},unheard-of,1")["unheard-of"]["verdict"] == "only_invoice"
    off = reconciled(f"{day},mistral-7b,{ours + Decimal('0.000001'):f}", arguments=["--strict"], status=1)
    assert off["mistral-7b"]["verdict"] == "unexplained" and Decimal(off["mistral-7b"]["gap"]) == Decimal("0.000001")
    invoice.write_text("date,model,cost\nsoon,m,1\n2026-01-01,m,free\n")
    told = tollgate("reconcile", *data, "--invoice", invoice, status=1)
    assert "line 2" in told and "line 3" in told and "--day-format" in told


def test_what_is_typed_wrong_is_told(tmp_path):
    for arguments, word in [
        (["report", "--since", "yesterday"], "7d"),
        (["report", "--since", "2026-02-01", "--until", "2026-01-01"], "until must be later"),
        (["report", "--by", "weather"], "tenant"),
        (["reprice", "--plugin", "x.wasm", "--into", "x", "--check"], "--into"),
        (["reprice", "--since", "7d"], "--plugin"),
        (["reconcile", "--invoice", "x.csv", "--currency", "money"], "ISO 4217"),
    ]:
        assert word in tollgate(*arguments, "--data-dir", tmp_path, status=2)
    assert "--data-dir" in tollgate("report", "--data-dir", tmp_path, status=1)
