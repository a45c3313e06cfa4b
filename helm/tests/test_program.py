"""The program takes the configuration that the chart writes, and calls that the chart makes.

Every process is started as its pod would start it, with other addresses and folders: it says
where it listens, or which key it refuses."""

import os
import re
import subprocess
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


def started(role, container, text, folder, extra=None):
    """The lines that the process printed on standard output, and its errors."""
    config = folder / f"{role}.toml"
    config.write_text(text)
    args = [config if each == f"/etc/selvage/config/{role}.toml" else each for each in container["args"]]
    replaced = {
        "edge": {"SELVAGE_LISTEN__RTMP": "127.0.0.1:0", "SELVAGE_LISTEN__HTTP": "127.0.0.1:0"},
        "origin": {"SELVAGE_LISTEN": "127.0.0.1:0", "SELVAGE_HTTP": "127.0.0.1:0", "SELVAGE_DATA": str(folder / "data")},
    }[role]
    variables = environment(container, f"demo-selvage-{role}-0", replaced | (extra or {}))
    # A collector that is not there would only be waited for.
    variables["OTEL_SDK_DISABLED"] = "true"
    listeners = text.count("listen.") + 1 if role == "edge" else 2
    process = subprocess.Popen(
        [program(), *args], env=variables, stdout=subprocess.PIPE, stderr=(folder / "stderr").open("w"), text=True
    )
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.strip())
            if len(lines) == listeners:
                break
    finally:
        process.kill()
        process.wait()
    return lines, (folder / "stderr").read_text()


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
    assert what == expected


def test_a_key_that_the_program_does_not_know_is_named(tmp_path):
    rendered = render({"edge": {"config": {"play": {"coalsece": "40ms"}}}})
    (container,) = rendered.edges()["spec"]["template"]["spec"]["containers"]
    lines, said = started("edge", container, rendered.config("edge"), tmp_path)
    assert not lines and "play.coalsece" in said


def test_the_program_has_the_calls_that_jobs_make():
    jobs = render({"origin": {"remove": {"members": [5]}}}, upgrade=True)
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
