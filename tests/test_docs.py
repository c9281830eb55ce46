"""What the pages in `host/` show is what happens, tasks that any page names exist, and links lead somewhere."""

import re
import shutil
import stat

import pytest

import pages
from conftest import ROOT, component, free_port
from pages import shell, shell_environment  # noqa: F401 - a fixture

PAGES = [ROOT / name for name in pages.PAGES]


def blocks(page, language="sh"):
    return [found.text for found in pages.blocks(page, language)]


def test_tasks_that_pages_name_exist():
    tasks = set(re.findall(r'(?m)^        name: "([a-z-]+)"', (ROOT / "host/xtask/src/main.rs").read_text()))
    assert {"serve", "release", "deny"} <= tasks
    named = {(page.name, task) for page in PAGES for task in re.findall(r"cargo xtask ([a-z][a-z-]*)", page.read_text())}
    assert len(named) > 10
    assert not [pair for pair in named if pair[1] not in tasks]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    def anchors(path):
        titles = re.findall(r"(?m)^#+ (.*)$", path.read_text())
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?ms)^```.*?^```$", "", page.read_text())):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def test_the_setup_of_the_security_page(tmp_path, start_gateway, shell_environment):  # noqa: F811 - the fixture
    verify, setup = blocks("host/SECURITY.md")
    ports = {"TOLLGATE_LISTEN": f"127.0.0.1:{free_port()}", "TOLLGATE_ADMIN_LISTEN": f"127.0.0.1:{free_port()}"}
    folder = tmp_path / "gateway-0"  # where start_gateway starts the first
    folder.mkdir()
    shell(setup, folder, shell_environment | ports)
    for name in ("data", "plugins", "keys.toml", "admin-token", "key", "tollgate.toml"):
        mode = stat.S_IMODE((folder / name).stat().st_mode)
        assert not mode & 0o077, f"{name}: {mode:o}"
    shutil.copyfile(component("cost-per-token"), folder / "plugins/cost-per-token.wasm")
    gateway = start_gateway(plugins=(), arguments=["--config", folder / "tollgate.toml"], env={"TOLLGATE_ADMIN_LISTEN": ports["TOLLGATE_ADMIN_LISTEN"]})
    ask = {"model": "mistral-7b", "prompt": "hi", "max_tokens": 2}
    secret = re.search(r"tg-\S+", (folder / "key").read_text())[0]
    assert gateway.http.post("/v1/completions", json=ask).status_code == 401
    asked = gateway.http.post("/v1/completions", json=ask, headers={"authorization": f"Bearer {secret}"})
    assert asked.status_code == 200 and asked.json()["cost"]["status"] == "priced"
    admin = f"http://{ports['TOLLGATE_ADMIN_LISTEN']}/admin/plugins"
    assert gateway.http.get(admin).status_code == 401
    token = (folder / "admin-token").read_text().strip()
    assert gateway.http.get(admin, headers={"authorization": f"Bearer {token}"}).status_code == 200
    gateway.stop()
    assert re.match(r"head [0-9]+:[0-9a-f]{64}$", shell(verify, folder, shell_environment).strip())


def test_the_sizing_page(tmp_path, start_gateway, shell_environment):  # noqa: F811 - the fixture
    (config,) = blocks("host/SIZING.md", "toml")
    (tmp_path / "tollgate.toml").write_text(config)
    shell("tollgate config check tollgate.toml", tmp_path, shell_environment)
    gateway = start_gateway(arguments=["--config", tmp_path / "tollgate.toml"], data=tmp_path / "data")
    gateway.still_serves()
    gateway.stop()
    (after,) = blocks("host/SIZING.md")
    told = shell(after, tmp_path, shell_environment)
    assert re.search(r"(?m)^[1-9][0-9]*\s+data/ledger$", told) and "mistral-7b" in told, told
    assert (ROOT / "tests/sizing.py").is_file()


def test_the_page_of_other_programs_spans(tmp_path, shell_environment):  # noqa: F811 - the fixture
    (config,) = blocks("host/OTLP.md", "toml")
    (tmp_path / "tollgate.toml").write_text(config)
    shell("tollgate config check tollgate.toml", tmp_path, shell_environment)
