"""What plugins/README.md and the README of the examples show beside the way that `test_authoring` follows: code that compiles,
cases that are taken, configurations that plugins take."""

import enum
import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
import types
from decimal import Decimal

import jsonschema
import pytest

from conftest import BUNDLED, PROGRAM, ROOT, component, environment, replace_file, until
from pages import PAGES, block, blocks, shell, shell_environment  # noqa: F401 - a fixture
from test_settings import run

GUIDE = "plugins/README.md"
LONG = {"timeout": 600, "capture_output": True, "text": True}


def test_what_the_first_page_shows_is_of_the_guide():
    """The guide's are typed and compiled; what README has of them has to be the same."""
    guide = {line.partition(" #")[0].strip() for found in blocks(GUIDE, "sh") for line in found.text.splitlines()}
    typed = [line.partition(" #")[0].strip() for line in block("README.md", "tollgate plugin new").splitlines()]
    assert len(typed) > 4 and not [line for line in typed if line not in guide]
    assert block("README.md", "impl CostModel", "rust").strip() in block(GUIDE, "use tollgate_plugin", "rust")


def test_the_entry_of_a_cost_model(start_gateway):
    """What the README of each one says is needed beside its component, beside the bundled ones that know all models."""
    entries = {}
    for language in ("rust", "python", "javascript"):
        name = f"{language}-cost"
        entries[language] = block(f"plugins/examples/{name}/README.md", "[[plugin]]", "toml").replace(f'"{name}.wasm"', '"rust-cost.wasm"')
        schema = json.loads((ROOT / f"plugins/examples/{name}/config.schema.json").read_text())
        (told,) = tomllib.loads(entries[language])["plugin"]
        jsonschema.Draft202012Validator(schema).validate(told["config"])
    assert len(set(entries.values())) == 1
    gateway = start_gateway()
    asked = lambda: gateway.complete(prompt="Hi", max_tokens=2)["cost"]  # noqa: E731
    serving = lambda name: until(lambda: name in gateway.log(), 30, name)  # noqa: E731
    replace_file(gateway.plugins / "rust-cost.wasm", component("rust-cost").read_bytes())
    serving("acme/rust-cost")
    assert asked()["plugin"]["name"] == "tollgate/cost-per-token", "the component alone changes nothing"
    replace_file(gateway.plugins / "plugins.toml", entries["rust"])
    cost = until(lambda: (cost := asked())["plugin"]["name"] == "acme/rust-cost" and cost, 30, "a price by the new one")
    answer = gateway.complete(prompt="Hi", max_tokens=2)
    tokens = answer["prompt_tokens"] * 3 + answer["completion_tokens"] * 4
    assert Decimal(answer["cost"]["amount"]) == Decimal(tokens) / 10**6 and cost["status"] == "priced"


TESTED = """
{settings}

impl Plugin for Settings {{
    fn describe() -> PluginInfo {{
        {info}
    }}
    fn configure(config: Config) -> Result<Self, ConfigError> {{
        {parsed}
        Ok(settings)
    }}
}}

#[cfg(test)]
mod tests {{
    use super::*;
    use tollgate_plugin::testing::{{Case, Configured}};

    #[test]
    fn what_it_costs() {{
        {tests}
    }}

    #[test]
    fn what_it_says_of_a_fault() {{
        let configured = |json| Configured::<Settings>::configure(json).map(|_| ()).map_err(|fault| format!("{{fault:?}}"));
        assert_eq!(configured(r#"{{"input": "$1/M", "output": "$2/M"}}"#), Ok(()));
        let fault = configured(r#"{{"input": "$0.15", "output": "$2/M"}}"#).unwrap_err();
        assert!(fault.contains("/input") && fault.contains("has no unit; write it like $0.15/M"), "{{fault}}");
    }}
}}
"""


def test_rust_of_the_guide(tmp_path, shell_environment):  # noqa: F811 - the fixture
    """All of it in one crate, compiled and run without WebAssembly, as the guide says that one can."""
    sdk = ROOT / "plugins/sdk"
    new = ["new", "flat", "--lang", "rust", "--role", "cost-model", "--sdk", sdk]
    assert subprocess.run([PROGRAM, "plugin", *new], cwd=tmp_path, **LONG).returncode == 0
    settings, parsed = block(GUIDE, "#[derive(serde", "rust").strip().rsplit("\n\n", 1)
    shown = {"settings": settings, "parsed": parsed, "info": block(GUIDE, "PluginInfo::new", "rust").strip()}
    tests = TESTED.format(tests=block(GUIDE, "let plugin =", "rust"), **shown)
    (tmp_path / "flat/src/lib.rs").write_text(block(GUIDE, "use tollgate_plugin", "rust") + tests)
    done = subprocess.run(["cargo", "test", "--quiet"], cwd=tmp_path / "flat", env=shell_environment, **LONG)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.fixture
def world(monkeypatch):
    """The types that componentize-py writes from the contract, as far as a filter names them; the SDK is the real one."""
    monkeypatch.syspath_prepend(str(ROOT / "plugins/sdk-python"))
    names = {
        "wit_world": {},
        "wit_world.exports": {"ExportFilter": object},
        "wit_world.exports.export_filter": {"Verdict": enum.Enum("Verdict", "KEEP DROP"), "Filtered": object},
        "wit_world.exports.lifecycle": {
            f"AttributeSelector_{kind}": type(kind, (), {"__init__": lambda self, value: setattr(self, "value", value)})
            for kind in ("Key", "Prefix")
        },
        "wit_world.imports": {},
        "wit_world.imports.edits": dict.fromkeys(("Edit", "EditList", "EditOp"), object),
        "wit_world.imports.types": dict.fromkeys(("Slot", "TextRef", "ValueKind"), object),
    }
    for name, defined in names.items():
        module = types.ModuleType(name)
        vars(module).update(defined)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
    yield sys.modules["wit_world.exports.export_filter"].Verdict
    for name in ("tollgate_filter", "tollgate_spans"):
        sys.modules.pop(name, None)


def test_python_of_the_guide(world):
    shown = {}
    exec("from tollgate_filter import Filter, Verdict\nfrom tollgate_spans import Span, keys\n" + block(GUIDE, "class ExportFilter", "python"), shown)  # noqa: S102
    assert [one.value for one in shown["ExportFilter"].READS] == ["app.feedback"]
    rated, plain = (shown["Span"](None, "s", attributes) for attributes in ({"app.feedback": "bad"}, {}))
    judged = shown["ExportFilter"]().batch
    assert (judged(None, [plain, rated]), judged(None, [plain])) == (world.KEEP, world.DROP)


def test_a_case(tmp_path):
    """The one that is shown is answered by a real plugin: its usage by a price, its span by a label."""
    for name, wanted in (("cost-per-token", "prices"), ("enrich-labels", "enriched")):
        folder = tmp_path / name
        case = folder / "cases/shown"
        case.mkdir(parents=True)
        shutil.copyfile(component(name), folder / "plugin.wasm")
        (case / "in.json").write_text(block(GUIDE, '{ "tenant": "acme",', "json"))
        done = subprocess.run([PROGRAM, "plugin", "test", "plugin.wasm", "--bless"], cwd=folder, env=environment(), **LONG)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(json.loads((case / "out.json").read_text())[wanted]) == 1


CONFIGURATIONS = {"cost-per-token": '{\n  "currency"', "cost-device-seconds": '{ "devices"', "enrich-labels": '{ "labels"', "filter-redact": '{ "salt"'}


@pytest.mark.parametrize("name", BUNDLED)
def test_configurations_of_bundled_plugins(tmp_path, name):
    (shown,) = [found.text for found in blocks(GUIDE, "json") if found.text.startswith(CONFIGURATIONS[name])]
    (tmp_path / "config.json").write_text(shown)
    command = [PROGRAM, "plugin", "check", "--config", tmp_path / "config.json", component(name)]
    done = subprocess.run(command, env=environment(), **LONG)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_manifest_of_the_guide(start_gateway):
    shown = block(GUIDE, "[[plugin]]", "toml")
    (plugin,) = tomllib.loads(shown)["plugin"]
    pin = hashlib.sha256(component("cost-per-token").read_bytes()).hexdigest()
    gateway = start_gateway(plugins=("cost-per-token",), plugins_toml=shown.replace(f'"{plugin["sha256"]}"', f'"{pin}"'))
    answer = gateway.complete(max_tokens=4)
    usage = answer["usage"]
    wanted = (usage["prompt_tokens"] * Decimal("0.20") + usage["completion_tokens"] * Decimal("0.40")) / 10**6
    assert Decimal(answer["cost"]["amount"]) == wanted


def test_prices_are_imported(tmp_path, shell_environment):  # noqa: F811 - the fixture
    model = {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}
    (tmp_path / "model_prices_and_context_window.json").write_text(json.dumps({"gpt-x": model}))
    (tmp_path / "plugins").mkdir()
    shell(block(GUIDE, "tollgate import-prices"), tmp_path, shell_environment)
    (plugin,) = tomllib.loads((tmp_path / "plugins/plugins.toml").read_text())["plugin"]
    assert plugin["config"]["models"][0]["input"] == "$1/M"


@pytest.mark.parametrize("page", [page for page in PAGES if page.endswith("-trace-filter/README.md")])
def test_settings_of_filters_of_traces(tmp_path, page):
    settings, _, manifest = block(page, "# tollgate.toml", "toml").partition("# plugins/plugins.toml\n")
    (tmp_path / "tollgate.toml").write_text(settings)
    assert run("config", "check", tmp_path / "tollgate.toml")[0] == 0
    (plugin,) = tomllib.loads(manifest)["plugin"]
    name = page.split("/")[2]
    assert plugin["file"] == f"{name}.wasm" and plugin["whole-traces"] is True
    schema = json.loads((ROOT / f"plugins/examples/{name}/config.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(plugin["config"])
