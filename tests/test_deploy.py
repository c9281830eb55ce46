"""What `host/deploy` hands to operators, as far as it can be tried without a container engine and without a cluster: files
against the published shapes and the tools that read them, names against the real program, the root file system of the image
by starting the program in it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
import yaml
from compose_spec import PyCompose

from conftest import BUNDLED, PROGRAM, ROOT, component, environment, free_port, until
from test_admin import TOKEN
from test_tenants import new_key

DEPLOY = ROOT / "host/deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CONFIG = DEPLOY / "config"
BACKENDS = CONFIG / "tollgate/backends.toml"
UNIT = DEPLOY / "systemd/tollgate.service"
DOCKERFILE = DEPLOY / "Dockerfile"


def help_text():
    return subprocess.run([PROGRAM, "serve", "--help"], capture_output=True, text=True, check=True, env=environment()).stdout


def without_comments(path):
    text = path.read_text()
    return text if path.suffix == ".md" else re.sub(r"(?m)(^|\s)#.*$", "", text)


def deploy_files():
    return [path for path in DEPLOY.rglob("*") if path.is_file() and "secrets" not in path.parts]


# Names.


def test_settings_are_those_of_the_program():
    # Those of secrets are in descriptions only.
    known = set(re.findall(r"\bTOLLGATE_\w+", help_text()))
    assert len(known) > 20
    known.add("TOLLGATE_DASHBOARD")  # of the build
    used = {path: set(re.findall(r"\bTOLLGATE_\w+", without_comments(path))) for path in deploy_files()}
    assert set().union(*used.values()) >= {"TOLLGATE_ADMIN_TOKEN_FILE", "TOLLGATE_DATA_DIR", "TOLLGATE_PLUGINS"}
    unknown = {str(path.relative_to(ROOT)): names - known for path, names in used.items() if names - known}
    assert not unknown


def test_flags_are_those_of_the_program():
    known = set(re.findall(r"(?m)^\s+(?:-\w, )?(--[\w-]+)", help_text()))
    after = [rest for path in deploy_files() for rest in re.findall(r"\bserve\b(.*)", path.read_text())]
    used = set(re.findall(r"(?<!\w)--[\w-]+", "\n".join(after)))
    assert "--config" in used and used <= known


# backends.toml is no settings file; the program starts with it below.
@pytest.mark.parametrize("path", sorted(set(DEPLOY.rglob("*.toml")) - {BACKENDS}), ids=lambda path: path.name)
def test_keys_of_settings_files_are_those_of_the_program(path):
    flags = set(re.findall(r"--([\w-]+)", help_text()))
    # What is offered in comments, too.
    text = re.sub(r"(?m)^# (?=[\w-]+ = )", "", path.read_text())
    assert set(tomllib.loads(text)) <= flags | {"exporter"}


@pytest.mark.parametrize("where", ["compose", "systemd"])
def test_the_program_starts_with_what_is_set_there(start_gateway, tmp_path, where):
    if where == "compose":
        env = dict(COMPOSE["services"]["tollgate"]["environment"])
        mounts = {target: source for source, target, *_ in (v.split(":") for v in COMPOSE["services"]["tollgate"]["volumes"])}
        env["TOLLGATE_BACKENDS"] = str(at_home(env["TOLLGATE_BACKENDS"], mounts))
        assert Path(env["TOLLGATE_KEYS_FILE"]).parent.as_posix() in mounts
        env["TOLLGATE_KEYS_FILE"] = str(tmp_path / "keys.toml")
        _, key = new_key(tmp_path / "keys.toml", "acme")
        gateway = starts_with(start_gateway, tmp_path, env, [], key=key, host="0.0.0.0")
        # Until the profile is on there is no vLLM.
        answer = gateway.http.post("/v1/completions", json={"model": "qwen2.5-0.5b", "prompt": "Hello", "max_tokens": 2})
        assert answer.status_code in (502, 503), answer.text
    else:
        env = dict(line.split("=", 1) for line in re.findall(r"(?m)^Environment=(.*)$", UNIT.read_text()))
        starts_with(start_gateway, tmp_path, env, ["--config", DEPLOY / "systemd/tollgate.toml"])


def at_home(path, mounts):
    """Where a file of the container lies in the repository."""
    (target,) = [target for target in mounts if path.startswith(f"{target}/")]
    return (DEPLOY / mounts[target] / path.removeprefix(f"{target}/")).resolve(strict=True)


def starts_with(start_gateway, tmp_path, env, arguments, key=None, host="127.0.0.1"):
    """Only addresses, folders and the places of secrets are the test's own. With a key only who shows it is let in."""
    token, port = tmp_path / "token", free_port()
    token.write_text(TOKEN)
    arguments = [*arguments, "--admin-listen", f"127.0.0.1:{port}", "--admin-token-file", token]
    gateway = start_gateway(env=env, arguments=arguments, host=host)
    if key is not None:
        assert gateway.http.get("/v1/models").status_code == 401
        gateway.http.headers["authorization"] = f"Bearer {key}"
    gateway.still_serves()
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False)
    assert answer.status_code == 200
    return gateway


def test_images_have_a_version():
    chart = yaml.safe_load((DEPLOY / "helm/tollgate/Chart.yaml").read_text())
    images = [service["image"] for service in COMPOSE["services"].values()]
    images += re.findall(r"(?m)^FROM (?!scratch)(\S+)", DOCKERFILE.read_text())
    images.append(f"tollgate:{chart['appVersion']}")
    assert len(images) >= 9
    loose = [image for image in images if not re.search(r":v?\d+\.\d+(\.\d+)*[-\w.]*$", image)]
    assert not loose
    version = re.search(r'(?m)^version = "(.*)"', (ROOT / "Cargo.toml").read_text())[1]
    assert {image for image in images if image.startswith("tollgate:")} == {f"tollgate:{version}"}


# The image.


def test_hadolint_takes_the_dockerfile():
    program = Path(sys.executable).with_name("hadolint")
    if not program.is_file():
        pytest.skip("hadolint has no package for this platform")
    done = subprocess.run([program, DOCKERFILE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_builds_with_the_toolchain_of_the_repository():
    channel = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    text = DOCKERFILE.read_text()
    assert f"FROM rust:{channel}-" in text and f"RUSTUP_TOOLCHAIN={channel} " in text


def test_the_image_has_an_npm_that_runs(tmp_path):
    """The lines of the Dockerfile that bring npm, carried out in a folder: the link leads to a program that runs."""
    text, npm = DOCKERFILE.read_text(), Path(shutil.which("npm")).resolve()
    copied = re.findall(r"(?m)^COPY --from=node (\S+) (\S+)$", text)
    assert copied == [("/usr/local/bin/node",) * 2, ("/usr/local/lib/node_modules",) * 2]
    (link,) = re.findall(r"(?m)^RUN ln -s (\S+) /(usr/local/bin/npm)$", text)
    tools = tmp_path / "usr/local/bin"
    tools.mkdir(parents=True)
    (tmp_path / "usr/local/lib").mkdir()
    (tools / "node").symlink_to(shutil.which("node"))
    assert npm.parts[-2:] == ("bin", "npm-cli.js")
    (tmp_path / "usr/local/lib/node_modules").symlink_to(npm.parents[2])
    (tmp_path / link[1]).symlink_to(link[0])
    done = subprocess.run([tools / "npm", "--version"], capture_output=True, text=True, timeout=60, env={"PATH": str(tools)})
    assert done.returncode == 0 and done.stdout[0].isdigit(), done.stderr
    version = int(re.search(r"(?m)^FROM node:(\d+)\.", text)[1])
    assert version >= int(json.loads((ROOT / "host/assets/dashboard/package.json").read_text())["engines"]["node"].strip(">="))


def test_the_image_and_compose_ask_for_its_health_by_what_is_in_it():
    """The test below runs that command in the root file system."""
    (line,) = re.findall(r"(?m)^HEALTHCHECK .*? CMD (\[.*\])$", DOCKERFILE.read_text())
    assert json.loads(line) == ["/usr/bin/tollgate", "health"]
    assert COMPOSE["services"]["tollgate"]["healthcheck"]["test"] == ["CMD", *json.loads(line)]


def test_the_image_is_built_from_all_that_a_build_needs(tmp_path):
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    taken = [line[1:] for line in lines if line.startswith("!")]
    left_out = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    assert "*" in lines and len(taken) > 5 and left_out == ["target", "node_modules", "__pycache__"]
    tracked = subprocess.run(["git", "ls-files", "-z", *taken], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        assert not set(Path(name).parts) & set(left_out), name
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    for manifest in ("Cargo.toml", "plugins/Cargo.toml"):
        command = ["cargo", "metadata", "--format-version=1", "--locked", "--no-deps", "--manifest-path", tmp_path / manifest]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    for source in tmp_path.rglob("*.rs"):
        for name in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
            assert (source.parent / name).exists(), f"{source}: {name}"


ENTER = """
set -e
mkdir -p "$1/proc" "$1/dev"
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount --bind "$2" "$1/data"
mount --bind "$3" "$1/keys"
mount -o remount,bind,ro "$1"
root=$1
shift 3
exec chroot --userspec=10001:10001 "$root" /usr/bin/tollgate "$@"
"""


def test_the_root_of_the_image_is_enough_for_the_program(tmp_path):
    """Read only, as user 10001, with nothing to write to but /data, which belongs to root and that group, as a volume of
    Kubernetes does, and, for making a key, /keys."""
    namespace = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0 or shutil.which("unshare") is None or subprocess.run([*namespace, "true"]).returncode != 0:
        pytest.skip("this needs a mount namespace, and so root")
    plugins, root, data, keys = (tmp_path / name for name in ("plugins", "root", "data", "keys"))
    for folder in (plugins, data, keys):
        folder.mkdir()
    for name in BUNDLED:
        shutil.copyfile(component(name), plugins / f"{name}.wasm")
    subprocess.run([DEPLOY / "rootfs.sh", PROGRAM, plugins, root], check=True, timeout=60)
    symbols = subprocess.run(["nm", root / "usr/bin/tollgate"], capture_output=True, text=True, timeout=60)
    assert "no symbols" in symbols.stderr and not symbols.stdout, "names of functions are left out"
    mib = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) / 2**20
    print(f"the image's files: {mib:.1f} MiB, of which the program {(root / 'usr/bin/tollgate').stat().st_size / 2**20:.1f}")
    os.chown(data, 0, 10001)
    data.chmod(0o2775)
    os.chown(keys, 10001, 10001)

    port = free_port()
    env = dict(re.findall(r"\b([A-Z_]+)=(\S+)", DOCKERFILE.read_text().split("FROM scratch")[1]))
    assert env["TOLLGATE_LISTEN"] == "0.0.0.0:8080"
    env |= {"TOLLGATE_LISTEN": f"0.0.0.0:{port}", "PATH": os.environ["PATH"]}
    enter = [*namespace, "sh", "-c", ENTER, "sh", root, data, keys]

    def run(*arguments):
        return subprocess.run([*enter, *arguments], capture_output=True, text=True, timeout=60, env=env)

    not_yet = run("health")
    assert not_yet.returncode == 1 and "does not answer" in not_yet.stderr, not_yet
    assert "no keys" in run("serve").stderr
    made = run("key", "create", "--keys-file", "/keys/keys.toml", "--tenant", "acme")
    secret = re.search(r"^secret +(\S+)$", made.stdout, re.M)[1]
    command = [*enter, "serve", "--keys-file", "/keys/keys.toml"]
    for start in ("the first", "the second"):
        with (tmp_path / "log.txt").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        try:
            headers = {"authorization": f"Bearer {secret}"}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, headers=headers) as client:

                def is_ready(process=process, client=client):
                    assert process.poll() is None, (tmp_path / "log.txt").read_text()
                    try:
                        return client.get("/ready").status_code == 200
                    except httpx.TransportError:
                        return False

                until(is_ready, 120, f"/ready at {start} start")
                healthy = run("health")
                assert (healthy.returncode, healthy.stdout) == (0, "ready\n"), healthy
                body = {"model": "mistral-7b", "prompt": "What is a span?", "max_tokens": 2}
                assert client.post("/v1/completions", json=body).json()["cost"]["status"] == "priced"
            process.terminate()
            assert process.wait(60) == 0, (tmp_path / "log.txt").read_text()
        finally:
            process.kill()
            process.wait()
    assert {path.name for path in data.iterdir()} == {"ledger", "plugins", "spans.ndjson"}
    assert "is not kept" not in (tmp_path / "log.txt").read_text()


# compose.yaml and the files beside it.


def test_compose_fits_the_specification():
    whole = PyCompose.from_yaml(yaml.safe_dump(COMPOSE))
    services = {"tollgate", "key", "otel-collector", "tempo", "prometheus", "grafana", "redis", "vllm"}
    assert services == set(whole.service_names())
    misspelt = yaml.safe_dump({"services": {"a": {"image": "a:1.0", "read-only": True}}})
    with pytest.raises(ValueError, match="read-only"):
        PyCompose.from_yaml(misspelt)


def test_compose_names_what_there_is():
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], f"{name}: {volume}"
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"]), name
        assert set(service.get("depends_on", [])) <= set(COMPOSE["services"]), name
    assert COMPOSE["services"]["tollgate"]["build"] == COMPOSE["services"]["key"]["build"]
    assert (DEPLOY / COMPOSE["services"]["tollgate"]["build"]["context"] / "host/deploy/Dockerfile").resolve() == DOCKERFILE
    ignored = subprocess.run(["git", "check-ignore", "-q", "host/deploy/secrets/admin-token"], cwd=ROOT)
    assert ignored.returncode == 0 or not (ROOT / ".git").exists(), "secrets are kept out of the repository"


def test_compose_gives_away_nothing():
    for name, service in COMPOSE["services"].items():
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("read_only") or name == "vllm", name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_services_reach_each_other_under_their_names():
    listening = {
        "tollgate": {8080, 9090},
        "otel-collector": {4317, 4318, 8888, 8889},
        "tempo": {3200, 4317},
        "prometheus": {9090},
        "vllm": {8000},
        "redis": {6379},
    }
    texts = [yaml.safe_dump(yaml.safe_load(path.read_text())) for path in CONFIG.rglob("*.y*ml")] + [yaml.safe_dump(COMPOSE)]
    texts += [path.read_text() for path in CONFIG.rglob("*.toml")]
    named = re.findall(rf"(?<![\w.-])({'|'.join(listening)}):(\d+)\b(?!\.)", "\n".join(texts))
    assert len(named) >= 6 and {"vllm", "redis"} <= {name for name, _ in named}
    assert not [(name, port) for name, port in named if int(port) not in listening[name]]


def test_promtool_takes_the_configuration_of_prometheus(tmp_path):
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; Debian has it in the package prometheus")
    text = (CONFIG / "prometheus.yml").read_text()
    mounts = {target: source for source, target, *_ in (v.split(":") for v in COMPOSE["services"]["prometheus"]["volumes"])}
    rules = "/etc/prometheus/rules/alerts.yml"
    (tmp_path / "token").write_text(TOKEN)
    for place, here in ((rules, (DEPLOY / mounts[rules]).resolve()), ("/run/secrets/admin-token", tmp_path / "token")):
        assert place in text
        text = text.replace(place, str(here))
    (tmp_path / "prometheus.yml").write_text(text)
    command = [program, "check", "config", tmp_path / "prometheus.yml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "rules found" in done.stdout, done.stdout + done.stderr


def test_the_collector_uses_what_it_defines():
    """Its own `validate` is not to be had from a package registry, so this is all that is checked: that names agree."""
    config = yaml.safe_load((CONFIG / "otel-collector.yaml").read_text())
    service = config["service"]
    assert set(config) == {"extensions", "receivers", "processors", "exporters", "service"}
    assert set(service["extensions"]) == set(config["extensions"])
    for kind in ("receivers", "processors", "exporters"):
        used = [name for pipeline in service["pipelines"].values() for name in pipeline[kind]]
        assert set(used) == set(config[kind]), kind
    stored = {e["sending_queue"]["storage"] for e in config["exporters"].values() if "sending_queue" in (e or {})}
    assert stored <= set(config["extensions"])
    assert {"file", "otlp/tempo"} <= set(service["pipelines"]["traces"]["exporters"])
    mounted = [volume.split(":")[1] for volume in COMPOSE["services"]["otel-collector"]["volumes"]]
    for path in (config["exporters"]["file"]["path"], config["extensions"]["file_storage"]["directory"]):
        assert any(path.startswith(f"{place}/") for place in mounted), path


# systemd.


def test_systemd_takes_the_unit(tmp_path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    text = UNIT.read_text()
    assert "\nExecStart=/usr/bin/tollgate " in text
    unit = tmp_path / "tollgate.service"
    unit.write_text(text.replace("/usr/bin/tollgate", str(PROGRAM)))
    done = subprocess.run([program, "verify", unit], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Unknown" not in done.stderr, done.stdout + done.stderr
    command = [program, "security", "--offline=true", "--threshold=20", unit]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a unit that is not loaded")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
