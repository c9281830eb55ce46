"""The first five minutes at a command line: a settings file, its schema, completions, the manual."""

import json
import os
import subprocess
import tempfile
import tomllib
from pathlib import Path

import httpx
import jsonschema
import pytest

from conftest import PROGRAM, environment, free_port
from test_settings import run


def init(folder, *more):
    return run("init", folder, *more)


@pytest.fixture
def installed():
    """The program in a folder of its own, on the disk where it lies: under another name, but not another file."""
    with tempfile.TemporaryDirectory(dir=PROGRAM.parent) as folder:
        program = Path(folder) / "tollgate"
        os.link(PROGRAM, program)
        yield program


def started(program, *arguments):
    """What a start says until it serves, or ends."""
    command = [program, "serve", "--console", "off", "--listen", f"127.0.0.1:{free_port()}", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment())
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("  ledger"):
            break
    process.terminate()
    said += process.stderr.read()
    return process.wait(60), said


def test_what_init_writes_is_enough_to_start_wherever_the_program_lies(installed, tmp_path):
    """Without plugins beside the program no gateway starts, unless it is told of others."""
    folder = tmp_path / "new"
    done = subprocess.run([installed, "init", folder], capture_output=True, text=True, timeout=60, env=environment())
    assert done.returncode == 0 and f"made {folder}/plugins" in done.stdout, done.stdout + done.stderr
    assert tomllib.loads((folder / "tollgate.toml").read_text()) == {"plugins": f"{folder}/plugins"}
    code, said = started(installed, "--config", folder / "tollgate.toml", "--data-dir", tmp_path / "data")
    assert code == 0 and "none: nothing is priced" in said, said
    (installed.parent / "plugins").mkdir()
    done = subprocess.run([installed, "init", folder, "--force"], capture_output=True, text=True, timeout=60, env=environment())
    assert done.returncode == 0 and "made" not in done.stdout
    assert tomllib.loads((folder / "tollgate.toml").read_text()) == {}


def test_init_writes_what_the_program_takes_and_what_changes_nothing(tmp_path, start_gateway):
    code, stdout, stderr = init(tmp_path / "new")
    assert code == 0, stderr
    file = tmp_path / "new/tollgate.toml"
    assert str(file) in stdout and set(tomllib.loads(file.read_text())) <= {"plugins"}
    assert run("config", "check", file)[0] == 0
    gateway = start_gateway(arguments=["--config", file])
    gateway.still_serves()


def test_init_does_not_write_over_what_is_there(tmp_path):
    assert init(tmp_path)[0] == 0
    file = tmp_path / "tollgate.toml"
    file.write_text("model = 'none'\n")
    code, _, stderr = init(tmp_path)
    assert code == 1 and "--force" in stderr and file.read_text() == "model = 'none'\n"
    assert init(tmp_path, "--force")[0] == 0 and "model = 'none'" not in file.read_text()
    (tmp_path / "file").write_text("")
    code, _, stderr = init(tmp_path / "file/below")
    assert code == 1 and "cannot write" in stderr


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("", True),
        ('listen = "127.0.0.1:9"\nconsole = "off"\n', True),
        ('[[exporter]]\nkind = "otlp"\nheaders = { a = "b" }\n', True),
        ('lisen = "127.0.0.1:9"\n', False),
        ("listen = 9\n", False),
        ("max-running = 0\n", False),
        ('[[exporter]]\nkind = "console"\npath = "x"\n', False),
    ],
)
def test_the_schema_and_the_program_say_the_same(tmp_path, text, fine):
    code, stdout, _ = run("config", "schema")
    schema = json.loads(stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert code == 0 and jsonschema.Draft202012Validator(schema).is_valid(tomllib.loads(text)) == fine
    file = tmp_path / "t.toml"
    file.write_text(text)
    code, stdout, stderr = run("config", "check", file)
    assert (code == 0) == fine, stderr
    assert fine or len(stderr) > 20


def test_all_that_is_wrong_with_the_file_is_said_at_once(tmp_path):
    file = tmp_path / "t.toml"
    file.write_text('listen = 8080\nmax-running = "many"\nmax-queued = 0\nlog-formt = "json"\n\n[[exporter]]\nkind = "otlp"\nendpoint = 7\n')
    code, _, stderr = run("config", "check", file)
    assert code == 2
    for words in ("line 1: listen", "line 2: max-running", "line 8: endpoint", "max-queued is 0", "did you mean log-format"):
        assert words in stderr, stderr


def test_a_log_filter_that_is_none_is_found(tmp_path):
    (tmp_path / "t.toml").write_text('log = "info=loud=x"\n')
    code, _, stderr = run("config", "check", tmp_path / "t.toml")
    assert code == 2 and "filter" in stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "elvish", "powershell"])
def test_completions(shell):
    code, stdout, _ = run("completions", shell)
    assert code == 0 and "ledger-durability" in stdout


def test_the_manual(tmp_path):
    code, stdout, _ = run("man")
    assert code == 0 and stdout.startswith(".") and "tollgate" in stdout
    assert run("man", "--out", tmp_path / "man")[0] == 0
    pages = {page.name for page in (tmp_path / "man").iterdir()}
    assert {"tollgate.1", "tollgate-serve.1", "tollgate-plugin-check.1"} <= pages
    assert "TOLLGATE_LISTEN" in (tmp_path / "man/tollgate-serve.1").read_text()


def test_a_start_tells_what_is_on(start_gateway, tmp_path):
    receiver = "http://user:hunter2@127.0.0.1:9/v1/traces"
    arguments = ["--admin-listen", "127.0.0.1:0", "--capture-content", "acme"]
    gateway = start_gateway(arguments=arguments, env={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": receiver})
    log = gateway.log()
    banner = log[log.index("\ntollgate ") + 1 :].split("\n20")[0].splitlines()
    lines = [line[:13].split() + [line[13:]] for line in banner[1:] if line.startswith("  ")]
    labels = [line[0] for line in lines if len(line) == 2]
    assert labels == ["api", "admin", "dashboard", "model", "plugins", "keys", "limits", "exporters", "ledger", "content"]
    text = "\n".join(banner)
    words = ["/v1", "with /metrics", "tollgate-demo", "also called mistral-7b", "1. tollgate/", "cost-model", "everybody is let in"]
    words += ["by this gateway alone", "spans.ndjson", "otlp: http://127.0.0.1:9/v1/traces", "survives a power cut", "acme"]
    assert all(word in text for word in words), text
    assert "hunter2" not in text
    dashboard = next(line[13:] for line in banner if line.startswith("  dashboard"))
    page = httpx.get(dashboard, trust_env=False)
    assert page.status_code == 200 and "<title>Tollgate</title>" in page.text
    # Who leaves the path out comes there, too.
    moved = httpx.get(dashboard.removesuffix("ui/"), trust_env=False)
    assert moved.status_code == 307 and moved.headers["location"] == "ui/"
    # The log does not say it again.
    assert log.count(f"http://127.0.0.1:{gateway.port}") == 1, log


def test_programs_are_told_in_one_line_of_the_log(start_gateway):
    admin, *otlp = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    arguments = ["--log-format", "json", "--console", "off", "--admin-listen", admin, "--otlp-listen", ",".join(otlp)]
    gateway = start_gateway(arguments=arguments, plugins=())
    lines = [json.loads(line) for line in gateway.log().splitlines()]
    (started,) = [line for line in lines if line.get("message") == "started"]
    assert started["plugins"] == "none: nothing is priced" and started["api"] == f"{gateway.url}/v1"
    assert started["admin"] == f"http://{admin}" and started["dashboard"] == f"http://{admin}/ui/" and started["spans"].split(",") == otlp
    assert [line for line in lines if str(gateway.port) in json.dumps(line)] == [started]
    quiet = start_gateway(arguments=["--log", "warn"])
    assert "by this gateway alone" not in quiet.log()
