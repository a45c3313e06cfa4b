"""The commands of README.md's "On a cluster", one after the other, with podman in place of the
cluster: what helm and kubectl would be told is done to the pods, everything else is run.

Not run: `cargo fetch`, for which the tests have no network; the push, for want of a registry; and
Jaeger, whose image is not to be had here. That the push pushes what was built is looked at."""

import argparse
import re
import shlex

import chart
import kubernetes
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


class Stranger:
    """Somebody who types what the README says."""

    def __init__(self, engine, program):
        self.engine, self.program = engine, program
        self.cluster = kubernetes.Cluster(engine)
        self.release, self.load = kubernetes.Release(self.cluster), None
        self.built, self.said, self.typed = None, "", []

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
            return self.release.test()
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
                assert "live/a" in stranger.said, stranger.said
    assert any("jaeger 16686" in line for line in stranger.typed)
