"""What a release packs: the same bytes each time, whole, and with a bill of materials that leaves nothing out.

The archive is made of the program under test, which stands in for a release build.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from conftest import BUNDLED, COMPONENTS, PROGRAM, ROOT, component, environment, free_port, until

PACK = PROGRAM.with_name("tollgate-release")
TARGET = "x86_64-unknown-linux-gnu"
EPOCH = 1_767_225_600  # the first second of 2026
NAME = f"tollgate-{tomllib.loads((ROOT / 'Cargo.toml').read_text())['workspace']['package']['version']}-{TARGET}"


def pack(out, components=COMPONENTS, status=0, built=PROGRAM.parent, **env):
    arguments = ["--root", ROOT, "--program", PROGRAM, "--components", components, "--built", built]
    arguments += ["--target", TARGET, "--epoch", str(EPOCH), "--out", out]
    done = subprocess.run([PACK, *arguments], capture_output=True, text=True, timeout=300, env=environment(env), cwd=out.parent)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    out = tmp_path_factory.mktemp("release") / "out"
    pack(out)
    return out


@pytest.fixture(scope="module")
def unpacked(release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(release / f"{NAME}.tar.gz") as tar:
        tar.extractall(folder, filter="tar")
    return folder / NAME


@pytest.fixture(scope="module")
def bill(release):
    return json.loads((release / f"{NAME}.cdx.json").read_text())


def test_the_same_again_from_files_of_another_time_and_place(release, tmp_path):
    other = tmp_path / "components"
    other.mkdir()
    for name in reversed(BUNDLED):
        copy = other / component(name).name
        shutil.copyfile(component(name), copy)
        os.utime(copy, (1, 1))
    pack(tmp_path / "out", components=other, TZ="Asia/Tokyo", LANG="C", TMPDIR=str(tmp_path))
    sums = (release / "SHA256SUMS").read_text()
    assert (tmp_path / "out/SHA256SUMS").read_text() == sums
    for line in sums.splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((release / name).read_bytes()).hexdigest() == digest
    assert len(sums.splitlines()) == 2


def test_no_entry_tells_of_this_machine(release):
    with tarfile.open(release / f"{NAME}.tar.gz") as tar:
        entries = tar.getmembers()
    names = [entry.name for entry in entries]
    assert names == sorted(names) and all(name.startswith(f"{NAME}/") for name in names)
    for entry in entries:
        assert (entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) == (0, 0, "", "", EPOCH), entry.name
        assert entry.mode == (0o755 if entry.name == f"{NAME}/tollgate" else 0o644), entry.name
    plain = (release / f"{NAME}.cdx.json").read_text()
    assert str(ROOT) not in plain and str(Path.home()) not in plain


def test_what_is_unpacked_serves(unpacked, tmp_path):
    """With its own plugins, which it finds beside it."""
    port = free_port()
    command = [unpacked / "tollgate", "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", tmp_path / "data"]
    with (tmp_path / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), cwd=tmp_path)
        try:
            ask = ["curl", "-sf", f"http://127.0.0.1:{port}/v1/completions", "-H", "content-type: application/json"]
            ask += ["-d", '{"model": "mistral-7b", "prompt": "hi", "max_tokens": 2}']
            answer = until(lambda: subprocess.run(ask, capture_output=True).stdout, 60, "an answer")
        finally:
            process.terminate()
            assert process.wait(40) == 0
    assert json.loads(answer)["cost"]["status"] == "priced"


def test_manual_completions_and_papers_are_there(unpacked):
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert files >= {f"plugins/{name}.wasm" for name in BUNDLED}
    assert files >= {"LICENSE", "LICENCES-OF-PARTS.txt", "CHANGELOG.md", "COMPATIBILITY.md", "sbom.cdx.json"}
    assert files >= {"man/man1/tollgate.1", "man/man1/tollgate-serve.1", "completions/tollgate.bash", "completions/_tollgate"}
    assert files >= {"README.md", "prometheus/README.md", *(f"docs/{name}.md" for name in ("FIRST-STEPS", "SECURITY", "SIZING", "OTLP", "MODELS"))}
    assert files >= {"docs/screenshots/request.png", "docs/screenshots/plugins.png"}, "README.md shows them"
    dashboards = {path.name for path in (ROOT / "host/deploy/config/grafana/dashboards").glob("*.json")}
    assert {path.name for path in (unpacked / "grafana").iterdir()} == dashboards and len(dashboards) == 3
    assert not any("hostile" in name or "shapes" in name for name in files)
    subprocess.run(["bash", "-n", unpacked / "completions/tollgate.bash"], check=True)


def test_every_link_of_a_page_leads_to_a_file(unpacked):
    followed = 0
    for page in unpacked.rglob("*.md"):
        text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target or target.startswith("#"):
                continue
            assert (page.parent / target.partition("#")[0]).is_file(), f"{page.relative_to(unpacked)}: {target}"
            followed += 1
    assert followed > 20


def test_the_bill_is_valid(release):
    text = (release / f"{NAME}.cdx.json").read_text()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error
    broken = text.replace('"bomFormat": "CycloneDX"', '"bomFormat": "none"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None


def test_every_reference_leads_somewhere(bill):
    components = [bill["metadata"]["component"], *bill["components"]]
    known = [component["bom-ref"] for component in components]
    assert len(known) == len(set(known))
    needs = {entry["ref"]: set(entry["dependsOn"]) for entry in bill["dependencies"]}
    assert needs.keys() == set(known) and set().union(*needs.values()) <= set(known)
    # Nothing lies there that the program does not need.
    found, waiting = set(), [bill["metadata"]["component"]["bom-ref"]]
    while waiting:
        if (reference := waiting.pop()) not in found:
            found.add(reference)
            waiting += needs[reference]
    assert found == set(known)


def listed(bill, kind):
    return {f"{part['name']}-{part['version']}" for part in bill["components"] if part.get("purl", "").startswith(f"pkg:{kind}/")}


def test_every_crate_whose_sources_the_program_names_is_in_the_bill(bill):
    """The program tells of itself: places of panics carry the names of the crates they are in."""
    found = set()
    for file in [PROGRAM, *map(component, BUNDLED)]:
        found |= set(re.findall(rb"registry/src/[^/\0]+/([A-Za-z0-9_-]+-[0-9]+\.[0-9]+\.[0-9]+[^/\0]*)/", file.read_bytes()))
    found = {name.decode() for name in found}
    assert len(found) > 60
    assert found <= listed(bill, "cargo"), found - listed(bill, "cargo")


def test_what_is_in_the_bill_is_in_the_lock_files(bill):
    locked = {}
    for lock in ("Cargo.lock", "plugins/Cargo.lock"):
        for package in tomllib.loads((ROOT / lock).read_text())["package"]:
            locked[f"{package['name']}-{package['version']}"] = package.get("checksum")
    for part in bill["components"]:
        if part.get("purl", "").startswith("pkg:cargo/"):
            assert part["hashes"] == [{"alg": "SHA-256", "content": locked[f"{part['name']}-{part['version']}"]}]
    page = json.loads((ROOT / "host/assets/dashboard/package.json").read_text())["dependencies"]
    assert listed(bill, "npm") >= {f"{name}-{version}" for name, version in page.items()}
    assert not any("esbuild" in name for name in listed(bill, "npm"))
    plugins = {part["name"]: part for part in bill["components"] if part["type"] == "application"}
    assert plugins.keys() == set(BUNDLED)
    for name, part in plugins.items():
        assert part["hashes"][0]["content"] == hashlib.sha256(component(name).read_bytes()).hexdigest()


def test_each_part_has_its_licence_and_a_text(bill, unpacked):
    text = (unpacked / "LICENCES-OF-PARTS.txt").read_text()
    index, _, texts = text.partition("-" * 80)
    for part in bill["components"]:
        if "purl" not in part:
            continue
        name = f"{part['name']} {part['version']}"
        assert f"{name}: {part['licenses'][0]['expression']}\n" in index, name
        assert f"\n{name}\n" in texts, name
    for words in ("Permission is hereby granted", "Apache License", "Mozilla Public License", "LLVM Exceptions"):
        assert words in texts


def test_what_is_not_built_is_told(tmp_path):
    said = pack(tmp_path / "out", components=tmp_path, status=1)
    assert "cost_device_seconds.wasm" in said and "cargo xtask release" in said
    said = pack(tmp_path / "out", built=tmp_path, status=1)
    assert "cargo xtask release" in said
    assert not (tmp_path / "out").exists()
