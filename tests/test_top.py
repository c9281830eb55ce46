"""`tollgate top`, against a gateway that works: once as text, and as a screen in a terminal."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import pytest

from conftest import PROGRAM, environment, free_port, until
from test_settings import run

TOKEN = "a-token-of-some-length"
# Without keys, `user` names the tenant.
LIMITS = """
[[tenant]]
name = "acme"
limits.requests-per-minute = 600
[[tenant.budget]]
amount = "12.50"
currency = "USD"
per = "day"
"""


@pytest.fixture
def watched(start_gateway, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "keys.toml").write_text(LIMITS)
    arguments = ["--admin-listen", address, "--keys-file", tmp_path / "keys.toml"]
    gateway = start_gateway(arguments=arguments, env={"TOLLGATE_ADMIN_TOKEN": TOKEN})
    gateway.admin = f"http://{address}"
    return gateway


def section(text, heading):
    """The rows below a heading, as lists of words."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(heading))
    rows = []
    for line in lines[start + 1 :]:
        if not line.strip():
            break
        rows.append(re.split(r"  +", line.strip()))
    return rows


def test_once(watched, in_background):
    for _ in range(3):
        watched.complete(model="mistral-7b", user="acme")
    until(lambda: "3" in watched.http.get("/health").text or len(watched.spans()) >= 3, what="delivery")
    in_background(lambda: [time.sleep(0.3), *[watched.complete(model="gpt-4o-mini") for _ in range(2)]])
    code, text, stderr = run("top", "--admin", watched.admin, "--once", "--interval", "3", env={"TOLLGATE_ADMIN_TOKEN": TOKEN})
    assert code == 0, stderr
    requests = {row[0]: row[1:] for row in section(text, "OUTCOME")}
    assert requests["completed"][1] == "5" and float(requests["completed"][0]) > 0, text
    models = {row[0]: row[1:] for row in section(text, "MODEL")}
    assert set(models) == {"mistral-7b", "gpt-4o-mini"} and int(models["mistral-7b"][3]) > 0
    assert float(models["gpt-4o-mini"][1]) > 0 and models["gpt-4o-mini"][6].endswith("s")
    ((currency, hourly, total),) = section(text, "CURRENCY")
    assert currency == "USD" and float(hourly) > 0 and float(total) > 0
    tenants = {row[0]: row[1:] for row in section(text, "TENANT")}
    assert int(tenants["acme"][2]) == int(models["mistral-7b"][2]) and float(tenants["acme"][4]) > 0, text
    ((who, requests, tokens, at_once, budget),) = section(text, "LIMITS OF")
    assert (who, tokens, at_once) == ("tenant acme", "-", "-") and re.fullmatch(r"\d of 600", requests), text
    spent = re.fullmatch(r"([\d.]+) of 12\.5 USD \(day\)", budget)[1]
    assert float(spent) == float(tenants["acme"][4]) > 0, "three requests of one tenant"
    plugins = {row[0]: row for row in section(text, "FILE")}
    assert plugins["cost-per-token.wasm"][1:3] == ["tollgate/cost-per-token 0.1.0", "serving"]
    assert {row[0] for row in section(text, "EXPORTER")} == {"console", "ndjson"}
    assert section(text, "LEDGER")[0][0] == "takes records"
    assert "BACKEND" not in text, "what there is none of is not shown"


def test_what_goes_wrong(watched):
    code, _, stderr = run("top", "--admin", watched.admin, "--once")
    assert code == 1 and "TOLLGATE_ADMIN_TOKEN" in stderr
    code, _, stderr = run("top", "--admin", f"http://127.0.0.1:{free_port()}", "--once")
    assert code == 1 and "--admin-listen" in stderr
    code, _, stderr = run("top", "--admin", watched.admin, env={"TOLLGATE_ADMIN_TOKEN": TOKEN})
    assert code == 2 and "--once" in stderr


class Terminal:
    """A program in a terminal of 100 columns and 50 lines."""

    def __init__(self, *arguments, env=()):
        self._controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
        self.before = termios.tcgetattr(terminal)
        self._terminal = terminal
        streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
        self.process = subprocess.Popen([PROGRAM, *arguments], env=environment(env), start_new_session=True, **streams)
        self.shown = ""

    def press(self, keys):
        os.write(self._controller, keys.encode())

    def see(self, text, seconds=20):
        def seen():
            while select.select([self._controller], [], [], 0)[0]:
                self.shown += os.read(self._controller, 65536).decode(errors="replace")
            # What moves the cursor or colours is left out; what stays in place is not sent again.
            return text in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", " ", self.shown)

        until(seen, seconds, f"{text!r} on the screen:\n{self.shown!r}\n")

    def after(self):
        return termios.tcgetattr(self._terminal)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._controller)
        os.close(self._terminal)


def test_a_screen(watched):
    watched.complete(model="mistral-7b")
    terminal = Terminal("top", "--admin", watched.admin, "--interval", "1", env={"TOLLGATE_ADMIN_TOKEN": TOKEN})
    try:
        terminal.see("q ends")
        terminal.see("mistral-7b")
        terminal.see("cost-per-token.wasm")
        assert terminal.after() != terminal.before, "keys are read as they are pressed"
        terminal.press("p")
        terminal.see("paused")
        terminal.press("q")
        assert terminal.process.wait(20) == 0
        assert terminal.after() == terminal.before, "the terminal is as it was"
        terminal.see("")
        assert "\x1b[?1049l" in terminal.shown
    finally:
        terminal.close()


def test_a_screen_outlives_its_gateway(watched):
    terminal = Terminal("top", "--admin", watched.admin, "--interval", "1", env={"TOLLGATE_ADMIN_TOKEN": TOKEN})
    try:
        terminal.see("cost-per-token.wasm")
        watched.stop()
        terminal.see("cannot reach")
        terminal.press("\x03")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.close()
