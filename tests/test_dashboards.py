"""The dashboards: every query is put to a real Prometheus that scrapes the real program, and has an answer with the labels that
its legend names."""

import json
import re

import httpx
import pytest
import yaml

from conftest import ROOT, free_port, replace_file, until
from test_metrics import BACKENDS, BUDGET, start_counted, start_prometheus  # noqa: F401 - fixtures

CONFIG = ROOT / "host/deploy/config"
FILES = sorted((CONFIG / "grafana/dashboards").glob("*.json"))
DASHBOARDS = [json.loads(path.read_text()) for path in FILES]
METRIC = re.compile(r"\b(?:tollgate|llm|gen_ai|vllm)[_:][a-z_:]+(?=\{)")


def targets(dashboard):
    """Title, query and legend of each query of each panel."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]


def plain(expression):
    """As Grafana would ask it with everything chosen, over a short time."""
    spans = {"$__rate_interval": "20s", "$__range": "60s", "$__interval": "20s"}
    for name, value in spans.items():
        expression = expression.replace(name, value)
    return re.sub(r"\$(job|instance|model|tenant)\b", ".*", expression)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_is_well_formed(path):
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"] == path.stem and dashboard["title"] and "id" not in dashboard
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels)))
    assert used - {"__rate_interval", "__range", "__interval"} <= variables
    assert variables - {"job"} <= used
    sources = {target["datasource"]["uid"] for panel in panels for target in panel.get("targets", [])}
    assert sources == {"${datasource}"}


def test_data_sources_and_dashboards_are_provisioned():
    sources = yaml.safe_load((CONFIG / "grafana/provisioning/datasources/tollgate.yaml").read_text())["datasources"]
    uids = {source["uid"] for source in sources}
    assert uids == {"prometheus", "tempo"} and sum(source.get("isDefault", False) for source in sources) == 1
    exemplars = [d for s in sources for d in s["jsonData"].get("exemplarTraceIdDestinations", [])]
    # The label of our exemplars.
    assert exemplars == [{"name": "trace_id", "datasourceUid": "tempo"}]
    compose = yaml.safe_load((ROOT / "host/deploy/compose.yaml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    (provider,) = yaml.safe_load((CONFIG / "grafana/provisioning/dashboards/tollgate.yaml").read_text())["providers"]
    assert mounts["./config/grafana/dashboards"] == provider["options"]["path"]
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in {f"{provider['options']['path']}/{path.name}" for path in FILES}


# One model has a price, all others have none; and beside it a fixture that is told what to do.
ROW = '{ match = "mistral-7b", input = "$1/M", output = "$2/M" }'
PRICES = f'[[plugin]]\nfile = "cost-per-token.wasm"\norder = 1\nconfig = {{ models = [{ROW}] }}\n'
CREDITS = 'roles = ["cost-model"]\nconfig = { act = "negative" }\n'
TRAPS_IN_THE_SHADOW = 'shadow = true\nconfig = { act = "trap-at", n = 4, on = "price" }\n'


@pytest.fixture
def everything_happened(start_counted, tmp_path):  # noqa: F811
    """A gateway that has something to tell in every family, and a function that goes on giving it work."""
    hostile = '[[plugin]]\nfile = "hostile.wasm"\n'
    dead = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_METRICS_EXPORTER": "none"}
    plugins = ["cost-per-token", "enrich-labels", "filter-redact", "hostile"]
    (tmp_path / "backends.toml").write_text(BACKENDS)
    (tmp_path / "keys.toml").write_text(BUDGET)
    arguments = ["--ledger-budget-mib", "1024", "--model", "demo", "--backends", tmp_path / "backends.toml", "--keys-file", tmp_path / "keys.toml"]
    admin = start_counted(env=dead, arguments=arguments, plugins=plugins, plugins_toml=PRICES + hostile + CREDITS)
    gateway = admin.gateway

    def work():
        answer = gateway.complete(max_tokens=2, user="acme")
        gateway.complete(model="gpt-4o-mini", max_tokens=2, user="zeta")
        assert gateway.http.post("/v1/completions", json={"model": "none", "prompt": "x"}).status_code == 404
        assert gateway.http.post("/v1/completions", json={"model": "far-model", "prompt": "x", "user": "acme"}).status_code in (502, 503)
        return answer

    assert work()["cost"]["amount"].startswith("-")
    replace_file(gateway.plugins / "plugins.toml", PRICES + hostile + TRAPS_IN_THE_SHADOW)
    for name in ("tollgate_shadow_cost", "tollgate_plugin_faults_total", "tollgate_exporter_last_error_age_seconds"):
        until(lambda name=name: work() and name in admin.metrics(), 60, name)
    return admin, work


def test_every_query_has_an_answer(everything_happened, start_prometheus):  # noqa: F811
    admin, work = everything_happened
    served = set(admin.metrics())
    asked = {name for dashboard in DASHBOARDS for name in METRIC.findall(json.dumps(dashboard).replace('\\"', '"'))}
    assert len(asked) > 40
    assert not asked - served

    prometheus = start_prometheus(admin)

    def query(expression):
        try:
            answer = prometheus.get("/query", params={"query": plain(expression)})
        except httpx.TransportError:
            return []
        assert answer.status_code in (200, 503), f"{expression}: {answer.text}"
        return answer.json()["data"]["result"] if answer.status_code == 200 else []

    waiting = [target for dashboard in DASHBOARDS for target in targets(dashboard)]
    assert len(waiting) > 80

    def answered():
        nonlocal waiting
        work()
        found = [(target, query(target[1])) for target in waiting]
        for (title, _, legend), series in found:
            named = set(re.findall(r"\{\{(\w+)\}\}", legend))
            for one in series:
                assert named <= set(one["metric"]), f"{title}: {legend} of {one['metric']}"
        waiting = [target for target, series in found if not series]
        return not waiting

    try:
        until(answered, 90, "an answer to every query")
    except AssertionError as error:
        raise AssertionError("\n".join(f"{title}: {expression}" for title, expression, _ in waiting)) from error

    # What can be chosen from, and what is marked.
    for dashboard in DASHBOARDS:
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
                series = query(selector)
                assert series and all(label in one["metric"] for one in series), variable["name"]
        for annotation in dashboard["annotations"]["list"]:
            query(annotation["expr"])
