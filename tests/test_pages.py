"""No block of the documentation is left out: each is tried by a test that this file names, or says why it cannot be. And no
command in its text has a flag that the program does not know."""

import ast
import re
import subprocess
from fnmatch import fnmatchcase

from conftest import PROGRAM, ROOT, environment
from pages import PAGES, blocks

EXAMPLES = "plugins/examples/*/README.md"
CONFORMANCE = "cargo xtask conformance writes, builds and tests each example with its own tools; test_pages has the flags"
BUILDS = "a release build of everything takes a quarter of an hour; test_docs has the names of tasks"

# Page, how the first line begins, and the test that tries the block.
TRIED = [
    ("README.md", "curl ", "test_readme.py::test_the_first_request"),
    ("README.md", "{", "test_readme.py::test_the_first_request"),
    ("README.md", "inference.request  mistral-7b", "test_readme.py::test_the_first_request"),
    ("README.md", "from openai", "test_readme.py::test_the_client"),
    ("README.md", "OPENAI_API_KEY=", "test_readme.py::test_in_front_of_others"),
    ("README.md", "[[backend]]", "test_readme.py::test_both_files_hold"),
    ("README.md", ": tollgate {", "test_readme.py::test_what_a_stream_ends_with"),
    ("README.md", "inference.request  llama-3-8b", "test_readme.py::test_the_trace_of_a_forwarded_stream"),
    ("README.md", "tollgate key create", "test_readme.py::test_keys"),
    ("README.md", "[[key]]", "test_readme.py::test_both_files_hold"),
    ("README.md", "tollgate init", "test_readme.py::test_the_first_steps"),
    ("README.md", "[[exporter]]", "test_readme.py::test_exporters"),
    ("README.md", "export TOLLGATE_ADMIN_TOKEN", "test_readme.py::test_operate_it"),
    ("README.md", "tollgate plugin list", "test_readme.py::test_operate_it"),
    ("README.md", "tollgate report", "test_readme.py::test_the_ledger"),
    ("README.md", "tollgate plugin new", "test_plugin_pages.py::test_what_the_first_page_shows_is_of_the_guide"),
    ("README.md", "impl CostModel", "test_plugin_pages.py::test_what_the_first_page_shows_is_of_the_guide"),
    ("host/FIRST-STEPS.md", "cargo xtask build", "test_first_hour.py::test_a_price_is_changed_within_minutes"),
    ("host/FIRST-STEPS.md", "", "test_first_hour.py::test_a_price_is_changed_within_minutes"),
    ("host/OPERATING.md", "mkdir -p", "test_operating.py::test_a_ledger_is_copied_while_it_is_written_to_and_put_back"),
    ("host/OPERATING.md", "mv ", "test_operating.py::test_a_ledger_is_copied_while_it_is_written_to_and_put_back"),
    ("host/OPERATING.md", "tollgate key ", "test_operating.py::test_keys_change_hands_without_a_gap"),
    ("host/OPERATING.md", "(umask", "test_operating.py::test_a_token_is_written_for_its_owner_alone"),
    ("host/OTLP.md", "[[exporter]]", "test_docs.py::test_the_page_of_other_programs_spans"),
    ("host/SECURITY.md", "", "test_docs.py::test_the_setup_of_the_security_page"),
    ("host/SIZING.md", "", "test_docs.py::test_the_sizing_page"),
    ("host/deploy/README.md", "cd host/deploy", "test_deploy_page.py::test_secrets_of_compose"),
    ("host/deploy/README.md", "helm install", "test_deploy_page.py::test_the_installation_by_helm"),
    ("host/deploy/README.md", "tollgate key create --keys-file keys.toml", "test_deploy_page.py::test_keys_of_ones_own"),
    ("host/deploy/README.md", "cargo xtask build", "test_deploy_page.py::test_the_installation_under_systemd"),
    ("host/deploy/README.md", "tollgate key create --keys-file /etc", "test_deploy_page.py::test_the_installation_under_systemd"),
    ("plugins/README.md", "rustup target add", "test_authoring.py::test_the_guide_leads_from_nothing_to_a_priced_request"),
    ("plugins/README.md", "tollgate plugin check", "test_authoring.py::test_the_guide_leads_from_nothing_to_a_priced_request"),
    ("plugins/README.md", "mkdir ../plugins", "test_authoring.py::test_the_guide_leads_from_nothing_to_a_priced_request"),
    ("plugins/README.md", "curl ", "test_authoring.py::test_the_guide_leads_from_nothing_to_a_priced_request"),
    ("plugins/README.md", '{ "tenant": "acme",', "test_plugin_pages.py::test_a_case"),
    ("plugins/README.md", "use tollgate_plugin", "test_plugin_pages.py::test_rust_of_the_guide"),
    ("plugins/README.md", "#[derive(serde", "test_plugin_pages.py::test_rust_of_the_guide"),
    ("plugins/README.md", "PluginInfo::new", "test_plugin_pages.py::test_rust_of_the_guide"),
    ("plugins/README.md", "let plugin =", "test_plugin_pages.py::test_rust_of_the_guide"),
    ("plugins/README.md", "class ExportFilter", "test_plugin_pages.py::test_python_of_the_guide"),
    ("plugins/README.md", "[[plugin]]", "test_plugin_pages.py::test_the_manifest_of_the_guide"),
    ("plugins/README.md", "{\n", "test_plugin_pages.py::test_configurations_of_bundled_plugins"),
    ("plugins/README.md", '{ "devices"', "test_plugin_pages.py::test_configurations_of_bundled_plugins"),
    ("plugins/README.md", '{ "labels"', "test_plugin_pages.py::test_configurations_of_bundled_plugins"),
    ("plugins/README.md", '{ "salt"', "test_plugin_pages.py::test_configurations_of_bundled_plugins"),
    ("plugins/COOKBOOK.md", "", "test_prices.py::test_the_cookbook"),
    ("plugins/README.md", "tollgate import-prices", "test_plugin_pages.py::test_prices_are_imported"),
    (EXAMPLES, "[[plugin]]", "test_plugin_pages.py::test_the_entry_of_a_cost_model"),
    (EXAMPLES, "# tollgate.toml", "test_plugin_pages.py::test_settings_of_filters_of_traces"),
]  # fmt: skip

# Likewise, and why none does.
NOT_TRIED = [
    ("README.md", "cargo xtask serve", BUILDS),
    ("README.md", "cargo xtask test", "it is what runs this"),
    ("host/RELEASING.md", "cargo xtask deny", BUILDS),
    ("host/MODELS.md", "cargo build", "not every machine has a GPU and CUDA's compiler; test_pages has the flags"),
    ("host/SIZING.md", "TOLLGATE_BIN=", "it measures for minutes, and says nothing on a machine that is busy; test_docs has the names"),
    ("host/assets/demo-model/README.md", "cargo run", "it trains for 39 minutes"),
    ("host/ARCHITECTURE.md", "host/src ", "a list of folders"),
    ("host/deploy/README.md", "docker build", "there is no container engine; test_deploy enters the root of the image, test_deploy_page has the flags"),
    ("host/deploy/README.md", "docker compose cp", "there is no container engine"),
    (EXAMPLES, "python3 -m venv", CONFORMANCE),
    (EXAMPLES, "npm ci", CONFORMANCE),
    (EXAMPLES, "rustup target add", CONFORMANCE),
    (EXAMPLES, "tollgate plugin build", CONFORMANCE),
]

EVERY = [block for page in PAGES for block in blocks(page)]


def rows(block):
    """The rows that speak of a block: of those whose beginning fits, the longest."""
    fits = [row for row in TRIED + NOT_TRIED if fnmatchcase(block.page, row[0]) and block.text.startswith(row[1])]
    longest = max((len(row[1]) for row in fits), default=0)
    return [row for row in fits if len(row[1]) == longest]


def test_every_block_is_tried():
    assert len(EVERY) > 60
    counted = {(block.page, block.first): [row[2] for row in rows(block)] for block in EVERY}
    assert not [where for where, by in counted.items() if len(by) != 1], "say in this file which test tries it"
    spoken_of = [row for block in EVERY for row in rows(block)]
    assert not [row for row in TRIED + NOT_TRIED if row not in spoken_of], "no block begins so any more"


def test_the_tests_that_try_them_are_there():
    for name in {row[2] for row in TRIED}:
        file, _, function = name.partition("::")
        defined = {node.name for node in ast.parse((ROOT / "tests" / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        assert function in defined, name


def said_of(words):
    """The subcommand that these words name, as far as they are names, and what its help says."""
    path = []
    for word in words:
        if not re.fullmatch(r"[a-z][a-z-]*", word):
            break
        done = subprocess.run([PROGRAM, *path, word, "--help"], capture_output=True, text=True, env=environment(), timeout=60)
        if done.returncode:
            break
        path.append(word)
    done = subprocess.run([PROGRAM, *path, "--help"], capture_output=True, text=True, env=environment(), timeout=60, check=True)
    return path, done.stdout


def commands():
    """Every `tollgate ...` of the pages: in blocks of a shell and in the text."""
    for page in PAGES:
        typed = [block.text.replace("\\\n", " ") for block in blocks(page) if block.language.startswith("sh")]
        text = re.sub(r"(?ms)^ *```.*?^ *```$|``[^`].*?``", "", (ROOT / page).read_text())
        typed += [re.sub(r"\s+", " ", inline) for inline in re.findall(r"`([^`]+)`", text)]
        for line in re.findall(r"(?:^|[\n(;/ ])(?<!install )tollgate +([a-z][^\n]*)", "\n".join(typed)):
            yield page, re.split(r"\s#|[|&;>]", line)[0].split()


def test_commands_are_those_of_the_program():
    found = sorted({(page, *words) for page, words in commands()})
    assert len(found) > 60
    known = {}
    for page, *words in found:
        key = tuple(word for word in words[:2])
        known[key] = known.get(key) or said_of(words)
        path, text = known[key]
        assert path, f"{page}: tollgate {' '.join(words)}"
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), f"{page}: tollgate {' '.join(words)}: {flag}"
