"""What a cluster does with the objects of a release, as far as the chart relies on it: names,
Services, kubelet, StatefulSet, Deployment, hooks. The containers are podman's.

Not played: scheduling, NetworkPolicy, PodDisruptionBudget, autoscaling, load balancers,
sessionAffinity. Those are judged as they are rendered, by the other tests of the chart."""

import copy
import hashlib
import http.client
import itertools
import json
import random
import re
import shutil
import socket
import struct
import subprocess
import threading
import time

import yaml
from podman import SUBNET, Failed

NAMESPACE, DOMAIN = "media", "cluster.local"
SERVICES = "10.96.0"
# Answers come back the way that the questions went, also between pods.
MASQUERADE = "-m conntrack --ctstate DNAT -j MASQUERADE".split()


def until(what, condition, within=60):
    """Waits for a condition, and says which one did not come true."""
    end = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() > end:
            raise Failed(f"within {within} s not: {what}")
        time.sleep(0.05)
    return found


class Cluster:
    """Pods and Services of one namespace."""

    def __init__(self, podman):
        self.podman = podman
        self.folder = podman.folder
        self.config_maps, self.services, self.pods = {}, {}, []
        # Files by name, by Secret: {"link": {"tls.crt": b"..."}}.
        self.secrets = {}
        self.addresses = itertools.count(10)
        self.virtual = {}
        self.lock = threading.RLock()
        # The bridge is there while there is a container on it: one that stays is the node.
        podman.run("pod", "create", "--name", "node", "--network", "pods", "--ip", f"{SUBNET}.9")
        podman.run("pod", "start", "node")
        podman.command(["ip", "route", "add", f"{SERVICES}.0/24", "dev", "podman1"])
        podman.command(["iptables", "-w", "-t", "nat", "-N", "SERVICES"])
        for chain in ("PREROUTING", "OUTPUT"):
            podman.command(["iptables", "-w", "-t", "nat", "-A", chain, "-j", "SERVICES"])
        podman.command(["iptables", "-w", "-t", "nat", "-I", "POSTROUTING", *MASQUERADE])
        self.names = _Names(self)

    # What controllers and hooks make.

    def add(self, pod):
        with self.lock:
            pod.address = f"{SUBNET}.{next(self.addresses)}"
            self.pods.append(pod)
        pod.start()
        return pod

    def removed(self, pod):
        with self.lock:
            self.pods.remove(pod)

    def matching(self, selector):
        with self.lock:
            return [pod for pod in self.pods if selector.items() <= pod.labels.items()]

    # kube-proxy, by its own means.

    def virtual_address(self, service):
        with self.lock:
            return self.virtual.setdefault(service, f"{SERVICES}.{10 + len(self.virtual)}")

    def endpoints_changed(self):
        """Connections that exist stay where they are; new ones are spread over who is ready."""
        with self.lock:
            rules = ["*nat", ":SERVICES - [0:0]"]
            for service in self.services.values():
                spec = service["spec"]
                if spec.get("clusterIP") == "None":
                    continue
                ready = [pod for pod in self.matching(spec["selector"]) if pod.ready]
                virtual = self.virtual_address(service["metadata"]["name"])
                for port in spec["ports"]:
                    protocol = port["protocol"].lower()
                    for index, pod in enumerate(ready):
                        share = 1 / (len(ready) - index)
                        to = f"{pod.address}:{pod.port(port['targetPort'])}"
                        rules.append(
                            f"-A SERVICES -d {virtual} -p {protocol} --dport {port['port']} -m statistic"
                            f" --mode random --probability {share:.6f} -j DNAT --to-destination {to}"
                        )
            rules += ["COMMIT", ""]
            self.podman.command(["iptables-restore", "-w", "--noflush"], stdin="\n".join(rules))

    def resolve(self, name):
        """The addresses of a name; None if there is no such name."""
        suffix = f".{NAMESPACE}.svc.{DOMAIN}"
        if not name.endswith(suffix):
            return None
        with self.lock:
            *host, service = name.removesuffix(suffix).split(".")
            found = self.services.get(service)
            if found is None or len(host) > 1:
                return None
            spec = found["spec"]
            if spec.get("clusterIP") != "None":
                return None if host else [self.virtual_address(service)]
            listed = [
                pod
                for pod in self.matching(spec["selector"])
                if pod.running and (pod.ready or spec.get("publishNotReadyAddresses"))
            ]
            if host:
                listed = [pod for pod in listed if pod.subdomain == service and pod.name == host[0]]
            return [pod.address for pod in listed] or None

    def close(self):
        self.names.close()
        with self.lock:
            pods = list(self.pods)
        for pod in pods:
            pod.abandoned = True
        self.podman.run("pod", "rm", "--force", "--all", "--time", "0")
        self.podman.run("volume", "rm", "--force", "--all")
        for chain in ("PREROUTING", "OUTPUT"):
            self.podman.command(["iptables", "-w", "-t", "nat", "-D", chain, "-j", "SERVICES"])
        self.podman.command(["iptables", "-w", "-t", "nat", "-F", "SERVICES"])
        self.podman.command(["iptables", "-w", "-t", "nat", "-X", "SERVICES"])
        self.podman.command(["iptables", "-w", "-t", "nat", "-D", "POSTROUTING", *MASQUERADE])

    def words(self):
        """What all that run said, for a failure."""
        with self.lock:
            return "\n".join(f"== {pod.name} {pod.state()}\n{pod.logs()[-3000:]}" for pod in self.pods)


class _Names:
    """The cluster's DNS. Names that do not exist are said not to."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.server = cluster.podman.socket(socket.SOCK_DGRAM)
        self.server.bind((f"{SUBNET}.1", 53))
        # Who waits in a call is not woken by a close.
        self.server.settimeout(0.2)
        self.ending = False
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while not self.ending:
            try:
                asked, client = self.server.recvfrom(4096)
            except TimeoutError:
                continue
            try:
                self.server.sendto(self.answer(asked), client)
            except (OSError, IndexError, UnicodeDecodeError, struct.error):
                continue

    def answer(self, asked):
        labels, at = [], 12
        while asked[at]:
            labels.append(asked[at + 1 : at + 1 + asked[at]].decode())
            at += 1 + asked[at]
        kind = struct.unpack("!H", asked[at + 1 : at + 3])[0]
        question = asked[12 : at + 5]
        found = self.cluster.resolve(".".join(labels).lower())
        addresses = found if found and kind == 1 else []
        random.shuffle(addresses)
        code = 3 if found is None else 0
        records = b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton(address) for address in addresses
        )
        head = asked[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(addresses), 0, 0)
        return head + question + records

    def close(self):
        self.ending = True
        self.thread.join()
        self.server.close()


class Pod:
    """A pod as its kubelet keeps it: started with what is rendered, probed as is rendered, and
    ended as is rendered."""

    def __init__(self, cluster, name, template, subdomain=None, claims=()):
        self.cluster, self.podman = cluster, cluster.podman
        self.name, self.subdomain, self.claims = name, subdomain, claims
        self.template = copy.deepcopy(template)
        self.spec = self.template["spec"]
        self.labels = self.template["metadata"].get("labels", {})
        self.container = self.spec["containers"][0]
        self.address = None
        self.running = self.started = self.ready = self.ending = self.gone = self.abandoned = False
        self.failed = None
        self.ready_since = None
        self.probed = {"startupProbe": 0, "readinessProbe": 0, "livenessProbe": 0}
        self.unalive = []
        self.exit_code = self.took = None
        self.killed = False

    def full_name(self, container=None):
        return f"{self.name}-{(container or self.container)['name']}"

    def port(self, name):
        return next(each["containerPort"] for each in self.container["ports"] if each["name"] == name)

    def state(self):
        known = ("running", "started", "ready", "ending", "gone", "failed", "exit_code")
        return {key: getattr(self, key) for key in known}

    def start(self):
        threading.Thread(target=self.live, daemon=True).start()

    def live(self):
        try:
            self.play()
            self.running = True
            self.probe_on()
        except Failed as error:
            if not self.ending and not self.abandoned:
                self.failed = str(error)

    def play(self):
        documents = self.documents()
        file = self.cluster.folder / f"{self.name}.yaml"
        file.write_text(yaml.safe_dump_all(documents))
        self.podman.run("play", "kube", "--network", "pods", "--ip", self.address, file)

    def documents(self):
        """The Pod that podman is given, and its ConfigMaps: each pod has files of its own."""
        spec = copy.deepcopy(self.spec)
        spec |= {"hostname": self.name, "dnsPolicy": "None"}
        searches = [f"{NAMESPACE}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN]
        options = [{"name": "ndots", "value": "5"}]
        spec["dnsConfig"] = {"nameservers": [f"{SUBNET}.1"], "searches": searches, "options": options}
        # These are the test's to do.
        for container in spec.get("initContainers", []) + spec["containers"]:
            for key in ("ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
                container.pop(key, None)
            container["env"] = self.environment(container)
        maps = []
        for volume in spec.get("volumes", []):
            if "configMap" in volume:
                found = copy.deepcopy(self.cluster.config_maps[volume["configMap"]["name"]])
                found["metadata"] = {"name": f"{self.name}-{volume['name']}"}
                volume["configMap"]["name"] = found["metadata"]["name"]
                maps.append(found)
            elif "secret" in volume:
                volume["hostPath"] = {"path": str(self.secret(volume.pop("secret"))), "type": "Directory"}
        for claim in self.claims:
            name = f"{claim['metadata']['name']}-{self.name}"
            self.claim(name)
            volume = {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": name}}
            spec.setdefault("volumes", []).append(volume)
        metadata = {"name": self.name, "labels": self.labels}
        return [*maps, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}]

    def secret(self, volume):
        """A folder with the files of a Secret, whose modes and group are those that a kubelet gives
        them. (podman's own way ends in a panic.)"""
        folder = self.cluster.folder / "secrets" / self.name / volume["secretName"]
        folder.mkdir(parents=True, exist_ok=True)
        found = self.cluster.secrets[volume["secretName"]]
        for item in volume.get("items") or [{"key": key, "path": key} for key in found]:
            file = folder / item["path"]
            file.write_bytes(found[item["key"]])
            file.chmod(volume["defaultMode"])
            shutil.chown(file, group=self.spec["securityContext"]["fsGroup"])
        return folder

    def claim(self, name):
        """The disk of a claim, with the group that the pod's securityContext gives it."""
        if name in self.podman.run("volume", "ls", "--format", "{{.Name}}").split():
            return
        self.podman.run("volume", "create", name)
        path = self.podman.run("volume", "inspect", "--format", "{{.Mountpoint}}", name).strip()
        shutil.chown(path, group=self.spec["securityContext"]["fsGroup"])
        subprocess.run(["chmod", "g+rwxs", path], check=True)

    def environment(self, container):
        fields = {
            "metadata.name": self.name,
            "metadata.namespace": NAMESPACE,
            "spec.nodeName": f"node-of-{self.name}",
            "status.podIP": self.address,
        }
        variables = {}
        for each in container.get("env", []):
            value = each["value"] if "value" in each else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
            known = lambda found: variables.get(found.group(1), found.group(0))
            variables[each["name"]] = re.sub(r"\$\((\w+)\)", known, value)
        return [{"name": name, "value": value} for name, value in variables.items()]

    # Probes.

    def probe_on(self):
        startup = self.container.get("startupProbe")
        if startup and not self.asked_until_started(startup):
            return
        self.started = True
        threading.Thread(target=self.stay_alive, daemon=True).start()
        probe = self.container["readinessProbe"]
        failures = 0
        while not self.ending and not self.abandoned:
            if self.ask("readinessProbe", probe):
                failures = 0
                self.become(True)
            else:
                failures += 1
                if failures >= probe["failureThreshold"]:
                    self.become(False)
            self.pause(probe["periodSeconds"])

    def asked_until_started(self, probe):
        for _ in range(probe["failureThreshold"]):
            if self.ending or self.abandoned:
                return False
            if self.ask("startupProbe", probe):
                return True
            self.pause(probe["periodSeconds"])
        raise Failed(f"{self.name} does not start")

    def stay_alive(self):
        probe = self.container["livenessProbe"]
        while not self.ending and not self.abandoned:
            if not self.ask("livenessProbe", probe) and not self.ending:
                self.unalive.append(time.monotonic())
            self.pause(probe["periodSeconds"])

    def pause(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.ending and not self.abandoned:
            time.sleep(0.1)

    def become(self, ready):
        if self.ready != ready and not self.ending:
            self.ready, self.ready_since = ready, time.monotonic()
            self.cluster.endpoints_changed()

    def ask(self, which, probe):
        self.probed[which] += 1
        if "exec" in probe:
            return self.exec(*probe["exec"]["command"], check=False).returncode == 0
        wanted = probe["httpGet"]
        try:
            return self.get(wanted["path"], self.port(wanted["port"]), probe["timeoutSeconds"])[0] < 400
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path, port, timeout=5):
        """From where a kubelet asks: outside of the pod."""
        connection = http.client.HTTPConnection(self.address, port, timeout=timeout)
        connection.sock = self.podman.socket(socket.SOCK_STREAM)
        connection.sock.settimeout(timeout)
        try:
            connection.sock.connect((self.address, port))
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def exec(self, *words, check=True):
        """`kubectl exec`."""
        return self.podman.command(["podman", "exec", self.full_name(), *words], check=check)

    def logs(self):
        done = self.podman.command(["podman", "logs", self.full_name()], check=False)
        return done.stdout + done.stderr

    # The end.

    def end(self):
        """Endpoints first, then preStop, SIGTERM, and SIGKILL when the grace period is over."""
        began = time.monotonic()
        grace = self.spec["terminationGracePeriodSeconds"]
        self.ending, self.ready = True, False
        self.cluster.endpoints_changed()
        before = self.container.get("lifecycle", {}).get("preStop", {})
        if "sleep" in before:
            time.sleep(before["sleep"]["seconds"])
        elif "exec" in before:
            self.exec(*before["exec"]["command"], check=False)
        # podman starts again what ends by itself, so it is podman that is told to stop it.
        left = max(1, round(began + grace - time.monotonic()))
        self.podman.run("stop", "--time", left, self.full_name(), timeout=left + 60)
        self.took = time.monotonic() - began
        self.exit_code = self.podman.inspect(self.full_name())["State"]["ExitCode"]
        self.said = self.logs()
        self.podman.run("pod", "rm", "--force", "--time", "0", self.name)
        self.running, self.gone = False, True
        self.cluster.removed(self)


class StatefulSet:
    """Pods with names that stay, all at once (podManagementPolicy Parallel), replaced one at a time
    from the last to the first."""

    def __init__(self, cluster):
        self.cluster, self.pods, self.ended = cluster, {}, []

    def apply(self, made):
        spec = made["spec"]
        assert spec["podManagementPolicy"] == "Parallel"
        for ordinal in range(spec["replicas"]):
            if ordinal not in self.pods:
                self.put(made, ordinal)
        leaving = [self.pods.pop(ordinal) for ordinal in sorted(self.pods, reverse=True) if ordinal >= spec["replicas"]]
        at_once([pod.end for pod in leaving])
        self.ended += leaving
        for ordinal in sorted(self.pods, reverse=True):
            if self.pods[ordinal].template != spec["template"]:
                old = self.pods[ordinal]
                old.end()
                self.ended.append(old)
                self.put(made, ordinal)
            self.wait(self.pods[ordinal], spec["minReadySeconds"])

    def put(self, made, ordinal):
        spec = made["spec"]
        name = f"{made['metadata']['name']}-{ordinal}"
        claims = spec.get("volumeClaimTemplates", [])
        self.pods[ordinal] = self.cluster.add(Pod(self.cluster, name, spec["template"], spec["serviceName"], claims))

    def wait(self, pod, seconds):
        settled = lambda: pod.failed or (pod.ready and time.monotonic() - pod.ready_since >= seconds)
        until(f"{pod.name} is ready for {seconds} s", settled)
        if pod.failed:
            raise Failed(pod.failed)


class Deployment:
    """Pods without a name of their own: maxSurge 1, maxUnavailable 0. The newest leaves first."""

    def __init__(self, cluster):
        self.cluster, self.pods, self.ended = cluster, [], []
        self.numbers = itertools.count(1)

    def apply(self, made):
        spec = made["spec"]
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        if outdated := [pod for pod in self.pods if pod.template != spec["template"]]:
            for old in outdated:
                self.wait(self.put(made))
                self.take(old)
        while len(self.pods) < spec["replicas"]:
            self.put(made)
        self.take(*self.pods[spec["replicas"] :])
        for pod in self.pods:
            self.wait(pod)

    def put(self, made):
        template = made["spec"]["template"]
        short = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:8]
        pod = self.cluster.add(Pod(self.cluster, f"{made['metadata']['name']}-{short}-{next(self.numbers)}", template))
        self.pods.append(pod)
        return pod

    def take(self, *leaving):
        at_once([pod.end for pod in leaving])
        self.pods = [pod for pod in self.pods if pod not in leaving]
        self.ended += leaving

    def wait(self, pod):
        until(f"{pod.name} is ready", lambda: pod.ready or pod.failed)
        if pod.failed:
            raise Failed(pod.failed)


class Release:
    """What Helm does with the objects of a chart."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.origins, self.edges = StatefulSet(cluster), Deployment(cluster)
        self.rendered = None

    def apply(self, rendered):
        """install or upgrade, with --wait."""
        for job in rendered.of("Job"):
            assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
            self.to_the_end(job["metadata"]["name"], job["spec"]["template"], 1 + job["spec"]["backoffLimit"])
        self.rendered = rendered
        with self.cluster.lock:
            self.cluster.config_maps = {each["metadata"]["name"]: each for each in rendered.of("ConfigMap")}
            self.cluster.services = {each["metadata"]["name"]: each for each in rendered.of("Service")}
        self.cluster.endpoints_changed()
        at_once([lambda: self.origins.apply(rendered.origins()), lambda: self.edges.apply(rendered.edges())])

    def test(self):
        """`helm test`: what its pods said."""
        found = [each for each in self.rendered.of("Pod") if each["metadata"]["annotations"]["helm.sh/hook"] == "test"]
        return "".join(self.to_the_end(each["metadata"]["name"], each, 1) for each in found)

    def to_the_end(self, name, template, attempts):
        for attempt in range(1, attempts + 1):
            done, said = self.attempt(f"{name}-{attempt}", template)
            if done:
                return said
        raise Failed(f"{name}: {said}")

    def attempt(self, name, template):
        """A pod whose containers end, the first ones one after the other."""
        template = copy.deepcopy(template)
        template["metadata"].setdefault("labels", {})
        steps = [*template["spec"].pop("initContainers", []), *template["spec"]["containers"]]
        said = ""
        for number, container in enumerate(steps):
            template["spec"]["containers"] = [container]
            pod = Pod(self.cluster, f"{name}-{number}", template)
            pod.address = f"{SUBNET}.{next(self.cluster.addresses)}"
            pod.play()
            code = int(self.cluster.podman.run("wait", pod.full_name()))
            said += pod.logs()
            self.cluster.podman.run("pod", "rm", "--force", "--time", "0", pod.name)
            if code != 0:
                return False, f"{container['name']} ends with {code}: {said}"
        return True, said


def at_once(calls):
    """All of them, each in a thread; the first failure is everybody's."""
    failures = []

    def guarded(call):
        try:
            call()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
