"""What is rendered is what Kubernetes takes and what reviewers expect."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import chart
import jsonschema
import pytest
import yaml
from chart import CASES, KUBERNETES, render, values_of
from helm_python import chart as helm

CRDS = {"Certificate", "ServiceMonitor", "PrometheusRule"}

# What checkov would like and we do not do, each with the reason.
WAIVED = {
    "CKV_K8S_11": "no CPU limit: throttling delays media, and the request already shares the CPU fairly",
    "CKV_K8S_43": "no digest by default: the image is built by whoever installs; image.digest pins it",
    "CKV_K8S_15": "pullPolicy IfNotPresent: an image that was loaded into the nodes cannot be pulled",
    "CKV_K8S_19": "edge.hostNetwork is for those who ask for it: RTMFP without address translation",
    "CKV_K8S_26": "the same",
    "CKV_K8S_8": "jobs and tests that end have no liveness",
    "CKV_K8S_9": "jobs and tests that end have no readiness",
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_strict_lint_has_nothing_to_say(case, kubernetes):
    said = helm.lint(str(chart.CHART), values_of(case), strict=True, kube_version=f"v{kubernetes}.0")
    assert not said.get("errors"), said
    # An icon is recommended; there is none.
    rest = [each for each in said.get("messages", []) if "icon is recommended" not in str(each)]
    assert not rest, rest


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_manifests_follow_the_strict_schemas_of_kubernetes(kubernetes, tmp_path):
    import kubernetes_validate

    for case in CASES:
        for each in render(values_of(case), kubernetes=kubernetes):
            if each["kind"] not in CRDS:
                kubernetes_validate.validate(each, kubernetes, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        wrong = json.loads(json.dumps(render().origins()))
        wrong["spec"]["replica"] = 3
        kubernetes_validate.validate(wrong, kubernetes, strict=True)


def test_custom_resources_have_the_fields_that_their_operators_read():
    schemas = json.loads((chart.TESTS / "crds.json").read_text())
    seen = set()
    for case in CASES:
        for each in render(values_of(case)):
            if each["kind"] in CRDS:
                jsonschema.validate(each, schemas[each["kind"]])
                seen.add(each["kind"])
    assert seen == CRDS


def test_checkov_finds_nothing_that_is_not_waived_with_a_reason():
    checkov = Path(sys.executable).with_name("checkov")
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            (Path(folder) / f"{case}.yaml").write_text(render(values_of(case)).text)
        command = [checkov, "-d", folder, "--framework", "kubernetes", "--quiet", "--compact"]
        command += ["--skip-download", "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 500, report["summary"]
    assert report["summary"]["parsing_errors"] == 0
    failed = report["results"]["failed_checks"]
    found = {
        f"{each['check_id']} {each['check_name']}: {each['file_path']} {each['resource']}"
        for each in failed
        if each["check_id"] not in WAIVED
    }
    assert not found, "\n".join(sorted(found))
    needless = set(WAIVED) - {each["check_id"] for each in failed}
    assert not needless, f"waived and never found: {needless}"


def test_yaml_is_written_as_yamllint_wants_it():
    yamllint = Path(sys.executable).with_name("yamllint")
    rules = (
        "{extends: default, rules: {line-length: {max: 400}, document-start: disable, "
        "indentation: {indent-sequences: whatever}, braces: {max-spaces-inside: 1}}}"
    )
    sources = [chart.CHART / "values.yaml", chart.CHART / "Chart.yaml"]
    sources += [*chart.EXAMPLES.values(), *(chart.CHART / "monitoring").glob("*.yaml")]
    command = [yamllint, "--strict", "-d", rules, *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES)
def test_objects_have_names_of_their_own_in_the_namespace_of_the_release(case):
    rendered = render(values_of(case))
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered]
    assert len(set(names)) == len(names)
    for each in rendered:
        assert each["metadata"]["namespace"] == "media", each
        assert len(each["metadata"]["name"]) <= 63


def test_names_stay_within_their_limits_however_long_the_release_is_called():
    rendered = render(values_of("everything"), name="a-release-with-a-name-of-fifty-three-characters-in-al")
    for each in rendered:
        # A pod of the StatefulSet, and its label, add an ordinal.
        assert len(each["metadata"]["name"]) <= 60, each["metadata"]["name"]
        for value in each["metadata"]["labels"].values():
            assert len(value) <= 63


@pytest.mark.parametrize("case", CASES)
def test_whatever_is_named_exists(case):
    rendered = render(values_of(case))
    pods = rendered.pods()
    for name, pod in pods.items():
        maps = {each["metadata"]["name"] for each in rendered.of("ConfigMap")}
        outside = {"chat-scripts"}
        claims = set()
        for each in rendered.of("StatefulSet"):
            claims |= {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])} | claims
        for volume in pod["spec"].get("volumes", []):
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps | outside, name
        for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= volumes, name
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                for how in ("httpGet", "tcpSocket"):
                    if how in container.get(probe, {}):
                        assert container[probe][how]["port"] in ports, name
    for service in rendered.of("Service"):
        chosen = [
            pod
            for pod in pods.values()
            if service["spec"]["selector"].items() <= pod["metadata"].get("labels", {}).items()
        ]
        assert len(chosen) == 1, service["metadata"]["name"]
        ports = {
            (port["name"], port["protocol"])
            for container in chosen[0]["spec"]["containers"]
            for port in container["ports"]
        }
        for port in service["spec"]["ports"]:
            assert (port["targetPort"], port["protocol"]) in ports, service["metadata"]["name"]
    accounts = {each["metadata"]["name"] for each in rendered.of("ServiceAccount")}
    assert {pod["spec"]["serviceAccountName"] for pod in pods.values()} <= accounts
    for scaler in rendered.of("HorizontalPodAutoscaler"):
        assert scaler["spec"]["scaleTargetRef"]["name"] == rendered.edges()["metadata"]["name"]


@pytest.mark.parametrize("case", CASES)
def test_every_pod_has_no_rights(case):
    for name, pod in render(values_of(case)).pods().items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            for port in container.get("ports", []):
                assert port["containerPort"] >= 1024, "no right to bind a port below"


@pytest.mark.parametrize("case", CASES)
def test_no_variable_of_the_environment_is_taken_for_configuration(case):
    """Whatever begins with SELVAGE_ is a key. Links of services would make such variables."""
    keys = {"SELVAGE_ID", "SELVAGE_CLUSTER__ADVERTISE"}
    keys |= {f"SELVAGE_LINK__TLS__{each}" for each in ("CERT", "KEY", "CA", "NAME")}
    keys |= {f"SELVAGE_ADMIN__{each}" for each in ("LISTEN", "TOKEN_FILE")}
    for name, pod in render(values_of(case)).pods().items():
        assert pod["spec"]["enableServiceLinks"] is False, name
        for container in pod["spec"]["containers"]:
            variables = [each["name"] for each in container.get("env", [])]
            assert {each for each in variables if each.startswith("SELVAGE_")} <= keys
            # $(X) is expanded only if X is defined above it.
            for index, each in enumerate(container.get("env", [])):
                for part in each.get("value", "").split("$(")[1:]:
                    assert part.split(")")[0] in variables[:index]


def test_no_secret_is_rendered():
    for case in CASES:
        assert not render(values_of(case)).of("Secret")


@pytest.mark.parametrize("case", CASES)
def test_notes_say_where_clients_go(case):
    notes = render(values_of(case)).notes
    assert "rtmp://HOST:" in notes and "rollout status" in notes
    assert "<no value>" not in notes and "%!" not in notes


def test_only_edges_origins_and_jobs_reach_origins():
    policy = render().one("NetworkPolicy", "-origin")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": "link"}]
    who = {each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in rule["from"]}
    assert who == {"edge", "origin", "tool"}
    hosts = render(values_of("rtmfp-hostnetwork")).one("NetworkPolicy", "-origin")["spec"]["ingress"][0]
    assert {"ipBlock": {"cidr": "10.20.0.0/16"}} in hosts["from"]


def test_operators_come_in_on_the_loopback_alone():
    """No port of a pod, Service or policy leads there; what is called in a container knows where."""
    for case in CASES:
        rendered = render(values_of(case))
        assert '"admin.' not in rendered.text and "admin.listen" not in rendered.text, "variables say it"
        for role, made in (("edge", rendered.edges()), ("origin", rendered.origins())):
            pod = made["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            variables = {each["name"]: each.get("value") for each in container["env"]}
            shared = role == "edge" and pod.get("hostNetwork")
            assert variables.get("SELVAGE_ADMIN__LISTEN") == (None if shared else "127.0.0.1:9352"), case
            assert ("SELVAGE_ADMIN__TOKEN_FILE" in variables) is (case == "everything")
            assert 9352 not in [port["containerPort"] for port in container["ports"]]
    values = values_of("rtmfp-hostnetwork") | {"admin": {"existingSecret": "x"}}
    (container,) = render(values).edges()["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables["SELVAGE_ADMIN__TOKEN_FILE"] == "/etc/selvage/admin/token"
    assert {"name": "admin", "mountPath": "/etc/selvage/admin", "readOnly": True} in container["volumeMounts"]
    assert "SELVAGE_ADMIN__" not in render({"admin": {"enabled": False}}).text


def test_links_are_encrypted_both_ways_and_no_edge_can_pass_for_an_origin():
    rendered = render(values_of("tls"))
    for role in ("edge", "origin"):
        (container,) = rendered.pods()[f"demo-selvage-{role}"]["spec"]["containers"]
        assert {"name": "SELVAGE_LINK__TLS__NAME", "value": "link.demo-selvage"} in container["env"]
        volume = next(v for v in rendered.pods()[f"demo-selvage-{role}"]["spec"]["volumes"] if v["name"] == "link")
        certificate = rendered.one("Certificate", f"-{role}-link")["spec"]
        assert volume["secret"]["secretName"] == certificate["secretName"]
    names = {role: rendered.one("Certificate", f"-{role}-link")["spec"] for role in ("edge", "origin")}
    assert names["origin"]["dnsNames"] == ["link.demo-selvage"]
    assert names["origin"]["usages"] == ["server auth", "client auth"]
    assert "link.demo-selvage" not in names["edge"]["dnsNames"]
    assert names["edge"]["usages"] == ["client auth"]
