"""Containers in a corner of their own: images, containers, volumes and networks of this podman are
below one folder and in one network namespace, and all of it goes with them."""

import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading

HERE = pathlib.Path(__file__).parent

# What this part of the tests is made with: Debian's names of the packages, by program.
PROGRAMS = {
    "podman": "podman",
    "buildah": "buildah",
    "runc": "runc",
    "catatonit": "catatonit",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ffmpeg": "ffmpeg",
    "/usr/lib/podman/netavark": "netavark",
}

SUBNET = "10.91.0"
CLONE_NEWNET = 0x40000000


class Failed(Exception):
    """A command that failed, with what it said."""


def missing():
    """Debian's packages that are not here."""
    return [package for program, package in PROGRAMS.items() if not shutil.which(program)]


def why_not():
    """Why containers cannot be run here, or None."""
    if os.geteuid() != 0:
        return "pods need root, for network namespaces and mounts"
    if packages := missing():
        return f"pods need Debian's {' '.join(packages)}"
    probe = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        return f"pods need the right to make namespaces: {probe.stderr.strip()}"
    return None


class Podman:
    """A podman with a folder and a network namespace. `close` leaves nothing behind, and neither
    does the next one in the same place if this process dies."""

    def __init__(self, below):
        below.mkdir(parents=True, exist_ok=True)
        for left in below.iterdir():
            if not pathlib.Path(f"/proc/{left.name}").exists():
                _Corner(left).clear()
        self.corner = _Corner(below / str(os.getpid()))
        self.folder = self.corner.folder
        self.corner.make()
        self.run("info", "--format", "{{.Store.GraphDriverName}}")
        self.run("network", "create", "--disable-dns", "--subnet", f"{SUBNET}.0/24", "pods")

    def run(self, *words, stdin=None, check=True, timeout=120):
        """What `podman WORDS` prints."""
        return self.command(["podman", *words], stdin=stdin, check=check, timeout=timeout).stdout

    def command(self, words, stdin=None, check=True, timeout=120):
        """Any command in the network of the pods."""
        done = subprocess.run(
            self.inside(words),
            env=self.corner.variables,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise Failed(f"{' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def inside(self, words):
        return ["nsenter", f"--net={self.corner.netns}", *map(str, words)]

    def socket(self, kind):
        """A socket in the network of the pods: a thread goes there, makes it and ends."""
        made = []

        def make():
            with open(self.corner.netns) as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
                    return
            made.append(socket.socket(socket.AF_INET, kind))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise Failed(f"cannot enter {self.corner.netns}")
        return made[0]

    def inspect(self, container):
        (found,) = json.loads(self.run("inspect", container))
        return found

    def close(self):
        self.corner.clear()


class _Corner:
    def __init__(self, folder):
        self.folder = folder
        self.name = f"selvage-pods-{folder.name}"
        self.netns = f"/run/netns/{self.name}"
        settings = {"CONTAINERS_CONF": folder / "containers.conf", "CONTAINERS_STORAGE_CONF": folder / "storage.conf"}
        self.variables = os.environ | {key: str(path) for key, path in settings.items()}

    def make(self):
        self.folder.mkdir()
        shim = HERE / "runc-without-limits"
        (self.folder / "containers.conf").write_text(
            f"""[containers]
log_driver = "k8s-file"
[engine]
# Without systemd, and beside other podmans: theirs have locks in shared memory.
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "shim"
tmp_dir = "{self.folder}/tmp"
volume_path = "{self.folder}/volumes"
[engine.runtimes]
shim = ["{shim}"]
[network]
network_backend = "netavark"
network_config_dir = "{self.folder}/networks"
"""
        )
        # A folder that is on an overlay itself cannot carry another.
        kind = subprocess.run(["stat", "-f", "-c", "%T", self.folder], capture_output=True, text=True, check=True)
        driver = "vfs" if kind.stdout.startswith("overlay") else "overlay"
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "{driver}"\nrunroot = "{self.folder}/run"\ngraphroot = "{self.folder}/graph"\n'
        )
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        subprocess.run(["ip", "-n", self.name, "link", "set", "lo", "up"], check=True)

    def clear(self):
        if os.path.exists(self.netns) and (self.folder / "storage.conf").exists():
            words = ["nsenter", f"--net={self.netns}", "podman", "pod", "rm", "--force", "--all", "--time", "0"]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(words, env=self.variables, capture_output=True, check=False, timeout=120)
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)
        mounts = [line.split()[1] for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if mount.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


if __name__ == "__main__":
    print(*missing())
