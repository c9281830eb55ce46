"""What host/deploy/README.md tells an operator to type, as far as it can be typed without a container engine, a cluster and a
running systemd: each command that is ours or the system's is run, and what is told to the others is held against their files."""

import json
import re
import shlex
import shutil
import stat
import tomllib

import httpx
import pytest
import yaml

from conftest import BUNDLED, PROGRAM, ROOT, component, free_port
from pages import block, blocks, served, shell, shell_environment  # noqa: F401 - a fixture
from test_deploy import COMPOSE, DEPLOY, UNIT
from test_settings import run

PAGE = "host/deploy/README.md"


def lines_without(script, *programs):
    """A script without what is told to these."""
    kept = [line for line in script.splitlines() if line.split()[0] not in programs]
    assert len(kept) < len(script.splitlines()), "nothing is told to them"
    return "\n".join(kept)


def test_secrets_of_compose(tmp_path, shell_environment):  # noqa: F811 - the fixture
    script = lines_without(block(PAGE, "cd host/deploy"), "docker")
    (tmp_path / "host/deploy").mkdir(parents=True)
    shell(script, tmp_path, shell_environment)
    for name, secret in COMPOSE["secrets"].items():
        file = tmp_path / "host/deploy" / secret["file"]
        assert re.fullmatch(r"[0-9a-f]{64}\n", file.read_text()), name
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_docker_is_told_what_compose_and_the_image_have(tmp_path):
    typed = [shlex.split(line) for found in blocks(PAGE) for line in found.text.replace("\\\n", "").splitlines() if line.startswith("docker ")]
    assert len(typed) == 6
    ran = 0
    for words in typed:
        for path in re.findall(r"(?:-f|--file) (\S+)", " ".join(words)):
            assert (ROOT / path).is_file()
        if words[1] == "compose":
            services = [word.partition(":")[0] for word in words[2:] if word.partition(":")[0] in COMPOSE["services"]]
            assert services or words[2] == "up", words
        if "create" in words:
            of_it = words[words.index("create") + 1 :]
            given = dict(zip(of_it[::2], of_it[1::2])) | {"--keys-file": str(tmp_path / f"{ran}.toml")}
            assert run("key", "create", *(part for pair in given.items() for part in pair))[0] == 0
            ran += 1
    assert ran == 2


def test_the_installation_by_helm():
    helm = pytest.importorskip("helm_python", reason="Helm's engine has no package for this platform")
    words = shlex.split(block(PAGE, "helm install").replace("\\\n", ""))
    assert words[:4] == ["helm", "install", "tollgate", "host/deploy/helm/tollgate"]
    values, given = {}, words[4:]
    told = {flag: given[at + 1] for at, flag in enumerate(given) if flag in ("--namespace", "--set", "--set-json")}
    name, _, value = told["--set"].partition("=")
    outer, _, inner = name.partition(".")
    values[outer] = {inner: value}
    name, _, value = told["--set-json"].partition("=")
    values[name] = json.loads(value)
    with helm.Chart.load(str(ROOT / words[3])) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name=words[2], namespace=told["--namespace"])
    objects = [found for path, text in rendered.items() if path.endswith(".yaml") for found in yaml.safe_load_all(text) if found]
    (pod,) = [found["spec"]["template"]["spec"] for found in objects if found["kind"] == "StatefulSet"]
    (container,) = pod["containers"]
    assert container["image"].startswith("registry.example.org/tollgate:")
    assert values["env"][0] in container["env"]


def test_keys_of_ones_own(tmp_path, shell_environment):  # noqa: F811 - the fixture
    script = block(PAGE, "tollgate key create --keys-file keys.toml")
    shell(lines_without(script, "kubectl"), tmp_path, shell_environment)
    (key,) = tomllib.loads((tmp_path / "keys.toml").read_text())["key"]
    assert key["tenant"] == "acme"
    # The chart mounts this key of that Secret.
    (made,) = re.findall(r"--from-file (\S+)", script)
    assert made == yaml.safe_load((DEPLOY / "helm/tollgate/values.yaml").read_text())["keys"]["key"]


def test_the_installation_under_systemd(tmp_path, shell_environment):  # noqa: F811 - the fixture
    """All of it below another folder than /, and the program started with what then lies there."""
    install = block(PAGE, "cargo xtask build")
    assert install.splitlines()[0] == "cargo xtask build" and "systemctl" in install.splitlines()[-1]
    keys = block(PAGE, "tollgate key create --keys-file /etc")
    sources, root = tmp_path / "clone", tmp_path / "root"
    (sources / "target/release/plugins").mkdir(parents=True)
    shutil.copyfile(PROGRAM, sources / "target/release/tollgate")
    for name in BUNDLED:
        shutil.copyfile(component(name), sources / f"target/release/plugins/{name}.wasm")
    (sources / "host").symlink_to(ROOT / "host")
    for folder in ("usr/bin", "etc/systemd/system"):
        (root / folder).mkdir(parents=True)
    elsewhere = lambda text: re.sub(r"(?<=[\s=\"])/(etc|usr)/", rf"{root}/\1/", text)  # noqa: E731
    shell(elsewhere(lines_without(install, "cargo", "systemctl") + "\n" + keys), sources, shell_environment)
    assert stat.S_IMODE((root / "etc/tollgate/admin-token").stat().st_mode) == 0o600
    assert stat.S_IMODE((root / "etc/tollgate/keys.toml").stat().st_mode) == 0o644
    unit = UNIT.read_text()
    assert (root / "etc/systemd/system/tollgate.service").read_text() == unit
    # What the unit names is there, but for what it says need not be.
    for path in re.findall(r"(?m)^(?!EnvironmentFile=-)\w+=\S*?(/(?:etc|usr)/\S+)", unit):
        assert (root / path[1:]).exists(), path
    port, admin = free_port(), free_port()
    config = root / "etc/tollgate/tollgate.toml"
    config.write_text(config.read_text().replace(":8080", f":{port}").replace(":9090", f":{admin}"))
    (start,) = re.findall(r"(?m)^ExecStart=(.*)$", unit)
    env = dict(line.split("=", 1) for line in re.findall(r"(?m)^Environment=(.*)$", elsewhere(unit)))
    # What systemd makes of these.
    env |= {"TOLLGATE_DATA_DIR": str(tmp_path / "state"), "TOLLGATE_ADMIN_TOKEN_FILE": str(root / "etc/tollgate/admin-token")}
    with served(elsewhere(f" {start}").strip(), tmp_path, shell_environment | env, port) as log:
        assert f"http://127.0.0.1:{admin}" in log.read_text()
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json={"model": "mistral-7b", "prompt": "Hi", "max_tokens": 2}, trust_env=False)
        assert answer.json()["cost"]["status"] == "priced", answer.text
