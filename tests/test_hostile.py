"""The gateway serves while a hostile plugin runs: every request succeeds and is priced by the plugin that behaves. How long
requests took beside how long they usually take is printed, and judged by nobody: machines that run tests are busy."""

import os
import statistics
import subprocess
import threading
import time

import pytest

from conftest import PROGRAM, Gateway, component, replace_file, until

REQUESTS = int(os.environ.get("TOLLGATE_HOSTILE_REQUESTS", "25"))
CRAFT = PROGRAM.parent / "examples" / "craft"

# What it does behind the back of requests: in all calls of an instance but the first three, with which the gate tries it.
ACTS = {
    "loops in enrich": 'act = "loop", on = "enrich", after = 3',
    "loops in filter": 'act = "loop", on = "filter", after = 3',
    "copies its memory for ever": 'act = "memory-copy", on = "enrich", after = 3',
    "fills its memory": 'act = "memory-bomb", on = "enrich", after = 3',
    "recurses in two branches": 'act = "fibonacci", on = "enrich", after = 3',
    "recurses without end": 'act = "deep-stack", on = "enrich", after = 3',
    "traps": 'act = "trap", on = "enrich", after = 3',
    "floods the log": 'act = "log-flood", on = "enrich", after = 3',
    "prints without end": 'act = "print-flood", on = "enrich", after = 3',
    "answers with too much": 'act = "huge-text", on = "enrich", after = 3',
    "hangs in configure": 'act = "loop", on = "configure"',
    "hangs in price": 'act = "loop", on = "price"',
}


@pytest.fixture(scope="module")
def besieged(tmp_path_factory):
    gateway = Gateway(tmp_path_factory.mktemp("besieged"), plugins=["cost-per-token"])
    try:
        yield gateway.wait_until_ready()
        gateway.stop()
    finally:
        gateway.kill()


@pytest.fixture(scope="module")
def usual(besieged):
    """How long requests take when nothing is wrong."""
    measure(besieged, REQUESTS)
    return measure(besieged, 2 * REQUESTS)


def measure(gateway, count, going_on=lambda: False):
    """Milliseconds of so many requests, or of more while something goes on; each is served and priced."""
    times = []
    while len(times) < count or (going_on() and len(times) < 100 * count):
        began = time.monotonic()
        answer = gateway.complete(max_tokens=4)
        times.append((time.monotonic() - began) * 1000)
        assert answer["cost"]["status"] == "priced", answer["cost"]
        assert answer["cost"]["plugin"]["name"] == "tollgate/cost-per-token"
    return times


def tell(capsys, what, usual, times):
    def at(values, part):
        return statistics.quantiles(values, n=100)[part - 1]

    with capsys.disabled():
        ratio = at(times, 50) / at(usual, 50)
        print(
            f"\n  {what:<32} p50 {at(times, 50):7.1f} ms ({ratio:4.2f} of usual)   p95 {at(times, 95):7.1f} ms "
            f"({at(times, 95) / at(usual, 95):4.2f})   {len(times)} requests",
            end="",
        )


def complaint(gateway, file):
    return next((line for line in gateway.log().splitlines() if file in line and "refused" in line), None)


@pytest.mark.parametrize("what", ACTS)
def test_requests_are_served_while_a_plugin(besieged, usual, capsys, what):
    # A name of its own, and content of its own: what was refused once is not tried again.
    file = f"intruder-{list(ACTS).index(what)}.wasm"
    note = f"note{list(ACTS).index(what):02}".encode()
    manifest = f'[[plugin]]\nfile = "{file}"\norder = 1\nconfig = {{ {ACTS[what]} }}\n'
    replace_file(besieged.plugins / "plugins.toml", manifest)
    replace_file(besieged.plugins / file, component("hostile").read_bytes() + b"\0\x07" + b"\x06" + note)
    try:
        settled = lambda: complaint(besieged, file) or loaded(besieged, file)  # noqa: E731
        times = measure(besieged, REQUESTS, going_on=lambda: not settled())
        if "after" in ACTS[what]:
            assert loaded(besieged, file), complaint(besieged, file)
            times = measure(besieged, REQUESTS)
        else:
            assert complaint(besieged, file), "it is refused"
        tell(capsys, what, usual, times)
    finally:
        (besieged.plugins / file).unlink()
        replace_file(besieged.plugins / "plugins.toml", "")


def loaded(gateway, file):
    return any(file in line and "plugin loaded" in line for line in gateway.log().splitlines())


# Files that take long to look at, each of them a plugin: how they are made, and what the complaint says; none: they serve.
BOMBS = {
    "compile-bomb": ("7000000", "compiling it takes more than"),
    "nested": ("20000", "compiling it takes more than"),
    "types": ("1000001", "it does not compile"),
    "custom-section": (str(15 << 20), None),
}


@pytest.fixture(scope="module")
def crafted(tmp_path_factory):
    """Files made by the `craft` example, which `cargo xtask test python` builds."""
    folder = tmp_path_factory.mktemp("crafted")

    def craft(what, size):
        path = folder / f"{what}.wasm"
        subprocess.run([CRAFT, what, size, path], check=True, timeout=300)
        return path.read_bytes()

    return craft


@pytest.mark.parametrize("what", BOMBS)
def test_requests_are_served_while_the_gate_is_busy_with(besieged, usual, capsys, crafted, what):
    size, complains = BOMBS[what]
    content, file = crafted(what, size), f"{what}.wasm"
    began = time.monotonic()
    replace_file(besieged.plugins / file, content)
    try:
        done = lambda: complaint(besieged, file) or loaded(besieged, file)  # noqa: E731
        times = measure(besieged, REQUESTS, going_on=lambda: not done() and time.monotonic() - began < 90)
        tell(capsys, f"the gate is busy with {what}", usual, times)
        line = until(done, 90, f"a word about {file} in the log")
        assert complains in line if complains else line is True, line
    finally:
        (besieged.plugins / file).unlink()
    priced_as_before(besieged)


def test_requests_are_served_while_a_file_is_replaced_all_the_time(besieged, usual, capsys):
    whole, stop, count = component("hostile").read_bytes(), threading.Event(), [0]
    path = besieged.plugins / "restless.wasm"

    def replace():
        while not stop.wait(0.01):
            count[0] += 1
            content = (whole, whole[: len(whole) // 2], b"")[count[0] % 3]
            if count[0] % 2:
                replace_file(path, content)
            else:
                path.write_bytes(content)

    thread = threading.Thread(target=replace, daemon=True)
    thread.start()
    try:
        times = measure(besieged, REQUESTS, going_on=lambda: count[0] < 200)
        tell(capsys, f"{count[0]} replacements of a file", usual, times)
    finally:
        stop.set()
        thread.join(10)
        path.unlink(missing_ok=True)
    priced_as_before(besieged)


def priced_as_before(gateway):
    until(lambda: gateway.complete(max_tokens=2)["cost"]["plugin"]["name"] == "tollgate/cost-per-token", 30, "the usual price")


SECRET = "sk-0a1b2c3d4e5f"


def test_a_secret_in_a_configuration_reaches_no_log_and_no_span(start_gateway):
    def manifest(more):
        return f'[[plugin]]\nfile = "hostile.wasm"\nconfig = {{ secret = "{SECRET}"{more} }}\n'

    gateway = start_gateway(plugins=["cost-per-token", "hostile"], plugins_toml=manifest(""))
    gateway.complete(max_tokens=2)
    for more in (', act = "trap", on = "configure"', ", unknown = 1", ", broken"):
        seen = len(gateway.log())
        replace_file(gateway.plugins / "plugins.toml", manifest(more))
        until(lambda seen=seen: "ERROR" in gateway.log()[seen:], 30, "a complaint")
        gateway.still_serves()
    assert SECRET not in gateway.log()
    assert SECRET not in gateway.span_file.read_text()
