"""The operator's side: plugins listed, steered and tried over the admin API and by command, metrics, shadow prices."""

import json
import subprocess
from decimal import Decimal

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_classic

from conftest import BUNDLED, PROGRAM, component, environment, exact, free_port, replace_file, until
from test_plugins import digest, price
from test_settings import fails

TOKEN = "0123456789abcdef-a-token-of-the-tests"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OTHER_BUILD = component("cost-per-token").read_bytes() + b"\0\x05\x04note"


class Admin:
    """The admin API of one gateway, and the commands that use it."""

    def __init__(self, gateway, port, token=TOKEN):
        self.gateway, self.url = gateway, f"http://127.0.0.1:{port}"
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False, headers=headers)
        self.token = token

    def get(self, path, status=200):
        answer = self.http.get(path)
        assert answer.status_code == status, answer.text
        return exact(answer)

    def post(self, path, status=200, **more):
        answer = self.http.post(path, **more)
        assert answer.status_code == status, answer.text
        return exact(answer)

    def plugin(self, file):
        return next(p for p in self.get("/admin/plugins")["plugins"] if p["file"] == file)

    def metrics(self):
        """Every sample by name, with its labels; the page must be what the strict parser takes."""
        answer = self.http.get("/metrics", headers={"accept": OPEN_METRICS})
        assert answer.headers["content-type"] == OPEN_METRICS
        samples = {}
        for family in read_open_metrics(answer.text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        return samples

    def value(self, name, **labels):
        """The sum of all samples of that name with those labels."""
        found = [v for l, v in self.metrics().get(name, []) if labels.items() <= l.items()]
        return sum(found) if found else None

    def command(self, *arguments, status=0, token=TOKEN, text=None):
        """`tollgate plugin ...` against this gateway."""
        command = [PROGRAM, "plugin", *arguments, "--admin", self.url]
        env = environment({"TOLLGATE_ADMIN_TOKEN": token} if token else {})
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, input=text)
        assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr


@pytest.fixture
def start_admin(start_gateway):
    """Starts gateways with an admin API."""

    def start(token=TOKEN, **options):
        port = free_port()
        env = {"TOLLGATE_ADMIN_TOKEN": token} if token else {}
        gateway = start_gateway(arguments=["--admin-listen", f"127.0.0.1:{port}"], env=env, **options)
        return Admin(gateway, port, token)

    return start


def test_plugins_are_listed_and_inspected(start_admin):
    admin = start_admin()
    listed = admin.get("/admin/plugins")
    assert listed["generation"] >= 1
    assert [p["file"] for p in listed["plugins"]] == sorted(f"{name}.wasm" for name in BUNDLED)
    assert {p["state"] for p in listed["plugins"]} == {"serving"}
    plugin = admin.plugin("cost-per-token.wasm")
    assert plugin["plugin"]["name"] == "tollgate/cost-per-token" and plugin["roles"] == ["cost-model"]
    assert plugin["plugin"]["digest"] == digest(component("cost-per-token").read_bytes())
    assert plugin["breaker"] == {"state": "closed"} and plugin["since"].endswith("Z") and plugin["error"] is None
    admin.gateway.complete()
    whole = admin.get("/admin/plugins/cost-per-token.wasm")
    assert whole["meters"][0]["calls"] >= 1 and whole["meters"][0]["role"] == "cost-model"
    for path in ("/admin/plugins/none.wasm", "/admin/nothing"):
        assert admin.get(path, 404)["error"]["code"] == "not_found"
    assert admin.post("/admin/plugins", 405)["error"]["code"] == "method_not_allowed"


def test_what_is_refused_is_shown_with_its_cause(start_admin):
    admin = start_admin(plugins=["cost-per-token"])
    replace_file(admin.gateway.plugins / "broken.wasm", b"\0asm\x01\0\0\0")
    replace_file(admin.gateway.plugins / "cost-per-token.wasm", b"no plugin at all")
    admin.post("/admin/plugins/reload")
    broken = admin.plugin("broken.wasm")
    assert broken["state"] == "refused" and broken["plugin"] is None and broken["error"]["message"]
    held = admin.plugin("cost-per-token.wasm")
    assert held["state"] == "held" and held["plugin"]["name"] == "tollgate/cost-per-token" and held["error"]["message"]
    assert admin.value("tollgate_plugin_files", state="refused") == 1
    text = admin.command("list")
    assert "refused" in text and broken["error"]["message"] in text
    admin.gateway.still_serves()


def test_a_reload_fails_where_something_is_not_used(start_admin, tmp_path):
    """By its exit code, so that a deployment that goes on after it knows."""
    admin = start_admin(plugins=["cost-per-token", "enrich-labels"])
    assert "serving" in admin.command("reload")
    plugins = admin.gateway.plugins
    replace_file(plugins / "broken.wasm", b"\0asm\x01\0\0\0")
    assert "broken.wasm is not used as it lies in the folder" in admin.command("reload", status=1)
    assert "refused" in admin.command("list"), "a list of what runs tells how it is, and that is no failure"
    replace_file(plugins / "cost-per-token.wasm", b"no plugin at all")
    assert "broken.wasm, cost-per-token.wasm are not used" in admin.command("reload", status=1)
    for file, good in (("broken.wasm", None), ("cost-per-token.wasm", component("cost-per-token").read_bytes())):
        (plugins / file).unlink() if good is None else replace_file(plugins / file, good)
    replace_file(plugins / "plugins.toml", '[[plugin]]\nfile = "cost-per-token.wasm"\nconfig = { modles = [] }\n')
    assert "cost-per-token.wasm is not used" in admin.command("reload", status=1), "its configuration is not the one of the file"
    (plugins / "plugins.toml").unlink()
    admin.command("reload")
    replace_file(plugins / "plugins.toml", "[[plugin]\n")
    assert "plugins.toml is not used" in admin.command("reload", status=1)
    (plugins / "plugins.toml").unlink()
    admin.command("reload")
    admin.command("disable", "enrich-labels.wasm")
    assert "disabled" in admin.command("reload"), "what was turned off was meant to be"
    admin.gateway.still_serves()


def test_a_list_of_a_folder_fails_where_something_is_not_used(tmp_path):
    def listed():
        command = [PROGRAM, "plugin", "list", "--plugins", tmp_path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
        return done.returncode, done.stdout, done.stderr

    (tmp_path / "cost.wasm").write_bytes(component("cost-per-token").read_bytes())
    code, stdout, stderr = listed()
    assert (code, stderr) == (0, "") and "serving" in stdout
    (tmp_path / "bad.wasm").write_bytes(b"\0asm\x01\0\0\0")
    code, stdout, stderr = listed()
    assert code == 1 and "refused" in stdout and "bad.wasm is not used" in stderr
    (tmp_path / "bad.wasm").unlink()
    (tmp_path / "plugins.toml").write_text("[[plugin]\n")
    code, _, stderr = listed()
    assert code == 1 and "plugins.toml is not used" in stderr


def test_an_address_without_a_scheme_is_told_with_one():
    for command in (["plugin", "list"], ["plugin", "reload"], ["plugin", "inspect", "a.wasm"], ["top"]):
        arguments = [PROGRAM, *command, "--admin", "127.0.0.1:9090"]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=environment())
        assert done.returncode == 2 and "write http://127.0.0.1:9090" in done.stderr, done.stderr


def test_nothing_without_the_token(start_admin):
    admin = start_admin(plugins=["cost-per-token"])
    wrong = ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"})
    for path in ("/admin/plugins", "/admin/plugins/reload", "/metrics", "/admin/shadow", "/nothing"):
        for method, headers in [(method, headers) for method in ("GET", "POST") for headers in wrong]:
            answer = httpx.request(method, admin.url + path, headers=headers, trust_env=False)
            assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["error"]["code"] == "unauthorized"
    assert httpx.get(admin.url + "/health", trust_env=False).json() == {"status": "ok"}
    # The public API does not serve it, the admin API not the public one.
    assert admin.gateway.http.get("/admin/plugins").status_code == 404
    assert admin.gateway.http.get("/metrics").status_code == 404
    assert admin.http.get("/v1/models").status_code == 404
    assert TOKEN not in admin.gateway.log()


def test_on_loopback_programs_need_no_token_and_pages_get_nothing(start_admin):
    admin = start_admin(token=None, plugins=["cost-per-token"])
    assert admin.plugin("cost-per-token.wasm")["state"] == "serving"
    for headers in ({"origin": "https://example.com"}, {"host": "rebound.example.com"}):
        answer = admin.http.post("/admin/plugins/cost-per-token.wasm/disable", headers=headers)
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "forbidden"
    assert admin.plugin("cost-per-token.wasm")["state"] == "serving"


def test_settings_that_would_leave_it_open(tmp_path):
    port = free_port()
    stderr = fails(tmp_path, "--admin-listen", f"0.0.0.0:{port}")
    assert all(word in stderr for word in ("admin-listen", "admin-token-file", "TOLLGATE_ADMIN_TOKEN")), stderr
    file = tmp_path / "token"
    file.write_text("short\n")
    stderr = fails(tmp_path, "--admin-listen", f"127.0.0.1:{port}", "--admin-token-file", file)
    assert str(file) in stderr and "16" in stderr
    file.write_text(TOKEN)
    both = {"TOLLGATE_ADMIN_TOKEN": TOKEN}
    stderr = fails(tmp_path, "--admin-listen", f"127.0.0.1:{port}", "--admin-token-file", file, env=both)
    assert "twice" in stderr and TOKEN not in stderr
    config = tmp_path / "tollgate.toml"
    config.write_text(f'admin-token = "{TOKEN}"\n')
    stderr = fails(tmp_path, "--config", config)
    assert "admin-token-file" in stderr and TOKEN not in stderr
    assert "--admin-token" in fails(tmp_path, "--admin-token", "x")


def test_the_token_from_a_file_and_a_port_in_use(start_gateway, start_admin, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    port = free_port()
    arguments = ["--admin-listen", f"127.0.0.1:{port}", "--admin-token-file", file]
    admin = Admin(start_gateway(plugins=[], arguments=arguments), port)
    assert admin.get("/admin/plugins")["plugins"] == []
    assert f"http://127.0.0.1:{port}" in admin.gateway.log()
    stderr = fails(tmp_path, "--listen", f"127.0.0.1:{free_port()}", "--admin-listen", f"127.0.0.1:{port}")
    assert str(port) in stderr and "--admin-listen" in stderr


def test_without_the_setting_there_is_none(gateway):
    assert "off; --admin-listen" in gateway.log()


def test_a_reload_sees_what_is_there_now(start_admin):
    admin = start_admin(plugins=[])
    assert admin.gateway.complete()["cost"]["status"] == "unpriced"
    replace_file(admin.gateway.plugins / "cost-per-token.wasm", component("cost-per-token").read_bytes())
    answer = admin.post("/admin/plugins/reload")
    assert [p["state"] for p in answer["plugins"]] == ["serving"]
    assert admin.gateway.complete()["cost"]["status"] == "priced"
    assert admin.value("tollgate_plugin_set_generation") == answer["generation"]


def test_off_and_on_again(start_admin):
    admin = start_admin(plugins=["cost-per-token"])
    off = admin.post("/admin/plugins/cost-per-token.wasm/disable")
    assert off["state"] == "disabled" and not off["enabled"] and off["plugin"] is None
    cost = admin.gateway.complete()["cost"]
    assert (cost["status"], cost["reason"]) == ("unpriced", "no_cost_plugin")
    on = admin.post("/admin/plugins/cost-per-token.wasm/enable")
    assert on["state"] == "serving" and on["plugin"]["name"] == "tollgate/cost-per-token"
    admin.gateway.still_serves()
    for command in ("disable", "enable", "rollback"):
        assert admin.post(f"/admin/plugins/none.wasm/{command}", 404)["error"]["code"] == "not_found"
    assert '"disable"' in admin.gateway.log()


def test_off_outlives_a_restart(start_admin, start_gateway):
    admin = start_admin(plugins=["cost-per-token"])
    admin.post("/admin/plugins/cost-per-token.wasm/disable")
    admin.gateway.stop()
    again = start_gateway(plugins=["cost-per-token"], data=admin.gateway.data)
    assert again.complete()["cost"]["status"] == "unpriced"


def test_back_to_the_last_good_content(start_admin):
    admin = start_admin(plugins=["cost-per-token"])
    file = admin.gateway.plugins / "cost-per-token.wasm"
    first, second = digest(file.read_bytes()), digest(OTHER_BUILD)
    assert admin.post("/admin/plugins/cost-per-token.wasm/rollback", 409)["error"]["code"] == "conflict"
    replace_file(file, OTHER_BUILD)
    admin.post("/admin/plugins/reload")
    assert admin.gateway.complete()["cost"]["plugin"]["digest"] == second
    assert admin.plugin(file.name)["previous"]["digest"] == first
    back = admin.post("/admin/plugins/cost-per-token.wasm/rollback")
    assert back["plugin"]["digest"] == first and back["state"] == "held" and back["held"]
    assert admin.gateway.complete()["cost"]["plugin"]["digest"] == first
    # The content that was rolled back from stays out, until other bytes are dropped.
    admin.post("/admin/plugins/reload")
    assert admin.plugin(file.name)["plugin"]["digest"] == first
    assert admin.plugin(file.name)["digest_of_file"] == second


def posted(admin, answer, **more):
    """The usage of an answered request, as its root span tells it."""
    attributes = admin.gateway.root_span(answer["trace_id"])["attributes"]
    tokens = {kind: attributes[f"gen_ai.usage.{kind}_tokens"] for kind in ("input", "output")}
    usage = {
        "request_model": attributes["gen_ai.request.model"],
        "response_model": attributes["gen_ai.response.model"],
        "operation": attributes["gen_ai.operation.name"],
        "tokens": tokens,
    }
    return usage | more


@pytest.mark.parametrize("model", ["mistral-7b", "gpt-4o-mini", "gpt-3.5-turbo"])
def test_a_dry_run_says_what_the_bill_says(start_admin, model):
    admin = start_admin(plugins=["cost-per-token", "enrich-labels"])
    answer = admin.gateway.complete(model=model, user="acme", max_tokens=13)
    usage = posted(admin, answer, tenant="acme")
    requests = admin.value("tollgate_requests_total")
    spans = len(admin.gateway.spans())
    for name in ("cost-per-token.wasm", "tollgate%2Fcost-per-token"):
        tried = admin.post(f"/admin/plugins/{name}/price", json=usage)
        assert (tried["status"], tried["amount"], tried["currency"]) == ("priced", answer["cost"]["amount"], "USD")
        assert tried["plugin"] == answer["cost"]["plugin"]
        assert sum(Decimal(line["amount"]) for line in tried["lines"]) == price(model, answer)
        assert {line["kind"]: line["quantity"] for line in tried["lines"]} == usage["tokens"]
    assert admin.value("tollgate_requests_total") == requests == 1
    assert len(admin.gateway.spans()) == spans, "a dry run is not on record"
    path = "/admin/plugins/cost-per-token.wasm/price"
    assert admin.post("/admin/plugins/none.wasm/price", 404, json=usage)["error"]["code"] == "not_found"
    assert admin.post("/admin/plugins/enrich-labels.wasm/price", 409, json=usage)["error"]["code"] == "conflict"
    assert "tokns" in admin.post(path, 400, json={"request_model": "m", "tokns": 1})["error"]["message"]
    assert admin.post(path, 400, content=b"{")["error"]["code"] == "invalid_request"
    assert admin.post(path, 415, content=b"{}", headers={"content-type": "text/plain"})["error"]
    assert admin.post(path, 413, content=b" " * 300_000)["error"]["code"] == "request_too_large"


def test_metrics_are_what_prometheus_reads(start_admin):
    admin = start_admin()
    calls = lambda: admin.value("tollgate_plugin_calls_total", plugin="tollgate/cost-per-token")  # noqa: E731
    before = calls()
    for _ in range(3):
        admin.gateway.complete()
    assert admin.gateway.http.post("/v1/completions", json={"model": "none", "prompt": "x"}).status_code == 404
    assert admin.value("tollgate_requests_total", outcome="completed", cost_status="priced") == 3
    assert admin.value("tollgate_requests_total", outcome="refused", cost_status="unpriced") == 1
    assert calls() == before + 3
    took = {"plugin": "tollgate/cost-per-token", "role": "cost-model"}
    assert admin.value("tollgate_plugin_call_duration_seconds_count", **took) == before + 3
    assert 0 < admin.value("tollgate_plugin_call_duration_seconds_sum", **took) < 10
    infinite = admin.value("tollgate_plugin_call_duration_seconds_bucket", le="+Inf", **took)
    assert infinite == before + 3
    build = digest(component("cost-per-token").read_bytes())
    assert admin.value("tollgate_plugin_info", digest=build, version="0.1.0") == 1
    states = {l["state"]: v for l, v in admin.metrics()["tollgate_plugin_breaker_state"] if l["plugin"] == took["plugin"]}
    assert states == {"closed": 1, "open": 0, "half_open": 0}
    assert admin.value("tollgate_plugin_files", state="serving") == len(BUNDLED)
    classic = admin.http.get("/metrics", headers={"accept": "text/plain"})
    assert classic.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in read_classic(classic.text)}
    assert families["tollgate_requests"].type == "counter" and families["tollgate_plugin_set_generation"].type == "gauge"
    assert families["tollgate_plugin_call_duration_seconds"].type == "histogram"
    assert all(family.documentation for family in families.values())


SHADOW = '[[plugin]]\nfile = "hostile.wasm"\nshadow = true\n'
SHADOW_PRICE = Decimal("0.01")  # of each request, by a fixture that behaves


def test_the_difference_of_a_shadow_price(start_admin):
    admin = start_admin(plugins=["cost-per-token", "hostile"], plugins_toml=SHADOW)
    assert admin.plugin("hostile.wasm")["state"] == "shadow"
    asked = [
        ("mistral-7b", "acme"),
        ("mistral-7b", "acme"),
        ("gpt-4o-mini", "acme"),
        ("mistral-7b", 'odd "tenant"\n\\'),
        ("mistral-7b", None),
    ]
    billed = {}
    for number, (model, tenant) in enumerate(asked):
        more = {"user": tenant} if tenant is not None else {}
        answer = admin.gateway.complete(model=model, max_tokens=5 + number, **more)
        assert answer["cost"]["plugin"]["name"] == "tollgate/cost-per-token", "a shadow never bills"
        assert answer["estimated_cost_usd"] == price(model, answer)
        assert "hostile" not in json.dumps(admin.gateway.root_span(answer["trace_id"])), "nor is it on a span"
        billed.setdefault((model, tenant), []).append(answer["estimated_cost_usd"])

    def counted():
        series = admin.get("/admin/shadow")["series"]
        return sum(s["requests"]["dearer"] for s in series) == len(asked) and series

    series = until(counted, what="all requests compared")
    assert {(s["model"], s["tenant"]) for s in series} == set(billed)
    for one in series:
        amounts = billed[one["model"], one["tenant"]]
        assert one["plugin"]["name"] == "tollgate/hostile" and not one["other"]
        assert one["requests"] == dict.fromkeys(one["requests"], 0) | {"dearer": len(amounts)}
        (sums,) = one["amounts"]
        assert sums["currency"] == "USD"
        assert Decimal(sums["billed"]) == sum(amounts)
        assert Decimal(sums["shadow"]) == SHADOW_PRICE * len(amounts)
        assert Decimal(sums["difference"]) == SHADOW_PRICE * len(amounts) - sum(amounts)
        labels = {"plugin": "tollgate/hostile", "model": one["model"], "tenant": one["tenant"] or ""}
        difference = admin.value("tollgate_shadow_cost_difference", currency="USD", **labels)
        assert difference == pytest.approx(float(sums["difference"]), rel=1e-12)
        assert admin.value("tollgate_shadow_requests_total", result="dearer", **labels) == len(amounts)


def test_a_shadow_that_fails_is_counted_and_nothing_else(start_admin):
    toml = SHADOW + 'config = { act = "trap-at", n = 4, on = "price" }\n'
    admin = start_admin(plugins=["cost-per-token", "hostile"], plugins_toml=toml)

    def failed():
        admin.gateway.still_serves()
        return admin.value("tollgate_shadow_requests_total", result="failed")

    until(failed, 30, "a failed shadow price")
    assert admin.value("tollgate_requests_total", cost_status="plugin_failed") is None


def test_commands_for_a_running_gateway(start_admin, tmp_path):
    admin = start_admin(plugins=["cost-per-token"])
    text = admin.command("list")
    heading, row = text.splitlines()
    assert heading.split() == ["FILE", "PLUGIN", "VERSION", "ROLES", "STATE", "DIGEST", "SINCE"]
    assert row.split()[:5] == ["cost-per-token.wasm", "tollgate/cost-per-token", "0.1.0", "cost-model", "serving"]
    assert json.loads(admin.command("list", "--json")) == json.loads(admin.http.get("/admin/plugins").text)
    assert "tollgate/cost-per-token 0.1.0" in admin.command("inspect", "cost-per-token.wasm")
    assert json.loads(admin.command("inspect", "cost-per-token.wasm", "--json"))["state"] == "serving"
    assert "disabled" in admin.command("disable", "cost-per-token.wasm")
    assert admin.plugin("cost-per-token.wasm")["state"] == "disabled"
    assert "serving" in admin.command("enable", "cost-per-token.wasm")
    assert "serving" in admin.command("reload")
    assert "disabled" in admin.command("disable", "tollgate/cost-per-token")
    assert "serving" in admin.command("enable", "cost-per-token.wasm")
    assert "of cost-per-token.wasm has served" in admin.command("rollback", "tollgate/cost-per-token", status=1)
    assert "none.wasm" in admin.command("disable", "none.wasm", status=1)
    assert "go back" in admin.command("rollback", "cost-per-token.wasm", status=1)
    usage = {"request_model": "mistral-7b", "tokens": {"input": 1000, "output": 1000}}
    file = tmp_path / "usage.json"
    file.write_text(json.dumps(usage))
    assert "priced: 0.0003 USD" in admin.command("price", "cost-per-token.wasm", "--usage", file)
    priced = admin.command("price", "tollgate/cost-per-token", "--usage", "-", "--json", text=json.dumps(usage))
    assert json.loads(priced)["amount"] == "0.0003"
    assert "none.json" in admin.command("price", "x.wasm", "--usage", tmp_path / "none.json", status=1)
    assert "TOLLGATE_ADMIN_TOKEN" in admin.command("list", token=None, status=1)
    assert "TOLLGATE_ADMIN_TOKEN" in admin.command("list", token=TOKEN + "x", status=1)
    admin.gateway.stop()
    assert "--admin-listen" in admin.command("list", status=1)


def test_commands_without_a_gateway_leave_the_folder_of_one_that_runs_alone(start_admin):
    admin = start_admin(plugins=["cost-per-token"])
    place = ["--plugins", admin.gateway.plugins, "--data-dir", admin.gateway.data]
    for command in ("disable", "enable", "rollback"):
        code, _, stderr = run(command, "cost-per-token.wasm", *place)
        assert code == 1 and "--admin URL" in stderr and str(admin.gateway.data) in stderr, stderr
    assert admin.plugin("cost-per-token.wasm")["state"] == "serving"
    admin.gateway.still_serves()
    admin.gateway.stop()
    code, stdout, _ = run("disable", "cost-per-token.wasm", *place)
    assert code == 0 and "disabled" in stdout


def run(*arguments):
    done = subprocess.run([PROGRAM, "plugin", *arguments], capture_output=True, text=True, timeout=60, env=environment())
    return done.returncode, done.stdout, done.stderr


def test_a_list_without_a_gateway(tmp_path):
    replace_file(tmp_path / "cost-per-token.wasm", component("cost-per-token").read_bytes())
    replace_file(tmp_path / "broken.wasm", b"no plugin at all")
    code, stdout, _ = run("list", "--plugins", tmp_path, "--json")
    plugins = {p["file"]: p for p in json.loads(stdout)["plugins"]}
    assert code == 1 and plugins["cost-per-token.wasm"]["state"] == "serving"
    assert plugins["broken.wasm"]["state"] == "refused" and plugins["broken.wasm"]["error"]["kind"] == "format"
    code, stdout, _ = run("list", "--plugins", tmp_path)
    assert code == 1 and "cost-model" in stdout and plugins["broken.wasm"]["error"]["message"] in stdout
    code, _, stderr = run("list")
    assert code == 2 and "--admin" in stderr and "--plugins" in stderr
    code, _, stderr = run("list", "--plugins", tmp_path / "none")
    assert code == 1 and "none" in stderr
    code, _, stderr = run("reload", "--admin", "ftp://127.0.0.1")
    assert code == 2 and "http://" in stderr
