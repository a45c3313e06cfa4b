"""What users of such charts complain about, each with what keeps it from happening here."""

import http.server
import json
import threading

import pytest
import yaml
from chart import CASES, EXAMPLES, KUBERNETES, merged, render, toml, values_of
from helm_python import chart as helm
from helm_python import config

from chart import CHART


def container(template):
    (one,) = template["spec"]["containers"]
    return one


def test_1_no_member_leaves_because_its_pod_ends():
    """Members are removed by a hook before an upgrade, which somebody asks for by name."""
    for case in CASES:
        origin = container(render(values_of(case)).origins()["spec"]["template"])
        assert "lifecycle" not in origin
    assert not render().of("Job")
    rendered = render({"origin": {"remove": {"members": ["demo-selvage-origin-4", 4]}}}, upgrade=True)
    job = rendered.one("Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
    steps = [each["args"] for each in job["spec"]["template"]["spec"]["initContainers"]]
    host = "demo-selvage-origin.media.svc.cluster.local:9350"
    assert steps == [["cluster", "remove", "--origin", host, "demo-selvage-origin-4", "4"]], "all in one step"
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_1_shrinking_without_removal_is_refused_where_the_chart_can_see_it():
    """A real Helm looks up how many there are; here a server plays the cluster."""
    with cluster_with_origins(5) as kubeconfig:
        assert "there are 5 origins, and 3 are wanted" in asked(kubeconfig, {})
        wrong = asked(kubeconfig, {"origin": {"remove": {"members": [5]}}})
        assert "name the 2 members" in wrong
        enough = asked(kubeconfig, {"origin": {"remove": {"members": [5, 4]}}})
        assert "origins, and" not in enough
        assert "origins, and" not in asked(kubeconfig, {"origin": {"replicas": 5}})


def test_2_pods_start_together_and_are_replaced_one_at_a_time_by_readiness_that_knows_the_leader():
    """Ready is an origin that knows a leader (`/readyz`, condition "a leader is known"); alive is
    one whose process answers. minReadySeconds lets the lead settle before the next goes."""
    rendered = render()
    spec = rendered.origins()["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "RollingUpdate"}
    assert spec["minReadySeconds"] >= 10
    origin = container(spec["template"])
    assert origin["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert origin["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert origin["startupProbe"]["failureThreshold"] * origin["startupProbe"]["periodSeconds"] >= 600
    assert rendered.one("Service", "-origin")["spec"]["publishNotReadyAddresses"] is True
    assert rendered.one("PodDisruptionBudget", "-origin")["spec"]["maxUnavailable"] == 1
    by_hand = render({"origin": {"updateStrategy": "OnDelete"}}).origins()["spec"]
    assert by_hand["updateStrategy"] == {"type": "OnDelete"}


@pytest.mark.parametrize("case", CASES)
def test_3_claims_bear_nothing_that_changes(case):
    """test_upgrade.py compares two versions of the chart; this says what is allowed at all."""
    (claim,) = render(values_of(case)).origins()["spec"]["volumeClaimTemplates"]
    assert set(claim["metadata"]["labels"]) == {
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/component",
    }


def test_4_tcp_and_udp_are_two_services_unless_somebody_wants_one():
    tcp, udp = (render(values_of("webcast")).one("Service", end) for end in ("-edge", "-edge-udp"))
    assert {port["protocol"] for port in tcp["spec"]["ports"]} == {"TCP"}
    assert {port["protocol"] for port in udp["spec"]["ports"]} == {"UDP"}
    for service in (tcp, udp):
        assert service["metadata"]["annotations"] == {"metallb.universe.tf/allow-shared-ip": "selvage"}
    (one,) = render(values_of("single")).of("Service", "-edge")
    assert {port["protocol"] for port in one["spec"]["ports"]} == {"TCP", "UDP"}
    # The API server refuses several ports without names.
    names = [port["name"] for port in one["spec"]["ports"]]
    assert len(set(names)) == len(names) > 1
    assert not render(values_of("single")).of("Service", "-udp")
    mixed = {"edge": {"service": {"udp": {"type": "NodePort", "nodePort": 31935}}}}
    udp = render(mixed).one("Service", "-edge-udp")["spec"]
    assert udp["type"] == "NodePort" and udp["ports"][0]["nodePort"] == 31935


def test_5_udp_clients_are_not_pinned_to_a_pod_that_is_gone():
    """Behind a Service: the node that a datagram came to, and the client's address. Without one:
    the node's own network. The rest is RTMFP's: a session whose peer is silent ends."""
    udp = render().one("Service", "-edge-udp")["spec"]
    assert udp["sessionAffinity"] == "ClientIP"
    assert udp["externalTrafficPolicy"] == "Local"
    rendered = render(values_of("rtmfp-hostnetwork"))
    pod = rendered.edges()["spec"]["template"]["spec"]
    assert pod["hostNetwork"] is True
    assert pod["dnsPolicy"] == "ClusterFirstWithHostNet", "or the origins' names mean nothing"
    assert all(port["hostPort"] == port["containerPort"] for port in container(rendered.edges()["spec"]["template"])["ports"])
    # One edge per node, and the old one gone before the new one binds.
    assert "requiredDuringSchedulingIgnoredDuringExecution" in pod["affinity"]["podAntiAffinity"]
    assert rendered.edges()["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert "hostNetwork" not in render().edges()["spec"]["template"]["spec"]


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("case", CASES)
def test_6_edges_leave_slowly_and_never_longer_than_their_grace(case, kubernetes):
    rendered = render(values_of(case), kubernetes=kubernetes)
    pod = rendered.edges()["spec"]["template"]
    drain = int(toml(rendered.config("edge"))["drain_grace"].removesuffix("s"))
    before = container(pod).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod["spec"]["terminationGracePeriodSeconds"] >= before + drain + 10
    origin = int(toml(rendered.config("origin"))["drain_grace"].removesuffix("s"))
    # Handing the lead over and closing links take up to two seconds each.
    assert rendered.origins()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= origin + 4 + 10


def test_6_the_sleep_before_sigterm_is_written_where_kubernetes_knows_it():
    for kubernetes, known in (("1.28", False), ("1.29", False), ("1.30", True), ("1.36", True)):
        edge = container(render(kubernetes=kubernetes).edges()["spec"]["template"])
        assert ("lifecycle" in edge) is known, kubernetes


def test_6_the_scaler_has_the_edges_to_itself_and_takes_one_at_a_time():
    rendered = render(values_of("webcast"))
    assert "replicas" not in rendered.edges()["spec"], "an upgrade would reset what the scaler chose"
    down = rendered.one("HorizontalPodAutoscaler")["spec"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 600
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 600}]
    assert render().edges()["spec"]["replicas"] == 2
    values = {"edge": {"autoscaling": {"enabled": True, "cpuPercent": 0, "connections": 5000, "egressBytes": 90000000}}}
    metrics = render(values).one("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert [each["pods"]["target"]["averageValue"] for each in metrics] == ["5000", "90000000"]


def test_7_the_port_of_a_service_says_nothing_about_the_port_of_the_process():
    values = {"edge": {"service": {"tcp": {"rtmpPorts": [8935, 80], "rtmpsPort": 9443}, "udp": {"port": 8936}}}}
    before, after = render(values_of("tls")), render(merged(values_of("tls"), values))
    assert before.config("edge") == after.config("edge")
    assert before.edges()["spec"]["template"] == after.edges()["spec"]["template"]
    for name in ("-edge", "-edge-udp"):
        for port in after.one("Service", name)["spec"]["ports"]:
            assert isinstance(port["targetPort"], str), "a name"
    lines = toml(render({"edge": {"ports": {"rtmp": 2935, "http": 2080}}}).config("edge"))
    assert lines["listen.rtmp"] == "0.0.0.0:2935" and lines["listen.http"] == "0.0.0.0:2080"


def test_8_clients_keep_their_addresses():
    rendered = render()
    for service in rendered.of("Service"):
        if service["spec"].get("type") == "LoadBalancer":
            assert service["spec"]["externalTrafficPolicy"] == "Local"
            # Chosen by the cluster: a fixed one collides with the other Service's.
            assert "healthCheckNodePort" not in service["spec"]
    assert "externalTrafficPolicy" not in render(values_of("trial")).one("Service", "-edge")["spec"]
    assert toml(render({"edge": {"proxyProtocol": True}}).config("edge"))["listen.proxy_protocol"] is True
    networks = {"edge": {"proxyProtocol": ["10.0.0.0/8", "fd00::/8"]}}
    assert toml(render(networks).config("edge"))["listen.proxy_protocol"] == ["10.0.0.0/8", "fd00::/8"]
    assert "listen.proxy_protocol" not in toml(rendered.config("edge"))


@pytest.mark.parametrize("case", CASES)
def test_9_nothing_in_the_image_is_called_but_the_program(case):
    """There is no shell. What is executed is /selvage, by entrypoint or by name."""
    for pod in render(values_of(case)).pods().values():
        for each in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
            assert "command" not in each
            hooks = [each.get(probe, {}) for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
            hooks.append(each.get("lifecycle", {}).get("preStop", {}))
            for hook in hooks:
                if "exec" in hook:
                    assert hook["exec"]["command"][0] == "/selvage"
    assert render(values_of("everything")).edges()["spec"]["template"]["spec"]["containers"][0]["lifecycle"] == {
        "preStop": {"exec": {"command": ["/selvage", "drain", "--wait", "300s"]}}
    }


def test_10_nothing_waits_for_kubernetes_to_notice_a_lost_node():
    """It takes some 50 seconds, and endpoints stay listed until then. Edges and origins are given
    all addresses, ready or not, and find out by themselves who answers: links are pinged, leaders
    elected and edges' leases ended by the program's own clocks, which the chart leaves alone."""
    for case in EXAMPLES:
        rendered = render(values_of(case))
        service = rendered.one("Service", "-origin")
        assert service["spec"]["publishNotReadyAddresses"] is True
        lines = toml(rendered.config("edge"))
        name = service["metadata"]["name"]
        assert lines["origins"] == [f"dns:{name}.media.svc.cluster.local:9350"]
        for role in ("edge", "origin"):
            keys = toml(rendered.config(role))
            clocks = ("link.ping", "link.connect", "cluster.heartbeat", "cluster.election", "cluster.edge_lease")
            assert not [key for key in keys if key.startswith(clocks)]


class cluster_with_origins:
    """An API server that knows one StatefulSet, as far as `lookup` asks."""

    def __init__(self, replicas):
        found = render({"origin": {"replicas": 5, "founders": 5}}).origins()
        found["spec"]["replicas"] = replicas
        name = found["metadata"]["name"]
        kinds = [{"name": "statefulsets", "singularName": "statefulset", "namespaced": True, "kind": "StatefulSet", "verbs": ["get"]}]
        answers = {
            "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/apis/apps/v1": {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "apps/v1", "resources": kinds},
            f"/apis/apps/v1/namespaces/media/statefulsets/{name}": found,
        }

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer = answers.get(self.path.split("?")[0])
                body = json.dumps(answer or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})
                self.send_response(200 if answer else 404)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        where = f"http://127.0.0.1:{self.server.server_address[1]}"
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "clusters": [{"name": "x", "cluster": {"server": where}}],
                "users": [{"name": "x", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": "media"}}],
            }
        )

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def asked(kubeconfig, values):
    """What an installation that looks at the cluster, and changes nothing, says."""
    with helm.Chart.load(str(CHART)) as loaded:
        with config.Config(storage_driver="memory", namespace="media", kubeconfig_content=kubeconfig) as helm_:
            try:
                helm_.install(loaded, "demo", values, dry_run="server", namespace="media")
            except Exception as error:  # the engine's errors have no common base
                return str(error)
    return ""
