"""The Helm chart, rendered by Helm's own engine and held against Kubernetes' schemas. There is no cluster here: what is asked
is whether the objects are well-formed and agree with each other and with the program."""

import base64
import tomllib

import pytest
import yaml

from conftest import ROOT
from test_deploy import starts_with
from test_settings import fails
from test_tenants import new_key

helm = pytest.importorskip("helm_python", reason="Helm's engine has no package for this platform")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

CHART = str(ROOT / "host/deploy/helm/tollgate")
# The oldest that the chart allows, and the newest that the schemas are there for.
VERSIONS = ("1.30", "1.37")
# Defined by the Prometheus operator, not by Kubernetes.
OPERATORS = {"ServiceMonitor", "PrometheusRule"}
MONITORING = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
MANIFEST = '[[plugin]]\nfile = "cost-per-token.wasm"\norder = 1\n'
BACKENDS = '[[backend]]\nname = "vllm"\nurl = "http://vllm.llm:8000/v1"\nmodels = ["llama-3-8b"]\n'
CASES = {
    "as it comes": {},
    "plugins of a ConfigMap": {"plugins": {"source": "configMap", "configMap": {"name": "prices"}}},
    "plugins of a volume": {"plugins": {"source": "volume", "volume": {"claimName": "prices", "subPath": "live"}}},
    "plugins of an OCI image": {
        "plugins": {"source": "ociImage", "ociImage": {"reference": "example.org/prices:1.2"}, "manifest": MANIFEST}
    },
    "bundled plugins, configured": {"plugins": {"source": "image", "manifest": MANIFEST, "keys": ["RWQ1", "RWQ2"]}},
    "everybody may come": {"anonymous": True},
    "other servers": {"backends": BACKENDS, "config": 'model = "demo"\nconsole = "off"\n'},
    "everything on": {
        "admin": {"existingSecret": "mine", "key": "token"},
        "keys": {"existingSecret": "ours", "key": "our-keys.toml"},
        "backends": BACKENDS,
        "redis": {"existingSecret": "redis", "key": "address", "away": "closed"},
        "config": 'model = "demo"\nconsole = "off"\n',
        "env": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel-collector.observability:4317"}],
        "envFrom": [{"secretRef": {"name": "keys"}}],
        "pushMetrics": True,
        "ingress": {"enabled": True, "className": "nginx", "hosts": [{"host": "llm.example.org"}], "tls": [{"hosts": ["a"]}]},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "rules": (ROOT / "host/assets/prometheus/alerts.yml").read_text()},
        "networkPolicy": {
            "clients": [{"podSelector": {"matchLabels": {"app": "chat"}}}],
            "admins": MONITORING,
            "egress": [{"to": MONITORING, "ports": [{"port": 4317, "protocol": "TCP"}]}],
            "backends": {"to": [{"podSelector": {"matchLabels": {"app": "vllm"}}}], "ports": [8000, 8001]},
            "redis": {"to": [{"podSelector": {"matchLabels": {"app": "redis"}}}]},
        },
        "extraVolumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
        "extraVolumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "platform"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "llm", "operator": "Exists"}],
        "priorityClassName": "high",
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "persistence": {"storageClass": "fast", "annotations": {"a": "b"}},
    },
    "nothing on": {
        "replicas": 1,
        "persistence": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "topologySpreadConstraints": [],
        "resources": {},
    },
}


def render(values):
    """Objects by kind and name."""
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name="prod", namespace="llm")
    files = [text for path, text in rendered.items() if path.endswith(".yaml")]
    objects = [found for text in files for found in yaml.safe_load_all(text) if found]
    by_name = {(found["kind"], found["metadata"]["name"]): found for found in objects}
    assert len(by_name) == len(objects), "two objects have one name"
    return by_name


def pod_of(objects):
    return objects["StatefulSet", "prod-tollgate"]["spec"]["template"]


def test_helm_finds_nothing_amiss():
    found = helm.lint(CHART)
    assert not found["errors"]
    # An icon is recommended; there is none.
    assert [message["path"] for message in found["messages"]] in ([], ["Chart.yaml"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_objects_fit_the_schemas_of_kubernetes(case, version):
    objects = render(CASES[case])
    for (kind, _), found in objects.items():
        if kind not in OPERATORS:
            kubernetes_validate.validate(found, version, strict=True)


def test_the_schemas_would_find_a_slip():
    stateful_set = render({})["StatefulSet", "prod-tollgate"]
    stateful_set["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(stateful_set, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("case", CASES)
def test_objects_agree_with_each_other(case):
    objects = render(CASES[case])
    pod = pod_of(objects)
    (container,) = pod["spec"]["containers"]
    every = [container, *pod["spec"].get("initContainers", [])]
    ports = {port["name"] for port in container["ports"]}
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    claims = objects["StatefulSet", "prod-tollgate"]["spec"].get("volumeClaimTemplates", [])
    volumes |= {claim["metadata"]["name"] for claim in claims}
    assert {mount["name"] for one in every for mount in one["volumeMounts"]} == volumes
    config = objects["ConfigMap", "prod-tollgate"]
    sub_paths = {m["subPath"] for m in container["volumeMounts"] if m["name"] == "config" and "subPath" in m}
    env = {one["name"]: one.get("value") for one in container["env"]}
    named = {env["TOLLGATE_BACKENDS"].removeprefix("/etc/tollgate/")} if "TOLLGATE_BACKENDS" in env else set()
    assert sub_paths | named | {"tollgate.toml"} == set(config["data"])
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    files = [value for name, value in env.items() if name.startswith("TOLLGATE_") and name.endswith("_FILE")]
    assert files and all(file.rpartition("/")[0] in mounted for file in files)
    # No key, no address of Redis and no token is anywhere but in a Secret.
    assert not set(env) & {"TOLLGATE_ADMIN_TOKEN", "TOLLGATE_REDIS_URL", "TOLLGATE_KEYS"}
    for one in every:
        security = one["securityContext"]
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}

    for (kind, name), found in objects.items():
        if kind == "Service":
            assert {port["targetPort"] for port in found["spec"]["ports"]} <= ports, name
            assert found["spec"]["selector"].items() <= pod["metadata"]["labels"].items(), name
        if kind in ("PodDisruptionBudget", "StatefulSet"):
            assert found["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items(), name
        if kind == "NetworkPolicy":
            assert found["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
            assert {port["port"] for rule in found["spec"]["ingress"] for port in rule["ports"]} <= ports
        if kind == "ServiceMonitor":
            wanted = found["spec"]["selector"]["matchLabels"].items()
            services = [one for (k, _), one in objects.items() if k == "Service" and wanted <= one["metadata"]["labels"].items()]
            (service,) = services
            (endpoint,) = found["spec"]["endpoints"]
            assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
            assert endpoint["authorization"]["credentials"] == {"name": "mine", "key": "token"}
        if kind == "PrometheusRule":
            assert found["spec"] == yaml.safe_load((ROOT / "host/assets/prometheus/alerts.yml").read_text())
    assert objects["StatefulSet", "prod-tollgate"]["spec"]["serviceName"] in {n for k, n in objects if k == "Service"}


def test_who_reaches_the_admin_api():
    def reached(values):
        rules = render(values)["NetworkPolicy", "prod-tollgate"]["spec"]["ingress"]
        return {port["port"]: rule.get("from") for rule in rules for port in rule["ports"]}

    assert reached({}) == {"http": None}
    assert reached({"networkPolicy": {"admins": MONITORING}}) == {"http": None, "admin": MONITORING}


def test_where_a_gateway_may_go():
    def rules(**values):
        return render({"networkPolicy": values})["NetworkPolicy", "prod-tollgate"]["spec"].get("egress", [])

    assert rules() == []
    _, backends = rules(backends={"to": MONITORING, "ports": [8000, 8001]})
    assert backends == {"to": MONITORING, "ports": [{"port": port, "protocol": "TCP"} for port in (8000, 8001)]}
    dns, collector, redis = rules(egress=[{"to": MONITORING}], redis={"to": MONITORING})
    assert {port["port"] for port in dns["ports"]} == {53} and collector == {"to": MONITORING}
    assert redis["ports"] == [{"port": 6379, "protocol": "TCP"}]


def test_a_gateway_has_time_to_drain():
    pod = pod_of(render({"drainSeconds": 300, "preStopSeconds": 15}))["spec"]
    (container,) = pod["containers"]
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == 15
    assert {"name": "TOLLGATE_DRAIN_SECONDS", "value": "300"} in container["env"]
    # Beside requests, records may take 10 s to leave, and the last metrics 3.
    assert pod["terminationGracePeriodSeconds"] >= 300 + 15 + 13
    paths = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {(one["path"], one["port"]) for one in paths.values()} == {("/health", "http"), ("/ready", "http")}
    assert paths["readinessProbe"]["path"] == "/ready" and paths["livenessProbe"]["path"] == "/health"


def test_new_settings_restart_the_gateways():
    def checksum(**values):
        return pod_of(render(values))["metadata"]["annotations"]["checksum/config"]

    assert checksum() == checksum(replicas=9)
    changed = [checksum(), checksum(config="max-running = 2\n"), checksum(plugins={"manifest": MANIFEST})]
    assert len(set(changed)) == 3
    # These are followed live.
    assert checksum() == checksum(backends=BACKENDS)


def test_a_token_is_made_where_none_is_given():
    (token,) = render({})["Secret", "prod-tollgate-admin"]["data"].values()
    assert len(base64.b64decode(token)) == 48
    assert not [kind for kind, _ in render(CASES["everything on"]) if kind == "Secret"]


def test_a_key_is_made_where_none_is_given():
    secrets = [render({"keys": {"tenant": "acme"}})["Secret", "prod-tollgate-keys"]["data"] for _ in range(2)]
    assert secrets[0]["api-key"] != secrets[1]["api-key"]
    (key,) = tomllib.loads(base64.b64decode(secrets[0]["keys.toml"]).decode())["key"]
    assert key["tenant"] == "acme" and base64.b64decode(secrets[0]["api-key"]).decode() not in str(key)
    assert ("Secret", "prod-tollgate-keys") not in render({"anonymous": True})
    objects = render({})
    (mounted,) = [volume["secret"] for volume in pod_of(objects)["spec"]["volumes"] if volume["name"] == "keys"]
    assert mounted == {"secretName": "prod-tollgate-keys", "items": [{"key": "keys.toml", "path": "keys.toml"}]}


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 2},
        {"replicas": "2"},
        {"image": {"tag": "latest"}},
        {"plugins": {"source": "configMap"}},
        {"plugins": {"source": "volume"}},
        {"plugins": {"source": "ociImage"}},
        {"plugins": {"source": "ociImage", "ociImage": {"reference": "example.org/prices"}}},
        {"plugins": {"source": "configMap", "configMap": {"name": "a"}, "manifest": MANIFEST}},
        {"plugins": {"source": "bucket"}},
        {"env": [{"name": "TOLLGATE_LISTEN", "value": "0.0.0.0:1"}]},
        {"persistence": {"accessModes": ["ReadWriteMany"]}},
        {"drainSeconds": 0},
        {"anonymous": True, "keys": {"existingSecret": "ours"}},
        {"keys": {"key": "api-key"}},
        {"keys": {"tenant": 'a"b'}},
        {"redis": {"away": "never"}},
        {"env": [{"name": "TOLLGATE_REDIS_URL", "value": "redis://redis"}]},
        {"networkPolicy": {"backends": {"to": MONITORING, "ports": ["http"]}}},
    ],
    ids=str,
)
def test_values_that_cannot_work_are_refused(values):
    with pytest.raises(helm.HelmError), helm.Chart.load(CHART) as chart:
        chart.validate_schema(chart.merge_values(values))
        chart.render(values, name="prod", namespace="llm")


@pytest.mark.parametrize("case", ["as it comes", "bundled plugins, configured", "everybody may come", "other servers"])
def test_the_program_starts_with_what_is_set_there(start_gateway, tmp_path, case):
    objects = render(CASES[case])
    (container,) = pod_of(objects)["spec"]["containers"]
    env = {one["name"]: one.get("value", "prod-tollgate-0") for one in container["env"]}
    env.pop("TOLLGATE_PLUGIN_KEYS", None)
    key = None
    if "TOLLGATE_KEYS_FILE" in env:
        made = {name: base64.b64decode(text) for name, text in objects["Secret", "prod-tollgate-keys"]["data"].items()}
        env["TOLLGATE_KEYS_FILE"] = str(tmp_path / "keys.toml")
        (tmp_path / "keys.toml").write_bytes(made["keys.toml"])
        key = made["api-key"].decode()
    if "TOLLGATE_BACKENDS" in env:
        env["TOLLGATE_BACKENDS"] = str(tmp_path / "backends.toml")
        (tmp_path / "backends.toml").write_text(objects["ConfigMap", "prod-tollgate"]["data"]["backends.toml"])
    file = tmp_path / "tollgate.toml"
    file.write_text(objects["ConfigMap", "prod-tollgate"]["data"]["tollgate.toml"])
    assert container["args"] == ["serve", "--config", "/etc/tollgate/tollgate.toml"] and tomllib.loads(file.read_text())
    starts_with(start_gateway, tmp_path, env, ["--config", file], key=key, host="0.0.0.0")


def test_everything_on_starts_with_what_is_its_owners(start_gateway, tmp_path):
    objects = render(CASES["everything on"])
    (container,) = pod_of(objects)["spec"]["containers"]
    env = {one["name"]: one.get("value", "prod-tollgate-0") for one in container["env"]}
    # There is no Redis here, and `closed` would serve nothing.
    places = {"TOLLGATE_KEYS_FILE": "keys.toml", "TOLLGATE_REDIS_URL_FILE": "url", "TOLLGATE_BACKENDS": "backends.toml"}
    env |= {name: str(tmp_path / file) for name, file in places.items()} | {"TOLLGATE_REDIS_AWAY": "local"}
    data = objects["ConfigMap", "prod-tollgate"]["data"]
    for file in ("tollgate.toml", "backends.toml"):
        (tmp_path / file).write_text(data[file])
    (tmp_path / "url").write_text("redis://127.0.0.1:1\n")
    _, key = new_key(tmp_path / "keys.toml", "acme", "--requests-per-minute", "60")
    starts_with(start_gateway, tmp_path, env, ["--config", tmp_path / "tollgate.toml"], key=key, host="0.0.0.0")


def test_why_service_links_are_off(tmp_path):
    assert pod_of(render({}))["spec"]["enableServiceLinks"] is False
    assert "TOLLGATE_PORT" in fails(tmp_path, env={"TOLLGATE_PORT": "tcp://10.0.0.1:80"})
