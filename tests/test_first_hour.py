"""host/FIRST-STEPS.md as a new user types it: from the built program to a changed price, within minutes."""

import json
import re
import shutil
import subprocess
import time
from decimal import Decimal

import pytest

from conftest import BUNDLED, ROOT, component, free_port, until
from pages import is_free, shell_environment  # noqa: F401 - a fixture
from test_release import release  # noqa: F401 - a fixture

PAGE = (ROOT / "host/FIRST-STEPS.md").read_text()
MINUTES = 10
# Each section tells how long it took.
TIMED = 'echo "== {} $SECONDS"'


def steps():
    """Title and commands of each section but the one that builds."""
    for section in PAGE.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        for block in re.findall(r"(?ms)^```sh\n(.*?)^```$", text):
            yield title, block


def promised(title):
    """What the page shows of the answer in that section."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"(?ms)^```json\n(.*?)^```$", section)
    return json.loads(f"{{{block}}}")["cost"]


def includes(shown, given):
    return all(includes(value, given[key]) if isinstance(value, dict) else given[key] == value for key, value in shown.items())


def begun(way):
    """The block of the first section for those who come that way."""
    (block,) = re.findall(rf"(?ms)^```sh {way}\n(.*?)^```$", PAGE)
    return block


@pytest.mark.parametrize("way", ["build", "archive"])
def test_a_price_is_changed_within_minutes(tmp_path, shell_environment, request, way):  # noqa: F811 - the fixture
    port, admin = (number if is_free(number) else free_port() for number in (8080, 9090))
    script = ["set -em"]
    if way == "build":
        # Too long for a test: what it makes lies where a build puts it.
        assert begun(way).startswith("cargo xtask build\n")
        beside = tmp_path / "bin/plugins"
        beside.mkdir()
        for name in BUNDLED:
            shutil.copyfile(component(name), beside / f"{name}.wasm")
    else:
        (archive,) = request.getfixturevalue("release").glob("*.tar.gz")
        shutil.copyfile(archive, tmp_path / archive.name)
        (tmp_path / "bin/tollgate").unlink()  # no other is on the path
        script += [begun(way), f'case "$(command -v tollgate)" in {tmp_path}/tollgate-*) ;; *) exit 3 ;; esac', TIMED.format("1.")]
    for title, block in steps():
        script += [block.replace(":8080", f":{port}").replace(":9090", f":{admin}"), TIMED.format(title)]
    began = time.monotonic()
    shell = subprocess.Popen(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env=shell_environment | {"TOLLGATE_LISTEN": f"127.0.0.1:{port}"},
        stdin=subprocess.DEVNULL,
        stdout=(tmp_path / "out").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        status = shell.wait(MINUTES * 60)
    finally:
        # Also a gateway that a failure left in the background: `set -m` gave it a group of its own.
        subprocess.run(["pkill", "-TERM", "-s", str(shell.pid)])
        until(lambda: is_free(port), 40, "the end of the gateway")
    output = (tmp_path / "out").read_text(errors="replace")
    assert status == 0, output[-4000:]
    print(re.findall(r"(?m)^== .*$", output), f"in all {time.monotonic() - began:.0f} s")
    answers = [json.loads(line, parse_float=Decimal) for line in output.splitlines() if line.startswith('{"id"')]
    costs = [answer["cost"] for answer in answers]
    assert len(costs) == 3
    for cost, title in zip(costs, [title for title, _ in steps() if "hange the price" in title or title.startswith("3.")]):
        shown = promised(title)
        assert includes(shown, cost), f"{title}: {cost}"
    assert len({cost["amount"] for cost in costs}) == 3
    assert re.search(r"acme/acme-cost", output.split("== 5.")[1])
