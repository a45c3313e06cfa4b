"""The commands of README.md's "On a cluster", one after the other, with podman in place of the
cluster: what helm and kubectl would be told is done to the pods, everything else is run.

Not run: `cargo fetch`, for which the tests have no network, and the push, for want of a registry;
that it pushes what was built is looked at. In the place of Jaeger, whose image is not to be had
here, another collector gets the spans, and what the README says of the search is searched for in
what it got."""

import argparse
import os
import pathlib
import re
import shlex
import subprocess

import chart
import kubernetes
import podman
import pytest
import yaml
from chart import merged, render
from kubernetes import until
from load import Load

README = chart.ROOT / "README.md"
BEGIN, END = "<!-- a stranger's commands", "<!-- end of a stranger's commands -->"


def blocks():
    """What is to be typed and what is shown: [("sh", "..."), ("text", "...")]."""
    text = README.read_text()
    part = text[text.index(BEGIN) : text.index(END)]
    return re.findall(r"^```(sh|text)\n(.*?)^```$", part, re.M | re.S)


def shape(text):
    """What a quoted screen admits: other numbers, and anything for `...`."""
    lines = [re.sub(r"\d+", r"\\d+", re.escape(line)).replace(r"\.\.\.", ".*") for line in text.splitlines()]
    return re.compile("\n".join(lines), re.M)


class Collector:
    """rotel, which `cluster-tests/peers/install` brings, where Jaeger's Service leads. It prints
    the spans that it gets."""

    name, running, ready, subdomain, unalive = "jaeger", True, True, None, ()

    def __init__(self, engine, labels):
        self.labels, self.address = labels, f"{podman.SUBNET}.1"
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", chart.ROOT / "target"))
        program = target / "peers/rotel/rotel-agent"
        assert program.exists(), "no rotel: cluster-tests/peers/install"
        words = [program, "start", "--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity", "detailed"]
        words += ["--batch-timeout", "100ms", "--pid-file", engine.folder / "rotel.pid", "--log-file", engine.folder / "rotel.log"]
        words += ["--otlp-grpc-endpoint", f"{self.address}:4317", "--otlp-http-endpoint", f"{self.address}:4318"]
        self.out = engine.folder / "spans"
        libraries = {"LD_LIBRARY_PATH": str(program.parent / "lib")}
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                engine.inside(words), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=engine.corner.variables | libraries
            )

    def port(self, name):
        return {"otlp": 4317, "ui": 16686}[name]

    def state(self):
        return self.process.poll()

    def logs(self):
        return self.out.read_text()

    def spans(self):
        """Of every span the service, the trace, the name and the attributes, as text."""
        found = []
        for resource in re.split(r"^ResourceSpans #", self.logs(), flags=re.M)[1:]:
            head, *spans = re.split(r"^Span #", resource, flags=re.M)
            service = re.search(r"service\.name: \w+\(([^)]*)\)", head)
            for span in spans:
                fields = {key: re.search(rf"^\s*{key}\s*: (.*)$", span, re.M) for key in ("Trace ID", "Name")}
                if service and all(fields.values()):
                    found.append((service.group(1), fields["Trace ID"].group(1), fields["Name"].group(1), span))
        return found

    def traces(self, service, operation, tag):
        """What a search in Jaeger finds: the names of spans, by trace."""
        key, _, value = tag.partition("=")
        tagged = re.compile(rf"{re.escape(key)}: \w+\({re.escape(value)}\)")
        spans = self.spans()
        found = {trace for of, trace, name, text in spans if (of, name) == (service, operation) and tagged.search(text)}
        return {trace: {name for _, of, name, _ in spans if of == trace} for trace in found}

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=20)


class Stranger:
    """Somebody who types what the README says."""

    def __init__(self, engine, program):
        self.engine, self.program = engine, program
        self.cluster = kubernetes.Cluster(engine)
        self.release, self.load = kubernetes.Release(self.cluster), None
        self.built, self.said, self.typed = None, "", []
        self.collector = None

    def type(self, line):
        self.typed.append(line)
        words = shlex.split(line)
        known = {"helm/image/build": self.build, "buildah": self.push, "helm": self.helm, "kubectl": self.kubectl}
        known |= {"ffmpeg": self.publish, "ffplay": self.play, "cargo": self.fetch}
        self.said = known[words[0]](words[1:]) or ""

    def fetch(self, words):
        assert words == ["fetch", "--locked"]

    def build(self, words):
        (self.built,) = words
        # The program is the one of the other tests: it was built by the same command.
        self.engine.corner.variables["SELVAGE_PROGRAM"] = self.program
        said = self.engine.command([chart.ROOT / "helm/image/build", *words]).stdout
        del self.engine.corner.variables["SELVAGE_PROGRAM"]
        return said

    def push(self, words):
        assert words == ["push", self.built]
        assert self.engine.command(["buildah", "images", "--quiet", self.built]).stdout

    def helm(self, words):
        parser = argparse.ArgumentParser()
        parser.add_argument("-n", "--namespace", required=True)
        parser.add_argument("--create-namespace", action="store_true")
        parser.add_argument("-f", action="append", default=[])
        parser.add_argument("--set", action="append", default=[])
        parser.add_argument("verb", choices=["install", "test"])
        parser.add_argument("name")
        parser.add_argument("chart", nargs="?")
        asked = parser.parse_intermixed_args(words)
        assert asked.namespace == kubernetes.NAMESPACE
        if asked.verb == "test":
            said = self.release.test()
            assert "success written" in said, said
            return said
        assert asked.create_namespace and chart.ROOT / asked.chart == chart.CHART
        values = merged(*(yaml.safe_load((chart.ROOT / file).read_text()) for file in asked.f))
        for each in asked.set:
            path, _, value = each.partition("=")
            for key in reversed(path.split(".")):
                value = {key: value}
            values = merged(values, value)
        rendered = render(values, name=asked.name)
        image = self.pods_of(rendered)
        assert image == self.built, f"{image} would be pulled, and {self.built} was pushed"
        if rendered.of("Service", "-jaeger"):
            self.collector = Collector(self.engine, rendered.one("Service", "-jaeger")["spec"]["selector"])
            self.cluster.pods.append(self.collector)
        self.release.apply(rendered)
        self.name = asked.name
        return rendered.notes

    def pods_of(self, rendered):
        (image,) = {made["spec"]["template"]["spec"]["containers"][0]["image"] for made in (rendered.origins(), rendered.edges())}
        return image

    def kubectl(self, words):
        assert words[:2] == ["-n", kubernetes.NAMESPACE]
        verb, *rest = words[2:]
        return {"rollout": self.rollout, "exec": self.exec, "port-forward": self.forward}[verb](rest)

    def pods(self, what):
        """The pods of `deployment/NAME`, `statefulset/NAME` or `NAME`."""
        kind, _, name = what.rpartition("/")
        both = {
            ("statefulset", f"{self.name}-selvage-origin"): list(self.release.origins.pods.values()),
            ("deployment", f"{self.name}-selvage-edge"): self.release.edges.pods,
        }
        named = {("", pod.name): [pod] for pod in self.cluster.pods}
        return (both | named)[(kind, name)]

    def rollout(self, words):
        assert words[0] == "status"
        for what in words[1:]:
            for pod in self.pods(what):
                until(f"{pod.name} is ready", lambda: pod.ready)

    def exec(self, words):
        what, dashes, *command = words
        assert dashes == "--"
        return self.pods(what)[0].exec(*command).stdout

    def forward(self, words):
        what, port = words
        kind, _, name = what.partition("/")
        (found,) = [each for each in self.release.rendered.of("Service") if each["metadata"]["name"] == name]
        assert kind == "service" and int(port) in {each["port"] for each in found["spec"]["ports"]}
        if "jaeger" not in name:
            edge = self.cluster.virtual_address(name)
            self.load = Load(self.engine, self.program, edge, edge)

    def publish(self, words):
        """A film in place of FILE.flv, again and again, at the forwarded port."""
        url = words[-1]
        assert words == ["-re", "-i", "FILE.flv", "-c", "copy", "-f", "flv", url]
        self.load.publish(self.stream(url), by="ffmpeg")

    def play(self, words):
        (url,) = words
        viewer = self.load.watch(self.stream(url), by="ffmpeg")
        until(f"it plays: {viewer.story()}", lambda: viewer.bytes > 50_000, within=30)

    def stream(self, url):
        return re.fullmatch(r"rtmp://127\.0\.0\.1:1935/live/(\w+)", url).group(1)

    def close(self):
        if self.load:
            self.load.stop()
        if self.collector:
            self.cluster.removed(self.collector)
            self.collector.close()
        self.cluster.close()


@pytest.fixture
def stranger(engine, program):
    made = Stranger(engine, program)
    yield made
    print("\n".join(made.typed), made.said, sep="\n")
    if made.load:
        print(made.load.story())
    print(made.cluster.words())
    made.close()


def test_a_stranger_gets_a_stream_through_a_cluster_with_the_commands_of_the_readme(stranger):
    for kind, text in blocks():
        if kind == "text":
            assert shape(text).search(stranger.said), f"after {stranger.typed[-1]}:\n{stranger.said}"
            continue
        for line in text.splitlines():
            stranger.type(line)
            if "selvage status" in line:
                assert "live/_definst_/a" in stranger.said, stranger.said
    assert any("jaeger 16686" in line for line in stranger.typed)
    text = README.read_text()
    asked = re.search(r"service `([^`]+)` and the operation `([^`]+)`,\s+and\s+write\s+`([^`]+)`\s+into \*Tags\*", text)
    parts = set(re.findall(r"^\* `([\w.]+)`", text[asked.end() : text.index("More origins and edges")], re.M))
    assert len(parts) >= 4, parts

    def found():
        traces = stranger.collector.traces(*asked.groups())
        return len(traces) == 1 and parts <= set(*traces.values())

    until(f"one trace with {parts}: {stranger.collector.traces(*asked.groups())}", found, within=20)
