"""What plugins/README.md tells an author to type works as written, from an empty folder to a priced request."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from decimal import Decimal

import pytest

from conftest import PROGRAM, ROOT, component, free_port, until
from pages import is_free, shell_environment  # noqa: F401 - a fixture

GUIDE = ROOT / "plugins/README.md"
PORT = 8080
# What the project promises an author: seconds from an empty folder to a priced request, the build of the plugin included.
PROMISED = 300


def commands(section):
    """The shell commands of one section, each block as one text."""
    text = GUIDE.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def test_the_guide_leads_from_nothing_to_a_priced_request(tmp_path, shell_environment):  # noqa: F811 - the fixture
    blocks = commands("From nothing to serving")
    assert len(blocks) == 4, "build, check, serve, ask"
    script = "set -e\n" + "\n".join(blocks)
    port = PORT
    if not is_free(PORT):
        port = free_port()
        script = script.replace(f":{PORT}", f":{port}")
    work = tmp_path / "work"
    work.mkdir()
    began = time.monotonic()
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=work,
        env=shell_environment | {"TOLLGATE_LISTEN": f"127.0.0.1:{port}"},
        stdin=subprocess.DEVNULL,
        stdout=(tmp_path / "out").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        status = shell.wait(600)
        took = time.monotonic() - began
    finally:
        # Also the gateway that it left in the background.
        os.killpg(shell.pid, signal.SIGTERM)
        until(lambda: is_free(port), 40, "the end of the gateway")
    output = (tmp_path / "out").read_text(errors="replace")
    assert status == 0, output[-4000:]
    print(f"from nothing to a priced request in {took:.0f} s")
    assert took < PROMISED
    # The gateway's own words may follow it on the line.
    answer, _ = json.JSONDecoder(parse_float=Decimal).raw_decode(output, output.index('{"id"'))
    assert answer["cost"]["status"] == "priced", answer
    assert answer["cost"]["plugin"]["name"] == "acme/acme-cost"
    usage = answer["usage"]
    expected = (usage["prompt_tokens"] * Decimal("0.15") + usage["completion_tokens"] * Decimal("0.60")) / 10**6
    assert Decimal(answer["cost"]["amount"]) == expected


TWO_ROLES = """//! A cost model and an enricher in one component.
use tollgate_plugin::*;

struct Both;

impl Plugin for Both {
    fn describe() -> PluginInfo { PluginInfo::new("acme/both", "1.0.0").write("app.both") }
    fn configure(_: Config) -> Result<Self, ConfigError> { Ok(Both) }
}

impl CostModel for Both {
    fn price(&self, _: &Context<'_>, _: &Usage<'_>) -> Priced { Cost::new().finish() }
}

impl Enricher for Both {
    fn enrich(&self, _: &Context<'_>, _: &SpanView<'_>, edits: &mut Edits<'_, '_>) { edits.set("app.both", true); }
}

export_plugin!(Both: CostModel + Enricher);
"""


def test_one_component_plays_two_roles(tmp_path, shell_environment):  # noqa: F811 - the fixture
    new = plugin(tmp_path, "new", "both", "--lang", "rust", "--role", "cost-model", "--sdk", ROOT / "plugins/sdk")
    assert new.returncode == 0, new.stderr
    project = tmp_path / "both"
    (project / "src/lib.rs").write_text(TWO_ROLES)
    shutil.rmtree(project / "cases")
    case = project / "cases/both"
    case.mkdir(parents=True)
    (case / "in.json").write_text(json.dumps({"usages": [{}], "spans": [{}]}))
    price = {"status": "priced", "total": "0", "currency": "USD", "lines": []}
    (case / "out.json").write_text(json.dumps({"prices": [price], "enriched": [{"app.both": True}]}))
    built = plugin(project, "build", env=shell_environment)
    assert built.returncode == 0 and "cost-model, attribute-enricher" in built.stdout, built.stdout + built.stderr
    tested = plugin(project, "test")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def plugin(folder, *arguments, **options):
    return subprocess.run(
        [PROGRAM, "plugin", *arguments], cwd=folder, capture_output=True, text=True, check=False, **options
    )


def cost_cases(folder, expected_total):
    case = folder / "cases/one"
    case.mkdir(parents=True)
    table = {"default": {"input": "$1/M", "output": "$1/M"}}
    (case / "config.json").write_text(json.dumps(table))
    (case / "in.json").write_text(json.dumps({"usages": [{"tokens": {"input": 1}}]}))
    line = {"kind": "input", "quantity": 1, "amount": "0.000001"}
    price = {"status": "priced", "total": expected_total, "currency": "USD", "lines": [line]}
    (case / "out.json").write_text(json.dumps({"prices": [price]}))
    return case


def test_a_case_that_differs_is_shown_and_fails(tmp_path):
    shutil.copyfile(component("cost-per-token"), tmp_path / "cost.wasm")
    case = cost_cases(tmp_path, "0.000002")
    failed = plugin(tmp_path, "test", "cost.wasm")
    assert failed.returncode == 1
    assert '-      "total": "0.000002"' in failed.stdout and '+      "total": "0.000001"' in failed.stdout
    assert plugin(tmp_path, "test", "cost.wasm", "--bless").returncode == 0
    assert json.loads((case / "out.json").read_text())["prices"][0]["total"] == "0.000001"
    passed = plugin(tmp_path, "test", "cost.wasm")
    assert passed.returncode == 0 and "1 passed" in passed.stdout


def test_what_depends_on_earlier_calls_fails(tmp_path):
    shutil.copyfile(component("hostile"), tmp_path / "hostile.wasm")
    case = cost_cases(tmp_path, "0")
    (case / "config.json").write_text(json.dumps({"act": "fickle", "on": "price"}))
    failed = plugin(tmp_path, "test", "hostile.wasm")
    assert failed.returncode == 1 and "depends on what was asked before" in failed.stdout, failed.stdout


def test_the_bench_counts_the_same_each_time(tmp_path):
    shutil.copyfile(component("cost-per-token"), tmp_path / "cost.wasm")
    cost_cases(tmp_path, "0.000001")
    runs = [plugin(tmp_path, "bench", "cost.wasm", "--json") for _ in range(2)]
    first, second = (json.loads(run.stdout)["calls"][0] for run in runs)
    assert first["role"] == "cost-model" and first["fuel"] > 100 and first["bytes_in"] > first["bytes_out"] > 20
    for key in ("fuel", "bytes_in", "bytes_out"):
        assert first[key] == second[key]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("new", "Bad Name", "--lang", "rust", "--role", "cost-model"), "not a name"),
        (("new", "there", "--lang", "python", "--role", "export-filter"), "is there already"),
        (("new", "cost", "--lang", "rust", "--role", "cost-model", "--whole-traces"), "only filters judge"),
        (("build", "there"), "holds no plugin"),
        (("test", "absent.wasm"), "absent.wasm"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, arguments, word):
    (tmp_path / "there").mkdir()
    (tmp_path / "cases").mkdir()
    answer = plugin(tmp_path, *arguments)
    assert answer.returncode == 1 and word in answer.stderr, answer.stderr


def test_a_missing_tool_is_named_with_its_command(tmp_path):
    for language, command in (("python", "pip install -r requirements.txt"), ("javascript", "npm ci")):
        assert plugin(tmp_path, "new", language, "--lang", language, "--role", "cost-model").returncode == 0
        built = plugin(tmp_path, "build", language, env={"PATH": ""})
        assert built.returncode == 1 and command in built.stderr, built.stderr
