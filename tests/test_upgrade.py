"""A ledger that an earlier release has written is read, checked, computed again and written on; one of a later release is refused.

`tests/golden` has one ledger for each form that a release has written, with what that release said of it; `write.py` beside them says
how they were made.
"""

import hashlib
import json
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from conftest import PROGRAM, environment

GOLDEN = Path(__file__).with_name("golden")
sys.path.insert(0, str(GOLDEN))

from write import PLUGINS_TOML, report  # noqa: E402

LEDGERS = sorted(path.name.removesuffix(".tar.gz") for path in GOLDEN.glob("*.tar.gz"))


def tollgate(*arguments, status=0):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=120, env=environment())
    assert done.returncode == status, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def unpacked(name, folder):
    with tarfile.open(GOLDEN / f"{name}.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    return folder


def said(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def content(folder):
    """Digests of all files; SQLite's own, which come and go, left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm")))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def without_new_fields(now, then):
    """`now`, reduced to what `then` has: later programs tell more."""
    if isinstance(then, dict) and isinstance(now, dict):
        return {key: without_new_fields(now[key], value) for key, value in then.items() if key in now}
    if isinstance(then, list) and isinstance(now, list) and len(now) == len(then):
        return [without_new_fields(*pair) for pair in zip(now, then)]
    return now


def test_there_is_one():
    assert "ledger-1" in LEDGERS


@pytest.mark.parametrize("name", LEDGERS)
def test_an_older_ledger_is_read_and_left_as_it_was(tmp_path, name):
    data = unpacked(name, tmp_path / "data")
    before = content(data)
    then = said(name)
    assert without_new_fields(report(data), then) == then
    assert "entries" in tollgate("audit", "verify", "--data-dir", data)
    tollgate("reprice", "--check", "--data-dir", data)
    assert {path: digest for path, digest in content(data).items() if path in before} == before


@pytest.mark.parametrize("name", LEDGERS)
def test_a_gateway_goes_on_writing_an_older_ledger(tmp_path, start_gateway, name):
    data = unpacked(name, tmp_path / "data")
    then = said(name)["total"]
    gateway = start_gateway(data=data, plugins=("cost-per-token", "enrich-labels"), plugins_toml=PLUGINS_TOML)
    assert gateway.complete(user="acme", max_tokens=3)["cost"]["status"] == "priced"
    gateway.stop()
    now = report(data)["total"]
    assert now["requests"] == then["requests"] + 1
    assert now["outcomes"]["completed"] == then["outcomes"]["completed"] + 1
    tollgate("audit", "verify", "--data-dir", data)
    tollgate("reprice", "--check", "--data-dir", data)


def test_a_newer_ledger_is_refused_and_left_as_it_was(tmp_path, start_gateway):
    data = unpacked("ledger-1", tmp_path / "data")
    (file,) = (data / "ledger").glob("*.sqlite")
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    before = content(data / "ledger")
    gateway = start_gateway(data=data, plugins=("cost-per-token",), ready=False)
    assert gateway.process.wait(60) not in (0, 101)
    answers = [gateway.log()]
    for command in (["report"], ["audit", "verify"], ["reprice", "--check"]):
        done = subprocess.run(
            [PROGRAM, *command, "--data-dir", data], capture_output=True, text=True, timeout=60, env=environment()
        )
        assert done.returncode not in (0, 101), command
        answers.append(done.stderr)
    for answer in answers:
        assert "newer program" in answer and "version 2" in answer and "before the upgrade" in answer, answer
    assert content(data / "ledger") == before
