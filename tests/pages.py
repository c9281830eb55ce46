"""The fenced blocks of the documentation, and what types them into a shell as a reader would."""

import contextlib
import os
import re
import signal
import socket
import subprocess
from dataclasses import dataclass
from textwrap import dedent

import httpx
import pytest

from conftest import PROGRAM, ROOT, environment, until

TRACKED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
PAGES = [name for name in TRACKED if (ROOT / name).is_file()]


@dataclass(frozen=True)
class Block:
    """What stands between two fences, and what the first of them says of it."""

    page: str
    language: str
    text: str

    @property
    def first(self):
        return self.text.partition("\n")[0]


def blocks(page, language=None):
    found = re.findall(r"(?ms)^( *)```([^\n`]*)\n(.*?)^\1```$", (ROOT / page).read_text())
    every = [Block(page, language, dedent(text)) for _, language, text in found]
    return [block for block in every if language in (None, block.language)]


def block(page, begins, language="sh"):
    """The text of the one block whose first line begins so."""
    (found,) = [block.text for block in blocks(page, language) if block.first.startswith(begins)]
    return found


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def shell_environment(tmp_path):
    """Commands find this build as `tollgate`, and cargo's outputs are shared between runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "tollgate").symlink_to(PROGRAM)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return environment({"PATH": path, "CARGO_TARGET_DIR": str(ROOT / "target/conformance/rust-target")})


def shell(script, folder, env):
    """Types it and waits for its end; what it printed."""
    done = subprocess.run(
        ["bash", "-ec", script], cwd=folder, env=env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def served(script, folder, env, port):
    """Types a script of which the last command serves on that port; its log, once it does. Ends it as ^C would."""
    log = folder / "served.txt"
    with log.open("wb") as out:
        typed = subprocess.Popen(
            ["bash", "-ec", script], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )

    def ready():
        assert typed.poll() is None, f"{script}\n{log.read_text(errors='replace')}"
        try:
            return httpx.get(f"http://127.0.0.1:{port}/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(ready, 60, f"/ready after {script}")
        yield log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(typed.pid, signal.SIGINT)
        typed.wait(40)
        until(lambda: is_free(port), 40, "the end of the gateway")
