"""The image and the rendered pods, for real: built by buildah, run by podman, and scaled under load.

NetworkPolicy is not enforced here: nothing in these networks knows it. What it says is judged in
test_manifests.py."""

import json
import re
import subprocess
import time

import chart
import kubernetes
import pytest
from chart import merged, render, values_of
from kubernetes import until
from load import Load

def test_the_image_is_one_static_file_that_runs_without_rights(engine, program):
    """An image that holds anything else would have to be looked after."""
    image = render().origins()["spec"]["template"]["spec"]["containers"][0]["image"]
    container = engine.command(["buildah", "from", image]).stdout.strip()
    root = chart.pathlib.Path(engine.command(["buildah", "mount", container]).stdout.strip())
    assert [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()] == ["selvage"]
    engine.command(["buildah", "rm", container])
    told = json.loads(engine.run("image", "inspect", image))[0]["Config"]
    assert told["Entrypoint"] == ["/selvage"] and told["User"] == "65532:65532" and "Cmd" not in told
    bare = ["--rm", "--network", "none", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all"]
    said = engine.run("run", *bare, "--security-opt", "no-new-privileges", image, "--version")
    assert re.fullmatch(rf"selvage {re.escape(image.rpartition(':')[2])}\S*\n", said), said


# One release, small, with short graces; the rest is as the chart has it.
SMALL = {
    "origin": {
        "drainSeconds": 4,
        "minReadySeconds": 2,
        "config": {"limits": {"backlog_total": "64MiB"}},
        "extraEnv": [{"name": "SELVAGE_CLUSTER__REJOIN_AFTER", "value": "2s"}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    },
    "edge": {
        "drain": {"seconds": 6, "preStopSeconds": 2},
        "service": {"split": True},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    },
}


# Links are encrypted, and operators bear a token, both by Secrets that exist.
SECURE = {
    "linkTLS": {"enabled": True, "origin": {"existingSecret": "link-origin"}, "edge": {"existingSecret": "link-edge"}},
    "admin": {"existingSecret": "operators"},
}


def secrets(folder):
    """What the values above name, made as the chart's README says."""

    def openssl(words, folder=folder):
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)

    folder.mkdir()
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    openssl(f"req -x509 {key} -days 2 -subj /CN=fabric -keyout ca.key -out ca.crt")
    found = {"operators": {"token": b"let me in\n"}}
    for role, usage, name in (("origin", "serverAuth,clientAuth", "link.demo-selvage"), ("edge", "clientAuth", "an-edge")):
        (folder / "extensions").write_text(f"subjectAltName=DNS:{name}\nextendedKeyUsage={usage}\n")
        openssl(f"req {key} -subj /CN={role} -keyout tls.key -out request")
        openssl("x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out tls.crt")
        found[f"link-{role}"] = {name: (folder / name).read_bytes() for name in ("tls.crt", "tls.key", "ca.crt")}
    return found


class Fabric:
    """A release in a cluster, and its load."""

    def __init__(self, engine, program):
        self.engine, self.program = engine, program
        self.cluster = kubernetes.Cluster(engine)
        self.cluster.secrets = secrets(engine.folder / "certificates")
        self.release = kubernetes.Release(self.cluster)
        self.values, self.load = {}, None
        self.began = time.monotonic()

    def install(self, values):
        self.values = merged(values_of("single"), SMALL, SECURE, values)
        self.release.apply(render(self.values))
        virtual = self.cluster.virtual_address
        self.load = Load(self.engine, self.program, virtual("demo-selvage-edge"), virtual("demo-selvage-edge-udp"))

    def upgrade(self, **values):
        """`helm upgrade --reuse-values --set ...`."""
        self.values = merged(self.values, values)
        self.release.apply(render(self.values, upgrade=True))

    def say(self, what):
        print(f"{time.monotonic() - self.began:6.1f} s: {what}", flush=True)

    def origin(self, ordinal=0):
        return self.release.origins.pods[ordinal]

    def members(self):
        """Names and roles, as `selvage cluster status` in a pod tells them."""
        said = self.origin().exec("/selvage", "cluster", "status").stdout
        return {name: (int(number), role) for number, name, role in re.findall(r"member=(\d+) name=(\S+) .*?role=(\w+)", said)}

    def voters(self, count):
        """Waits until so many origins vote, and one of them leads."""
        wanted = {f"demo-selvage-origin-{ordinal}" for ordinal in range(count)}

        def settled():
            members = self.members()
            roles = sorted(role for _, role in members.values())
            return set(members) == wanted and roles == ["leader", *["voter"] * (count - 1)]

        until(f"{count} voters, one of them the leader: {self.members()}", settled)

    def status(self, pod):
        return json.loads(pod.exec("/selvage", "status", "--json").stdout)

    def edge_of(self, client):
        """The pod that a client came to: by its port, which the way through the Service keeps."""
        said = self.engine.command(["ss", "-Htnp", "state", "established"]).stdout
        port = re.search(rf":(\d+) +\S+ +users:\(\(\"[^\"]*\",pid={client.pid()},", said)
        for pod in self.release.edges.pods:
            inside = self.engine.inspect(pod.full_name())["State"]["Pid"]
            peers = self.engine.command(["nsenter", f"--net=/proc/{inside}/ns/net", "ss", "-Htn", "state", "established"]).stdout
            if port and re.search(rf":1935 +\S+:{port.group(1)}\s", peers):
                return pod
        return None

    def watch_everywhere(self, stream, each):
        """New viewers by the Service, until each edge has so many; viewers by edge."""
        found = {pod.name: [] for pod in self.release.edges.pods}
        for _ in range(10):
            if min(map(len, found.values())) >= each:
                return found
            some = [self.load.watch(stream) for _ in found]
            for viewer in some:
                until(f"{viewer.name} watches", lambda: viewer.bytes > 10_000 or viewer.closed)
                assert not viewer.closed, viewer.story()
                found[self.edge_of(viewer).name].append(viewer)
        raise AssertionError(f"the Service does not spread: {found}")

    def check(self, watching):
        """Nobody of these was closed, all are still served, and nothing acknowledged is lost."""
        for each in [*self.load.publishers, *watching]:
            assert not each.closed, each.story()
        for viewer in watching:
            until(f"{viewer.name} is served: {viewer.story()}", lambda: viewer.quiet() < 2, within=10)
        for writer in self.load.writers:
            assert writer.lost() == [], writer.story()
        for pod in self.cluster.pods:
            assert not pod.unalive, f"{pod.name} did not answer its livenessProbe"
            restarts = self.engine.inspect(pod.full_name())["RestartCount"]
            assert restarts == 0, f"{pod.name} was restarted {restarts} times"

    def close(self):
        if self.load:
            self.load.stop()
        self.cluster.close()


@pytest.fixture
def fabric(engine, program):
    made = Fabric(engine, program)
    yield made
    if made.load:
        print(made.load.story())
    print(made.cluster.words())
    made.close()


def rights(engine, pod):
    """What the kernel says of the process of a pod."""
    pid = engine.inspect(pod.full_name())["State"]["Pid"]
    status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)
    mounts = {line.split()[1]: line.split()[3].split(",") for line in open(f"/proc/{pid}/mounts").read().splitlines()}
    return status, mounts


def has_no_rights(engine, pod):
    """As the securityContext of the chart says, and only the disk can be written."""
    status, mounts = rights(engine, pod)
    assert status["Uid"].split() == ["65532"] * 4 and status["Gid"].split() == ["65532"] * 4
    assert {int(status[each], 16) for each in ("CapEff", "CapPrm", "CapBnd")} == {0}
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert "ro" in mounts["/"]
    for path in ("config", "link", "admin"):
        assert "ro" in mounts[f"/etc/selvage/{path}"]
    writable = {path for path, how in mounts.items() if "rw" in how and not path.startswith(("/dev", "/proc", "/sys"))}
    assert writable == ({"/var/lib/selvage"} if "origin" in pod.name else set()), writable


def ended_well(pods):
    """They left by themselves, within their grace."""
    for pod in pods:
        grace = pod.spec["terminationGracePeriodSeconds"]
        assert pod.exit_code == 0 and pod.took < grace, f"{pod.name}: {pod.exit_code} after {pod.took:.1f} s of {grace} s\n{pod.said[-2000:]}"


def test_the_pods_grow_and_shrink_under_load(engine, fabric):
    """1 to 3 to 1 origins and 1 to 4 to 1 edges, and a rolling update of the origins between, while
    streams are published and watched and objects are written. Nothing that was acknowledged is
    lost, nothing that was written fails, and nobody is closed but on edges that are taken away."""
    fabric.install({})
    load = fabric.load
    load.publish("one")
    load.publish("two", by="ffmpeg")
    staying = [load.watch("one"), load.watch("two"), load.watch("one", by="ffmpeg"), load.watch("one", by="rtmfp")]
    for viewer in staying:
        until(f"{viewer.name} watches", lambda: viewer.bytes > 10_000)
    load.write("a")
    load.write("b")
    fabric.voters(1)
    fabric.check(staying)
    fabric.say("one origin, one edge, under load")

    fabric.upgrade(origin={"replicas": 3})
    assert not fabric.release.origins.ended, "growing restarts nobody"
    fabric.voters(3)
    fabric.check(staying)
    fabric.say("three origins")

    fabric.upgrade(edge={"replicas": 4})
    for pod in fabric.cluster.pods:
        has_no_rights(engine, pod)
    found = fabric.watch_everywhere("one", each=1)
    assert "role=leader" in fabric.release.test()
    first = fabric.release.edges.pods[0]
    staying += found.pop(first.name)
    leaving = [viewer for viewers in found.values() for viewer in viewers]
    fabric.check(staying + leaving)
    told = fabric.status(first)
    assert {each["name"] for each in told["origins"]} == {f"demo-selvage-origin-{n}" for n in range(3)}, told
    fabric.say("four edges, each with viewers")

    before = fabric.members()
    fabric.upgrade(origin={"podAnnotations": {"rolled": "yes"}})
    fabric.voters(3)
    after = fabric.members()
    assert {name: number for name, (number, _) in after.items()} == {name: number for name, (number, _) in before.items()}, (
        "who comes back with its disk is the member that it was"
    )
    assert len(fabric.release.origins.ended) == 3
    fabric.check(staying + leaving)
    fabric.say("origins replaced one by one")

    fabric.upgrade(edge={"replicas": 1})
    assert fabric.release.edges.pods == [first]
    assert all(viewer.closed for viewer in leaving if not viewer.follows)
    # Who was asked to go elsewhere has gone there.
    staying += [viewer for viewer in leaving if viewer.follows]
    fabric.check(staying)
    fabric.say("one edge")

    gone = ["demo-selvage-origin-2", "demo-selvage-origin-1"]
    fabric.upgrade(origin={"replicas": 1, "remove": {"members": gone}})
    fabric.voters(1)
    fabric.check(staying)
    ended_well(fabric.release.origins.ended + fabric.release.edges.ended)
    for writer in load.writers:
        assert not writer.failures and len(writer.acknowledged) > 100, writer.story()
    for viewer in staying:
        # A stream that moves to another origin may wait for a key frame; these come every second.
        assert viewer.gap < 5, viewer.story()
    fabric.say("one origin")

    # The other kind of probes and hooks, which run in the containers. It replaces the only origin.
    fabric.upgrade(probes={"kind": "exec"}, edge={"drain": {"preStop": "command"}}, origin={"remove": {"members": []}})
    edge = fabric.release.edges.pods[0]
    assert edge is not first and "exec" in edge.container["readinessProbe"]
    ended_well([first])
    fabric.say("probed by commands")

    # Over the disks that stayed they come back as other members.
    before = fabric.members()
    fabric.upgrade(origin={"replicas": 3})
    fabric.voters(3)
    numbers = {name: number for name, (number, _) in fabric.members().items()}
    assert numbers.pop("demo-selvage-origin-0") == before["demo-selvage-origin-0"][0]
    assert not set(numbers.values()) & {number for number, _ in after.values()}, (numbers, after)
    fabric.say("three origins again, over the disks of those that were removed")

    for writer in load.writers:
        since = len(writer.acknowledged)
        until(f"{writer.name} writes on", lambda: len(writer.acknowledged) > since + 5)
        assert writer.lost(again=True) == [], writer.story()
    # The judge can say no.
    writer.acknowledged[10**9] = 0
    assert writer.lost() == [10**9]
    load.stop()
    edge.end()
    ended_well([edge])
    fabric.say("drained by a command")
