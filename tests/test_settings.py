"""Flags, variables and file: what is wrong is said in words that help."""

import os
import re
import stat
import subprocess

import pytest

from conftest import MACHINE_CODE, PROGRAM, environment, free_port, until


def run(*arguments, env=(), text=None):
    """The program, run to its end."""
    done = subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, timeout=60, env=environment(env), input=text
    )
    return done.returncode, done.stdout, done.stderr


def fails(folder, *arguments, data=None, env=()):
    code, _, stderr = run("serve", "--data-dir", data or folder / "data", "--plugins", folder, *arguments, env=env)
    assert code not in (0, 101) and code > 0, f"{code}: {stderr}"
    assert "panicked" not in stderr
    return stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('lisen = "127.0.0.1:0"', ["lisen", "listen"]),
        ('data_dir = "x"', ["data_dir", "data-dir"]),
        ("listen = 8080", ["listen", "line 1"]),
        ('listen = "everywhere"', ["listen"]),
        ('console = "loud"', ["loud", "tree"]),
        ("max-running = 0", ["max-running", "at least 1"]),
        ("listen = [", ["line 1"]),
    ],
)
def test_the_file(tmp_path, text, words):
    file = tmp_path / "tollgate.toml"
    file.write_text(text + "\n")
    stderr = fails(tmp_path, "--config", file)
    assert all(word in stderr for word in words), stderr


def test_a_file_that_is_not_there(tmp_path):
    assert "no-such.toml" in fails(tmp_path, "--config", tmp_path / "no-such.toml")


def test_variables(tmp_path):
    stderr = fails(tmp_path, env={"TOLLGATE_LISTN": "127.0.0.1:0"})
    assert "TOLLGATE_LISTN" in stderr and "TOLLGATE_LISTEN" in stderr
    assert "TOLLGATE_LISTEN" in fails(tmp_path, env={"TOLLGATE_LISTEN": "nowhere"}) or "--listen" in fails(
        tmp_path, env={"TOLLGATE_LISTEN": "nowhere"}
    )


def test_flags(tmp_path):
    stderr = fails(tmp_path, "--lisen", "127.0.0.1:0")
    assert "--lisen" in stderr and "--listen" in stderr
    assert "70000" in fails(tmp_path, "--listen", "127.0.0.1:70000")


def test_a_model_that_is_not_there(tmp_path):
    assert "no-such-folder" in fails(tmp_path, "--listen", f"127.0.0.1:{free_port()}", "--model", "./no-such-folder")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert "gguf" in fails(tmp_path, "--listen", f"127.0.0.1:{free_port()}", "--model", tmp_path / "x.gguf").lower()


def test_a_port_in_use(gateway, tmp_path):
    stderr = fails(tmp_path, "--listen", f"127.0.0.1:{gateway.port}")
    assert str(gateway.port) in stderr and "use" in stderr
    gateway.still_serves()


def test_a_data_folder_in_use(gateway, tmp_path):
    stderr = fails(tmp_path, "--listen", f"127.0.0.1:{free_port()}", data=gateway.data)
    assert "in use by another process" in stderr
    gateway.still_serves()


def test_the_file_and_variables_work(start_gateway, tmp_path):
    file = tmp_path / "tollgate.toml"
    file.write_text("max-body-bytes = 400\n")
    gateway = start_gateway(env={"TOLLGATE_CONFIG": str(file), "TOLLGATE_CONSOLE": "json"})
    assert gateway.http.post("/v1/completions", json={"prompt": "x" * 500}).status_code == 413
    gateway.still_serves()
    assert '"inference.request"' in gateway.log()


def test_what_is_recorded_is_for_the_gateways_user_alone(start_gateway, tmp_path, monkeypatch):
    """Whatever the umask says: of prompts and of who asks for what others on the machine learn nothing."""
    monkeypatch.setattr(MACHINE_CODE, "lend", lambda data: None)  # which makes the folder
    more = tmp_path / "shipped/more.ndjson"
    file = tmp_path / "t.toml"
    file.write_text(
        '[[exporter]]\nkind = "ndjson"\nrotate-mib = 1\ncompress = "gzip"\ntrace-wait-seconds = 1\n'
        f'[[exporter]]\nkind = "ndjson"\nname = "more"\npath = "{more}"\n'
    )
    before = os.umask(0o022)
    try:
        gateway = start_gateway(arguments=["--config", file])
        gateway.complete()
    finally:
        os.umask(before)
    until(lambda: (gateway.data / "spans.ndjson").stat().st_size, 60, "spans")
    mode = lambda path: stat.S_IMODE(path.stat().st_mode)  # noqa: E731
    assert mode(gateway.data) == 0o700
    everything = list(gateway.data.rglob("*"))
    names = {path.name for path in everything}
    assert {"ledger-00000001.sqlite", "ledger-00000001.sqlite-wal", "in-flight", "decisions.sqlite", "spans.ndjson"} <= names
    # One that is empty for ever is there to be locked.
    open_to_others = [str(path) for path in everything if mode(path) & 0o077 and (path.name, path.stat().st_size) != ("lock", 0)]
    assert not open_to_others
    assert mode(more) == 0o644, "what is written elsewhere is there for others to read"


def test_help_and_count():
    code, stdout, _ = run("--help")
    assert code == 0 and "serve" in stdout and "count" in stdout
    code, stdout, _ = run("serve", "--help")
    assert code == 0
    for name in ("--config", "--listen", "--data-dir", "--plugins", "--model", "TOLLGATE_LISTEN"):
        assert name in stdout
    for arguments, text in ((["hello world"], None), (["--model", "gpt-3.5-turbo"], "hello world")):
        code, stdout, _ = run("count", *arguments, text=text)
        assert code == 0 and re.match(r"2\b", stdout) and "estimate" in stdout, stdout
