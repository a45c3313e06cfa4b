"""The program takes the configuration that the chart writes, and calls that the chart makes.

Every process is started as its pod would start it, with other addresses and folders: it says
where it listens, or which key it refuses."""

import contextlib
import json
import os
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import chart
import pytest
from chart import EXAMPLES, render, values_of


def program():
    target = Path(os.environ.get("CARGO_TARGET_DIR", chart.ROOT / "target"))
    named = os.environ.get("SELVAGE_PROGRAM")
    found = [Path(named)] if named else [target / profile / "selvage" for profile in ("debug", "release", "dist")]
    built = [path for path in found if path.exists()]
    assert built, f"no selvage among {', '.join(map(str, found))}: cargo build --bin selvage"
    return max(built, key=lambda path: path.stat().st_mtime)


def environment(container, pod, replaced):
    """The variables of a container as Kubernetes makes them of it."""
    fields = {"metadata.name": pod, "spec.nodeName": "node-1"}
    variables = {}
    for each in container["env"]:
        value = each.get("value") or fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        variables[each["name"]] = re.sub(r"\$\((\w+)\)", lambda found: variables[found.group(1)], value)
    return {"PATH": os.environ["PATH"]} | variables | replaced


@contextlib.contextmanager
def running(role, container, text, folder, extra=None):
    """The process, and the lines that it printed on standard output."""
    config = folder / f"{role}.toml"
    config.write_text(text)
    args = [config if each == f"/etc/selvage/config/{role}.toml" else each for each in container["args"]]
    replaced = {
        "edge": {"SELVAGE_LISTEN__RTMP": "127.0.0.1:0", "SELVAGE_LISTEN__HTTP": "127.0.0.1:0"},
        "origin": {"SELVAGE_LISTEN": "127.0.0.1:0", "SELVAGE_HTTP": "127.0.0.1:0", "SELVAGE_DATA": str(folder / "data")},
    }[role]
    listeners = len(re.findall(r"listen\.(?!proxy_protocol)", text)) + 1 if role == "edge" else 2
    if any(each["name"] == "SELVAGE_ADMIN__LISTEN" for each in container["env"]):
        replaced["SELVAGE_ADMIN__LISTEN"] = "127.0.0.1:0"
        listeners += 1
    variables = environment(container, f"demo-selvage-{role}-0", replaced | (extra or {}))
    # A collector that is not there would only be waited for.
    variables["OTEL_SDK_DISABLED"] = "true"
    process = subprocess.Popen(
        [program(), *args], env=variables, stdout=subprocess.PIPE, stderr=(folder / "stderr").open("w"), text=True
    )
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.strip())
            if len(lines) == listeners:
                break
        yield process, lines
    finally:
        process.kill()
        process.wait()


def started(role, container, text, folder, extra=None):
    """The lines that the process printed on standard output, and its errors."""
    with running(role, container, text, folder, extra) as (_, lines):
        pass
    return lines, (folder / "stderr").read_text()


def addresses(lines):
    """Where a process listens, by what for."""
    return dict(re.search(r"what=(\S+) addr=(\S+)", line).groups() for line in lines)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """What cert-manager would put into the Secrets."""
    folder = tmp_path_factory.mktemp("certificates")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    command += " -addext subjectAltName=DNS:link.demo-selvage -keyout tls.key -out tls.crt"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())
    return folder


@pytest.mark.parametrize("role", ["edge", "origin"])
@pytest.mark.parametrize("case", ["defaults", *EXAMPLES])
def test_the_program_starts_with_what_the_chart_writes(case, role, tmp_path, certificates):
    rendered = render(values_of(case))
    made = rendered.edges() if role == "edge" else rendered.origins()
    (container,) = made["spec"]["template"]["spec"]["containers"]
    text = rendered.config(role)
    text = text.replace("/etc/selvage/tls/", f"{certificates}/")
    extra = {
        each["name"]: each["value"].replace("/etc/selvage/link/", f"{certificates}/")
        for each in container["env"]
        if each["name"].startswith("SELVAGE_LINK__")
    }
    if "listen.rtmps" in text:
        extra["SELVAGE_LISTEN__RTMPS"] = "127.0.0.1:0"
    lines, said = started(role, container, text, tmp_path, extra)
    node = f"demo-selvage-{role}-0"
    assert lines and all(line.startswith(f"listening node={node} ") for line in lines), said
    what = {re.search(r"what=(\S+)", line).group(1) for line in lines}
    expected = {"grpc", "http"} if role == "origin" else {"rtmp", "rtmfp", "http"} | ({"rtmps"} if "listen.rtmps" in text else set())
    assert what == expected | ({"admin"} if "SELVAGE_ADMIN__LISTEN" in {each["name"] for each in container["env"]} else set())


def test_the_program_takes_what_a_grown_cluster_and_a_load_balancer_want(tmp_path):
    values = {"origin": {"founders": 1, "replicas": 3}, "edge": {"proxyProtocol": ["127.0.0.0/8"]}}
    rendered = render(values, upgrade=True)
    for role, made in (("edge", rendered.edges()), ("origin", rendered.origins())):
        (container,) = made["spec"]["template"]["spec"]["containers"]
        lines, said = started(role, container, rendered.config(role), tmp_path)
        assert lines, said


def test_a_key_that_the_program_does_not_know_is_named(tmp_path):
    rendered = render({"edge": {"config": {"play": {"coalsece": "40ms"}}}})
    (container,) = rendered.edges()["spec"]["template"]["spec"]["containers"]
    lines, said = started("edge", container, rendered.config("edge"), tmp_path)
    assert not lines and "play.coalsece" in said


def test_the_program_has_the_calls_that_jobs_make():
    jobs = render({"origin": {"remove": {"members": [5, "demo-selvage-origin-3"]}}}, upgrade=True)
    test = jobs.one("Pod")["spec"]
    job = jobs.one("Job")["spec"]["template"]["spec"]
    calls = [each["args"] for spec in (test, job) for each in spec["initContainers"] + spec["containers"]]
    assert len(calls) == 4
    for call in calls:
        done = subprocess.run([program(), *call, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (call, done.stderr)
        # And without help they are taken as they are: the names mean nothing here, so it is the
        # connection that fails (3), not the words (2).
        done = subprocess.run([program(), *call], capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 3, (call, done.returncode, done.stderr)


def called(command, variables, changed):
    """What `kubectl exec` and the kubelet would run: the exit code and the words."""
    words = [changed.get(word, word) for word in command[1:]]
    done = subprocess.run([program(), *words], env=variables, capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("token", [False, True], ids=["loopback", "token"])
@pytest.mark.parametrize("role", ["edge", "origin"])
def test_probes_status_and_drain_work_in_a_container(role, token, tmp_path):
    values = {"probes": {"kind": "exec"}, "edge": {"drain": {"preStop": "command"}}}
    if token:
        values["admin"] = {"existingSecret": "x"}
        (tmp_path / "token").write_text("s3cret\n")
    rendered = render(chart.merged(values_of("single"), values))
    made = rendered.edges() if role == "edge" else rendered.origins()
    (container,) = made["spec"]["template"]["spec"]["containers"]
    extra = {"SELVAGE_ADMIN__TOKEN_FILE": str(tmp_path / "token")} if token else {}
    with running(role, container, rendered.config(role), tmp_path, extra) as (process, lines):
        at = addresses(lines)
        variables = {"SELVAGE_ADMIN__LISTEN": at["admin"]} | extra
        port = next(each["containerPort"] for each in container["ports"] if each["name"] == "http")
        changed = {f"127.0.0.1:{port}": at["http"]}
        assert called(container["livenessProbe"]["exec"]["command"], variables, changed)[0] == 0
        assert called(container["startupProbe"]["exec"]["command"], variables, changed)[0] == 0
        # There is no origin, and no name of one: an edge is not ready.
        code, said = called(container["readinessProbe"]["exec"]["command"], variables, changed)
        assert code == (1 if role == "edge" else code), said
        code, said = called(["/selvage", "status", "--json"], variables, {})
        assert code == 0 and json.loads(said), said
        if token:
            code, said = called(["/selvage", "drain"], {"SELVAGE_ADMIN__LISTEN": at["admin"]}, {})
            assert code != 0 and "token" in said
        drain = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["/selvage", "drain", "--wait", "20s"])
        assert called(drain, variables, {})[0] == 0
        assert process.wait(timeout=30) == 0, "a node that has nobody left ends"


# Calls, and streams that are named, have figures once there are any; lab_prometheus asks for these
# where there are.
LATER = ("selvage_grpc_server_seconds", "selvage_grpc_client_seconds", "selvage_stream_")


def scraped(role, folder):
    """The figures of a process that the chart configures: {(name, label, value)} and names."""
    rendered = render(chart.merged(values_of("single"), {"monitoring": {"streams": 10}}))
    made = rendered.edges() if role == "edge" else rendered.origins()
    (container,) = made["spec"]["template"]["spec"]["containers"]
    with running(role, container, rendered.config(role), folder) as (_, lines):
        url = f"http://{addresses(lines)['http']}/metrics"
        deadline = time.monotonic() + 20
        while True:
            with urllib.request.urlopen(url, timeout=10) as answer:
                text = answer.read().decode()
            if role == "edge" or "\nselvage_raft_index{" in text or time.monotonic() > deadline:
                break
            time.sleep(0.2)
    found = set()
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
        found.add(name)
        found |= {(name, *pair) for pair in re.findall(r'(\w+)="([^"]*)"', labels or "")}
    return found


def test_every_figure_of_alerts_and_dashboards_is_in_a_scrape(tmp_path):
    """Names, and the values of labels that are asked for."""
    import test_monitoring

    (tmp_path / "edge").mkdir()
    (tmp_path / "origin").mkdir()
    found = scraped("edge", tmp_path / "edge") | scraped("origin", tmp_path / "origin")
    for expression in test_monitoring.expressions().values():
        for name, matchers in test_monitoring.selectors(expression):
            if name in test_monitoring.OTHERS or name.startswith(LATER):
                continue
            assert name in found, name
            for label, how, value in matchers:
                if how == "=" and label not in test_monitoring.TARGET:
                    assert (name, label, value) in found, (name, label, value)
