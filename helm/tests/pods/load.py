"""Clients in the network of the pods: who publishes, who watches, who writes. Each remembers what
befell it."""

import json
import re
import subprocess
import threading
import time

# Of a write: how long for connecting, and how long in all.
PATIENCE, AT_MOST = 10, 40
# So many slots an object gets before the next one is begun, and so long a writer rests between two
# writes: the machine is for the pods.
SLOTS, REST = 200, 0.1


class Client:
    """A process that stays until it is told to go."""

    def __init__(self, podman, words, name, output=subprocess.DEVNULL):
        self.name = name
        self.errors = podman.folder / f"{name}.err"
        self.began = time.monotonic()
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                podman.inside(words), stdin=subprocess.DEVNULL, stdout=output, stderr=errors
            )

    def pid(self):
        return self.process.pid

    @property
    def closed(self):
        return self.process.poll() is not None

    def stop(self):
        if not self.closed:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def story(self):
        code = self.process.poll()
        return f"{self.name}: {'runs' if code is None else f'ended with {code}'}; {self.errors.read_text()[-300:]!r}"


class Viewer(Client):
    """Somebody who watches. Counts what comes, and the longest time that nothing came."""

    def __init__(self, podman, words, name, follows):
        super().__init__(podman, words, name, output=subprocess.PIPE)
        # Whether it goes elsewhere when its edge asks it to.
        self.follows = follows
        self.bytes, self.last, self.gap = 0, None, 0.0
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while data := self.process.stdout.read1(65536):
            now = time.monotonic()
            if self.last is not None:
                self.gap = max(self.gap, now - self.last)
            self.last = now
            self.bytes += len(data)

    def quiet(self):
        return time.monotonic() - (self.last or self.began)

    def story(self):
        return f"{super().story()}, {self.bytes} bytes, longest gap {self.gap:.2f} s, quiet for {self.quiet():.1f} s"


class Load:
    """All clients of one test."""

    def __init__(self, podman, program, edge, udp_edge):
        self.podman, self.program = podman, program
        self.edge, self.udp_edge = edge, udp_edge
        self.publishers, self.viewers, self.writers = [], [], []
        self.film = podman.folder / "film.flv"
        self.ffmpeg(
            "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=sample_rate=44100",
            "-t", "8", "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-bf", "0", "-b:v", "300k",
            "-c:a", "aac", "-b:a", "64k", self.film,
        )  # fmt: skip

    def ffmpeg(self, *words):
        subprocess.run(["ffmpeg", "-loglevel", "error", "-nostdin", "-y", *map(str, words)], check=True)

    def publish(self, stream, by="selvage"):
        url = f"rtmp://{self.edge}/live/{stream}"
        words = {
            "selvage": [self.program, "publish", "--loop", self.film, url],
            "ffmpeg": [*"ffmpeg -loglevel error -re -stream_loop -1 -i".split(), self.film, *"-c copy -f flv".split(), url],
        }[by]
        self.publishers.append(Client(self.podman, words, f"publisher-{stream}"))

    def watch(self, stream, by="selvage"):
        url = f"rtmp://{self.edge}/live/{stream}"
        words = {
            "selvage": [self.program, "play", url, "-o", "-", "--timeout", "20"],
            "rtmfp": [self.program, "play", url.replace("rtmp://", "rtmfp://").replace(self.edge, self.udp_edge), "-o", "-"],
            "ffmpeg": [*"ffmpeg -loglevel error -i".split(), url, *"-c copy -f flv -".split()],
        }[by]
        viewer = Viewer(self.podman, words, f"viewer-{len(self.viewers)}-{by}-{stream}", by == "selvage")
        self.viewers.append(viewer)
        return viewer

    def write(self, name):
        self.writers.append(Writer(self, name))

    def stop(self):
        for each in [*self.writers, *self.viewers, *self.publishers]:
            each.stop()

    def story(self):
        return "\n".join(each.story() for each in [*self.publishers, *self.viewers, *self.writers])


class Writer:
    """Writes one slot after the other, each by a client of its own, and remembers what it was told
    to have succeeded. A write that failed is made again: it has the same value."""

    def __init__(self, load, name):
        self.load, self.name = load, name
        self.url = f"rtmp://{load.edge}/writes"
        self.acknowledged, self.failures = {}, []
        # Objects that are full, and were found to be whole.
        self.whole = set()
        self.longest = 0.0
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        number = 0
        while not self.ending.is_set():
            began = time.monotonic()
            code, said = self.so("set", self.object(number), f"s{number}={number}")
            if code == 0 and re.search(rf" success s{number}\b", said):
                self.acknowledged[number] = time.monotonic()
                self.longest = max(self.longest, time.monotonic() - began)
                number += 1
                time.sleep(REST)
            else:
                self.failures.append((number, code, said.strip()[-300:]))
                time.sleep(0.2)

    def object(self, number):
        return f"{self.name}-{number // SLOTS}"

    def so(self, verb, *words):
        flags = ["--persistent", "--patience", str(PATIENCE)]
        command = [self.load.program, "so", verb, *flags, *(["--json"] if verb == "get" else []), self.url, *words]
        try:
            done = self.load.podman.command(command, check=False, timeout=AT_MOST)
        except subprocess.TimeoutExpired:
            return None, f"nothing within {AT_MOST} s"
        return done.returncode, done.stdout + (done.stderr if verb == "set" else "")

    def lost(self, again=False):
        """What was acknowledged and is not there. Objects that nobody writes any more are looked at
        once, and all of them again at the end."""
        by_object = {}
        for number in sorted(self.acknowledged):
            by_object.setdefault(self.object(number), []).append(number)
        missing = []
        for name, known in by_object.items():
            if name in self.whole and not again:
                continue
            code, said = self.so("get", name)
            slots = json.loads(said)["slots"] if code == 0 else {}
            here = [number for number in known if slots.get(f"s{number}") != number]
            if not here and len(known) == SLOTS:
                self.whole.add(name)
            missing += here
        return missing

    def stop(self):
        self.ending.set()
        self.thread.join(timeout=AT_MOST + 10)

    def story(self):
        told = f"{len(self.acknowledged)} acknowledged, the longest took {self.longest:.2f} s"
        return f"{self.name}: {told}, failures {self.failures}"
