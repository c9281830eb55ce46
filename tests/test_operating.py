"""host/OPERATING.md and host/BACKENDS.md: what an operator types beside a gateway that serves, and the keys that a file may have."""

import re
import shutil
import sqlite3
import stat
import subprocess
import threading

import pytest

from conftest import ROOT, until
from pages import blocks, shell, shell_environment  # noqa: F401 - a fixture
from test_settings import fails, run
from test_tenants import key_command

PAGE = "host/OPERATING.md"


def typed(name):
    (found,) = [block.text for block in blocks(PAGE, f"sh {name}")]
    return found


@pytest.fixture
def served(start_gateway, tmp_path):
    """A gateway with a key, whose folders are called as on the page."""
    folder = tmp_path / "work"
    folder.mkdir()
    secret = re.search(r"tg-\S+", key_command("create", "--keys-file", folder / "keys.toml", "--tenant", "acme"))[0]

    def start():
        gateway = start_gateway(data=folder / "tollgate-data", arguments=["--keys-file", folder / "keys.toml"])
        gateway.http.headers["authorization"] = f"Bearer {secret}"
        return gateway

    return folder, start


def test_a_ledger_is_copied_while_it_is_written_to_and_put_back(served, shell_environment):  # noqa: F811 - the fixture
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed (Debian: sqlite3)")
    folder, start = served
    gateway = start()
    before = {gateway.complete(max_tokens=1)["trace_id"] for _ in range(5)}
    stop = threading.Event()

    def load():
        while not stop.is_set():
            gateway.complete(max_tokens=1)

    threads = [threading.Thread(target=load, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        said = shell(typed("backup"), folder, shell_environment)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert "acme" in said, said
    copy = folder / "backup/ledger/ledger-00000001.sqlite"
    assert not stat.S_IMODE(copy.parent.stat().st_mode) & 0o077
    assert before <= traces(copy)
    late = gateway.complete(max_tokens=1)["trace_id"]
    gateway.stop()
    shell(typed("restore"), folder, shell_environment)
    gateway = start()
    gateway.complete(max_tokens=1)
    kept = traces(folder / "tollgate-data/ledger/ledger-00000001.sqlite")
    assert before < kept and late not in kept
    code, stdout, stderr = run("audit", "verify", "--data-dir", folder / "tollgate-data")
    assert code == 0, stdout + stderr


def traces(file):
    """The traces of all records of a file, in hexadecimal."""
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(entry)")]
        assert "trace_id" in columns, columns
        found = db.execute("SELECT trace_id FROM entry WHERE number IS NOT NULL").fetchall()
    return {value.hex() if isinstance(value, bytes) else value for (value,) in found}


def test_keys_change_hands_without_a_gap(served, shell_environment):  # noqa: F811 - the fixture
    folder, start = served
    gateway = start()
    old = gateway.http.headers["authorization"]
    said = shell(typed("keys"), folder, shell_environment)
    new = f"Bearer {re.search(r'tg-[A-Za-z0-9_-]+', said)[0]}"
    body = {"model": "mistral-7b", "prompt": "Hi", "max_tokens": 1}
    status = lambda key: gateway.http.post("/v1/completions", json=body, headers={"authorization": key}).status_code  # noqa: E731
    until(lambda: status(new) == 200, 10, "the new key")
    assert status(old) == 200
    ids = re.findall(r"key-[A-Za-z0-9_-]+", run("key", "list", "--keys-file", folder / "keys.toml")[1])
    first = next(line for line in (folder / "keys.toml").read_text().splitlines() if line.startswith("id = "))
    assert len(set(ids)) == 2
    shell(typed("revoke"), folder, shell_environment | {"OLD": first.split('"')[1]})
    until(lambda: status(old) == 401, 10, "the end of the old key")
    assert status(new) == 200


def test_a_token_is_written_for_its_owner_alone(tmp_path, shell_environment):  # noqa: F811 - the fixture
    shell(typed("token"), tmp_path, shell_environment)
    token = tmp_path / "admin-token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and len(token.read_text().strip()) == 64


# backends.toml.

BACKENDS = (ROOT / "host/BACKENDS.md").read_text()
LEAST = '[[backend]]\nname = "a"\nurl = "http://127.0.0.1:9/v1"\n'


def rows():
    """Names and what is said of their values, of all rows of both tables."""
    for name, value in re.findall(r"(?m)^\| (`[^|]*`) \| ([^|]*) \|", BACKENDS):
        for key in re.findall(r"`([\w.-]+)`", name):
            yield key, value


def refused(tmp_path, text):
    file = tmp_path / "backends.toml"
    file.write_text(text)
    return fails(tmp_path, "--backends", file)


def test_the_page_of_backends_has_the_keys_of_the_reader(tmp_path):
    """The reader names all keys that it knows when it meets one that it does not."""
    told = [key for key, _ in rows()]
    known = lambda text: set(re.findall(r"`([\w-]+)`", refused(tmp_path, text).partition("expected")[2]))  # noqa: E731
    assert known("nothing = 1\n") == {key.split(".")[0] for key in told[: told.index("name")]} | {"backend"}
    breaker = {key.removeprefix("breaker.") for key in told if key.startswith("breaker.")}
    assert known("[breaker]\nnothing = 1\n") == breaker
    assert known(LEAST + "nothing = 1\n") == set(told[told.index("name") :])
    health = next(value for key, value in rows() if key == "health")
    assert known(LEAST + "health = { nothing = 1 }\n") == set(re.findall(r"([\w-]+) = ", health))
    alias = next(value for key, value in rows() if key == "models")
    assert known(LEAST + "models = [{ nothing = 1 }]\n") == set(re.findall(r"(\w+) = ", alias)) == {"as", "name"}


def test_the_page_of_backends_has_the_bounds_of_the_reader(tmp_path):
    bounds = {key: re.match(r"(?:(\d+) to|at most) (\d+)", value) for key, value in rows()}
    bounds = {key: found.groups() for key, found in bounds.items() if found}
    assert len(bounds) >= 9
    for key, (least, most) in bounds.items():
        for value in [int(most) + 1] + ([int(least) - 1] if least and int(least) > 0 else []):
            before, after = (f"{key} = {value}\n", "") if key == "retry-budget" or "." in key else ("", f"{key} = {value}\n")
            assert key in refused(tmp_path, before + LEAST + after), (key, value)
    most = [f"{key} = {most}" for key, (_, most) in bounds.items()]
    top = [line for line in most if line.startswith(("retry-budget", "breaker."))]
    (tmp_path / "backends.toml").write_text("\n".join([*top, LEAST, *[line for line in most if line not in top]]) + "\n")
    code, stdout, _ = run("doctor", "--json", "--data-dir", tmp_path / "data", "--backends", tmp_path / "backends.toml")
    assert code in (0, 1) and '"check": "backends"' in stdout and "must be" not in stdout, stdout
