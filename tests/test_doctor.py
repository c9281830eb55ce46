"""`tollgate doctor`: each thing that it looks at is seen in order, and out of order with what mends it."""

import json
import os
import shutil
import socket
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conftest import component, free_port
from receivers import GrpcReceiver, HttpReceiver
from test_settings import run
from test_tenants import Redis, new_key, redis  # noqa: F401 - a fixture


@pytest.fixture
def doctor(tmp_path):
    """Examines a gateway that is in order, but for what a test does to it."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    shutil.copyfile(component("cost-per-token"), plugins / "cost.wasm")

    def examine(*arguments, status=None, env=()):
        options = {"--listen": f"127.0.0.1:{free_port()}", "--data-dir": tmp_path / "data", "--plugins": plugins}
        options |= dict(zip(arguments[::2], arguments[1::2]))
        flat = [part for pair in options.items() for part in pair]
        code, stdout, stderr = run("doctor", "--json", *flat, env=env)
        assert stdout, stderr
        found = json.loads(stdout)
        failed = any(one["verdict"] == "failed" for one in found)
        assert code == (1 if failed else 0), stdout
        for one in found:
            assert (one["verdict"] == "ok") == (one["mend"] is None), one
        return found

    return examine


def worst(found, check):
    """The worst finding of a check."""
    order = ["ok", "warning", "failed"]
    return max((one for one in found if one["check"] == check), key=lambda one: order.index(one["verdict"]))


def expect(found, check, verdict, *words):
    one = worst(found, check)
    assert one["verdict"] == verdict, one
    text = f"{one['seen']} {one['mend']}"
    assert all(word in text for word in words), one


def test_all_in_order(doctor, tmp_path):
    found = doctor()
    assert {one["verdict"] for one in found} == {"ok"}, found
    seen = {one["check"] for one in found}
    assert seen == {"port", "data", "disk", "plugins", "model", "keys", "exporter", "clock"}
    assert not (tmp_path / "data").exists(), "it leaves nothing behind"


def test_for_people(tmp_path):
    code, stdout, _ = run("doctor", "--data-dir", tmp_path, "--plugins", tmp_path / "none", "--listen", f"127.0.0.1:{free_port()}")
    assert code == 1 and "1 failed" in stdout and "→ make the folder" in stdout


def test_settings_that_are_wrong_are_said_first(tmp_path):
    code, stdout, stderr = run("doctor", "--data-dir", tmp_path, env={"TOLLGATE_LISTN": "x"})
    assert code == 2 and stdout == "" and "TOLLGATE_LISTEN" in stderr


def test_ports(doctor):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expect(doctor("--listen", f"127.0.0.1:{port}"), "port", "failed", str(port), "--listen")
        expect(doctor("--admin-listen", f"127.0.0.1:{port}"), "port", "failed", "--admin-listen")
    free = f"127.0.0.1:{free_port()}"
    expect(doctor("--listen", free, "--admin-listen", free), "port", "failed", "admin-listen", "in use")
    expect(doctor("--listen", free, "--admin-listen", f"127.0.0.1:{free_port()}"), "port", "ok")
    expect(doctor("--listen", "192.0.2.1:8080", "--keys-file", os.devnull), "port", "failed", "192.0.2.1")


def test_folders_and_disk(doctor, tmp_path):
    (tmp_path / "file").write_text("")
    expect(doctor("--data-dir", tmp_path / "file/below"), "data", "failed", "--data-dir")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(stat.S_IRWXU | stat.S_IRWXO)
    expect(doctor("--data-dir", tmp_path / "open"), "data", "warning", "every user", "chmod o-w")
    (tmp_path / "open").chmod(0o750)
    assert worst(doctor("--data-dir", tmp_path / "open"), "data")["verdict"] == "ok"
    (tmp_path / "open").chmod(0o755)
    expect(doctor("--data-dir", tmp_path / "open"), "data", "warning", "read by every user", "chmod -R o-rwx")
    expect(doctor("--ledger-min-free-mib", str(1 << 30)), "disk", "failed", "ledger-min-free-mib")
    config = tmp_path / "t.toml"
    config.write_text(f'[[exporter]]\nkind = "ndjson"\npath = "{tmp_path}/shipped/spans"\n')
    (tmp_path / "shipped").mkdir(mode=0o755)
    assert worst(doctor("--config", config), "data")["verdict"] == "ok", "spans without prompts may be for everybody"
    expect(doctor("--config", config, "--capture-content", "acme"), "data", "warning", "shipped", "read by every user")
    config.write_text(f'[[exporter]]\nkind = "ndjson"\npath = "{tmp_path}/file/spans"\n')
    expect(doctor("--config", config), "data", "failed", "path of the exporter")


def test_plugins(doctor, tmp_path):
    plugins = tmp_path / "plugins"
    (plugins / "bad.wasm").write_bytes(b"\0asm\1\0\0\0")
    expect(doctor(), "plugins", "failed", "bad.wasm", "plugin check", "take the file away")
    (plugins / "bad.wasm").unlink()
    (plugins / "plugins.toml").write_text('[plugin."cost.wasm"]\nenabled = false\n')
    found = doctor()
    assert worst(found, "plugins")["verdict"] != "ok", found
    (plugins / "plugins.toml").unlink()
    (plugins / "cost.wasm").unlink()
    expect(doctor(), "plugins", "warning", "not be priced")
    shutil.copyfile(component("filter-redact"), plugins / "filter.wasm")
    expect(doctor(), "plugins", "warning", "no plugin of the folder is a cost model")
    expect(doctor("--plugin-keys", "nonsense"), "plugins", "failed", "minisign")
    plugins.chmod(stat.S_IRWXU | stat.S_IRWXO)
    assert any("who so make prices" in one["seen"] for one in doctor())


def test_plugins_as_a_gateway_would_find_them(doctor, tmp_path):
    plugins, data = tmp_path / "plugins", tmp_path / "data"
    place = ("--plugins", plugins, "--data-dir", data)

    def plugin(command, name):
        return run("plugin", command, name, *place)

    def told(**entries):
        text = "".join(f'[[plugin]]\nfile = "{file}.wasm"\n{more}\n' for file, more in entries.items())
        (plugins / "plugins.toml").write_text(text)

    assert plugin("disable", "cost.wasm")[0] == 0
    expect(doctor(), "plugins", "warning", "cost.wasm: it was disabled by command", "`tollgate plugin enable cost.wasm`")
    assert plugin("enable", "cost.wasm")[0] == 0
    assert {one["verdict"] for one in doctor()} == {"ok"}

    told(cost="enabled = false")
    found = doctor()
    expect(found, "plugins", "warning", "enabled = true")
    assert any(one["seen"] == "cost.wasm is turned off" for one in found), found
    code, _, stderr = plugin("enable", "cost.wasm")
    assert code == 1 and "plugins.toml has `enabled = false`" in stderr, stderr

    told(cost="", costs="")
    expect(doctor(), "plugins", "failed", "costs.wasm", "correct its name in plugins.toml")
    told(cost="roles = ['export-filter']")
    expect(doctor("--data-dir", tmp_path / "none"), "plugins", "failed", "does not export")
    # As the advice has it.
    code, stdout, _ = run("plugin", "check", "--plugins-toml", plugins / "cost.wasm")
    assert code == 1 and "does not export" in stdout, stdout

    # The last good one holds where it is known, and nothing is served where it is not.
    told(cost="")
    assert plugin("enable", "cost.wasm")[0] == 0
    told(cost="ordre = 1")
    found = doctor()
    expect(found, "plugins", "failed", "plugins.toml", "the last good settings stay in force")
    assert "plugin check" not in worst(found, "plugins")["mend"]
    assert any(one["seen"].startswith("cost.wasm: tollgate/cost-per-token") for one in found), found
    found = doctor("--data-dir", tmp_path / "none")
    expect(found, "plugins", "failed", "no plugin serves until then")
    assert any(one["seen"].startswith("cost.wasm: plugins.toml is broken") for one in found), found
    assert not (tmp_path / "none").exists(), "it leaves nothing behind"


def test_models(doctor, tmp_path):
    expect(doctor("--model", "none"), "model", "failed", "--backends")
    expect(doctor("--model", "no model"), "model", "failed", "owner/name")
    folder = tmp_path / "model"
    folder.mkdir()
    expect(doctor("--model", folder), "model", "failed", "config.json")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    expect(doctor("--model", tmp_path / "x.gguf"), "model", "failed", "GGUF")
    empty = {"HF_HOME": str(tmp_path / "hub")}
    expect(doctor("--model", "some-owner/some-model", env=empty), "model", "warning", "not in the cache")
    expect(doctor("--kv-memory-mib", str(1 << 30)), "model", "failed", "memory are available")


def test_keys(doctor, tmp_path):
    keys = tmp_path / "keys.toml"
    expect(doctor("--keys-file", keys), "keys", "failed", "tollgate key create")
    new_key(keys, "acme")
    expect(doctor("--keys-file", keys), "keys", "ok", "1")
    keys.write_text("[[key]]\nid = 1\n")
    expect(doctor("--keys-file", keys), "keys", "failed", "keys.toml")
    expect(doctor("--listen", f"0.0.0.0:{free_port()}"), "keys", "failed", "others can reach", "--anonymous")


class Server:
    """Answers every GET with one status, and the date that it is told."""

    def __init__(self, status, date=None):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802 - the base class's name for it
                self.send_response_only(status)
                if date:
                    self.send_header("Date", date)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        return self.url

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def test_backends_and_the_clock(doctor, gateway, tmp_path):
    file = tmp_path / "backends.toml"

    def of(url, *more):
        file.write_text(f'[[backend]]\nname = "b"\nurl = "{url}"\n')
        return doctor("--backends", file, *more)

    found = of(f"{gateway.url}/v1")
    expect(found, "backends", "ok", "answered 200")
    expect(found, "clock", "ok", "agrees with b")
    expect(found, "model", "ok", "none")
    expect(of(f"http://127.0.0.1:{free_port()}/v1"), "backends", "failed", "start that server")
    with Server(401) as url:
        expect(of(url), "backends", "failed", "key-env")
    with Server(500) as url:
        expect(of(url), "backends", "warning", "500")
    with Server(302) as url:
        expect(of(url), "backends", "warning", "/v1")
    with Server(404, "Sun, 06 Nov 1994 08:49:37 GMT") as url:
        found = of(url)
        expect(found, "backends", "ok", "404")
        expect(found, "clock", "failed", "clock of b", "synchronise")
    file.write_text('[[backend]]\nname = "b"\nurl = "https://model.test/v1"\n')
    away = f"http://user:word@127.0.0.1:{free_port()}"
    found = doctor("--backends", file, env={"HTTPS_PROXY": away})
    expect(found, "backends", "failed", f"by the proxy {away.replace('user:word@', '')}", "cannot be reached", 'proxy = "none"')
    assert "word" not in json.dumps(found)
    found = doctor("--backends", file, env={"ALL_PROXY": "socks5://127.0.0.1:1"})
    expect(found, "backends", "failed", "ALL_PROXY", "SOCKS")
    file.write_text("[[backend]]\nname = 1\n")
    expect(doctor("--backends", file), "backends", "failed", "backends.toml")
    file.write_text("")
    expect(doctor("--backends", file), "backends", "warning", "none")


def test_redis(doctor, redis):  # noqa: F811 - the fixture
    address = {"TOLLGATE_REDIS_URL": f"redis://127.0.0.1:{redis.port}"}
    found = doctor(env=address)
    expect(found, "redis", "ok", "evicts nothing")
    expect(found, "clock", "ok", "agrees with redis")
    with socket.create_connection(("127.0.0.1", redis.port), timeout=5) as connection:
        connection.sendall(b"CONFIG SET maxmemory-policy allkeys-lru\r\n")
        assert connection.recv(16).startswith(b"+OK")
    expect(doctor(env=address), "redis", "warning", "allkeys-lru", "noeviction")
    redis.stop()
    expect(doctor(env=address), "redis", "failed", "TOLLGATE_REDIS_URL")
    expect(doctor(env={"TOLLGATE_REDIS_URL": "nonsense"}), "redis", "failed", "address")


@pytest.mark.parametrize("kind", [GrpcReceiver, HttpReceiver])
def test_a_receiver_gets_a_span(doctor, kind):
    with kind() as receiver:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.protocol}
        expect(doctor(env=variables), "exporter", "ok")
        (span,) = receiver.spans
        assert span.name == "tollgate.doctor" and span.attributes == {"tollgate.probe": True}
        assert span.resource["service.name"] == "tollgate"
    expect(doctor(env=variables), "exporter", "failed", receiver.endpoint.rpartition(":")[2], "start the receiver, or correct the endpoint")


def test_receivers_that_are_none(doctor):
    expect(doctor(env={"OTEL_SDK_DISABLED": "true"}), "exporter", "warning", "OTEL_SDK_DISABLED")
    with Server(404) as url:
        expect(doctor(env={"OTEL_EXPORTER_OTLP_ENDPOINT": url}), "exporter", "failed", "check endpoint")
