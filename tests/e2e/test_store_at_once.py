"""Commands that bring images, use them and take them away, all at the same time on one store: each ends well or says the
one thing that is right, whoever gets an image gets all of it, and in the end nothing is left."""

import os
import platform
import random
import re
import threading
import time

import pytest

from harness import images
from harness.images import Image, LayerTar
from harness.waiting import until
from test_crash import Tracer, seed  # noqa: F401

PLAIN = "--tls-verify=false"
NONE = ("--network", "none")
SECONDS, WORKERS, FILES = 18, 6, 40
FLOCK = {"x86_64": 73, "aarch64": 32}[platform.machine()]

# Why a command may fail: another one has taken the image away, or a container stands on it.
GONE = r"[^ ]+: (the image was taken away while it was pulled|image not known)$"
REFUSALS = {
    "pull": {125: rf"kelp: (error: )?{GONE}"},
    "run": {125: rf"kelp: (error: )?(.*: )?{GONE}"},
    "create": {125: rf"kelp: (error: )?(.*: )?{GONE}"},
    "rmi": {1: rf"kelp: (error: )?{GONE}", 2: r"kelp: (error: )?image [0-9a-f]{64} is in use by a container$"},
    "tag": {125: rf"kelp: (error: )?({GONE}|[0-9a-f]{{12}}: the image was removed meanwhile$)"},
}


def layer(name):
    """A layer whose files say which one it is."""
    made = LayerTar().directory(f"of-{name}")
    for n in range(FILES):
        made.file(f"of-{name}/{n}", f"{name} {n}\n")
    return made


# What it has: image → its layers above busybox's. They share some.
WANTED = {"one": ("common", "one"), "two": ("common", "two-a", "two-b"), "three": ("three",)}
LOOK = "cd /; for d in {}; do cat $d/0 $d/%d; ls $d | wc -l; done" % (FILES - 1)


class Store:
    """The commands that the workers give, and what went wrong with one."""

    def __init__(self, kelp, names, seed):
        self.kelp, self.names, self.end = kelp, names, time.monotonic() + SECONDS
        self.seeds = [seed.random() for _ in range(WORKERS)]
        self.problems, self.counts, self.lock = [], {}, threading.Lock()

    def give(self, *words):
        result = self.kelp(*words, code=None, timeout=120)
        verb = words[0]
        with self.lock:
            key = f"{' '.join(w for w in words[:2] if w.isalpha())} {result.code}"
            self.counts[key] = self.counts.get(key, 0) + 1
            lines = [line for line in result.err.splitlines() if line and not line.startswith("hint:")]
            right = REFUSALS.get(verb, {}).get(result.code)
            if result.code != 0 and not (right and len(lines) == 1 and re.match(right, lines[0])):
                self.problems.append(str(result))
        return result

    def run(self, image, *options):
        below = " ".join(f"of-{name}" for name in WANTED[image])
        result = self.give("run", "--rm", "-q", *options, *NONE, self.names[image], "sh", "-c", LOOK.format(below))
        expected = "".join(f"{name} 0\n{name} {FILES - 1}\n{FILES}\n" for name in WANTED[image])
        if result.code == 0 and result.out != expected:
            with self.lock:
                self.problems.append(f"not the whole image:\n{result}")

    def work(self, number):
        chance = random.Random(self.seeds[number])
        while time.monotonic() < self.end and not self.problems:
            image = chance.choice(list(WANTED))
            name = self.names[image]
            chance.choices([
                lambda: self.give("pull", "-q", PLAIN, name),
                lambda: self.run(image, PLAIN),
                lambda: self.run(image, "--pull", "never"),
                lambda: self.give("create", "-q", "--replace", PLAIN, "--name", f"c{number}", *NONE, name, "true"),
                lambda: self.give("rm", "-f", "--ignore", f"c{number}"),
                lambda: self.give("rmi", name),
                lambda: self.give("rmi", "-f", name),
                lambda: self.give("tag", name, f"localhost/tag{number}:1"),
                lambda: self.give("image", "prune", "-a", "-f"),
                lambda: self.give("system", "prune", "-a", "-f"),
                lambda: self.give("store", "gc"),
                lambda: self.give("store", "gc", "--layers"),
                lambda: self.give("store", "verify", "-q"),
                lambda: self.give("images"),
            ], [6, 8, 4, 2, 4, 4, 1, 2, 2, 1, 2, 1, 1, 2])[0]()
            if chance.random() < 0.3:
                self.give("rm", "-f", "--ignore", f"c{number}")


def held_at(kelp, tracer, number, fifo, *command):
    """Starts the command; answers when its program stands still in front of that call, with what holds it there."""
    os.mkfifo(fifo)
    traces = {"KILL_AT_TRACES": "1"} if tracer.traces_only else {}
    started = kelp.start(*command, path=tracer.at(number), env={**tracer.env, **traces, "KILL_AT_HOLD": str(fifo)})
    while started.poll() is None:
        try:
            return started, os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # it is not there yet
            time.sleep(0.002)
    return started, None


@pytest.mark.parametrize("prune", [("container", "prune", "-f"), ("system", "prune", "-f")], ids="-".join)
def test_prune_leaves_a_container_that_is_being_started(kelp, place, prune):
    """`run` stands still in front of each system call that can leave something while prune looks for containers at rest:
    the one that was made a moment ago is none."""
    kelp("run", "-d", "--name", "holder", *NONE, "busybox", "sleep", "1000")
    tracer, command = Tracer(kelp, place, "kelp", traces_only=True), ("run", "--rm", *NONE, "busybox", "echo", "fine")
    fifo, created = place / "fifo", 0
    for number in range(1, tracer.calls(*command) + 1):
        runs, holding = held_at(kelp, tracer, number, fifo, *command)
        created += "created" in kelp("ps", "-a", "--format", "{{.State}}").lines
        prunes = kelp.start(*prune)
        time.sleep(0.05)  # long enough for a wrong removal; whether it waits or has ended makes no difference
        if holding is not None:
            os.close(holding)
        fifo.unlink()
        assert prunes.wait(60) == 0, prunes.stderr.read()
        out, err = runs.communicate(timeout=60)
        assert (runs.returncode, out, err) == (0, b"fine\n", b""), f"held at call {number}"
        assert prunes.stderr.read() == b""
    assert created >= 3, "prune never met a container between its making and its start"


def test_a_sweep_leaves_a_draft_that_is_published_under_its_eyes(kelp, place):
    """The sweep opens the draft while `create` is about to publish it, and asks for its lock when that has been done."""
    kelp("run", "-d", "--name", "holder", *NONE, "busybox", "sleep", "1000")
    create = ("create", "--name", "c", "-v", "/data", *NONE, "busybox", "true")
    sweep = ("system", "prune", "-f", "--filter", "label=no")
    for part in ("maker", "sweeper"):
        (place / part).mkdir()
    maker, sweeper = Tracer(kelp, place / "maker", "kelp", traces_only=True), Tracer(kelp, place / "sweeper", "kelp")
    maker.run(*create)
    made = [name for name in maker.names() if not name.startswith("-")]
    publishes = max(i for i, name in enumerate(made, 1) if name == "rename")

    def flocks():
        """The sweeper's calls of flock while a draft lies there, by number."""
        creating, holds = held_at(kelp, maker, publishes, place / "creates", *create)
        sweeper.run(*sweep)
        os.close(holds)
        assert creating.wait(60) == 0, creating.stderr.read()
        return [i for i, number in enumerate(sweeper.names(), 1) if number == str(FLOCK)]

    kelp("rm", "-v", "c")
    numbers = flocks()
    assert numbers
    for number in numbers:
        kelp("rm", "-v", "c")
        (place / "creates").unlink()
        creating, holds = held_at(kelp, maker, publishes, place / "creates", *create)
        sweeping, stays = held_at(kelp, sweeper, number, place / "sweeps", *sweep)
        os.close(holds)
        assert creating.wait(60) == 0, creating.stderr.read()
        if stays is not None:
            os.close(stays)
        (place / "sweeps").unlink()
        assert sweeping.wait(60) == 0, sweeping.stderr.read()
        assert kelp("start", "-a", "c").code == 0, f"held at flock {number}"
        assert len(kelp("volume", "ls", "-q").lines) == 1, f"held at flock {number}"


@pytest.mark.slow
def test_everything_at_once(bare_kelp, registry, place, seed):
    names = {}
    for name, layers in WANTED.items():
        layout = images.busybox_image([layer(part) for part in layers]).write_layout(place / name)
        names[name] = registry.push(f"oci:{layout}:latest", f"at-once/{name}:1")
    store = Store(bare_kelp, names, seed)
    workers = [threading.Thread(target=store.work, args=(number,)) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(store.counts)
    assert not store.problems, "\n".join(store.problems)
    for command in ("pull", "run", "rmi", "image prune", "system prune", "store gc", "store verify"):
        assert store.counts.get(f"{command} 0"), f"{command} never went well: {store.counts}"
    bare_kelp("store", "verify", "-q")
    bare_kelp("rm", "-a", "-f", "-t", "0")
    for name in WANTED:
        store.run(name, PLAIN)
    assert not store.problems, "\n".join(store.problems)
    # Nothing is left, but for the layer of kelp's own that mount points lie in.
    bare_kelp("image", "prune", "-a", "-f")
    for path in ("blobs/sha256", "partial", "containers", "names"):
        there = bare_kelp.store / path
        until(f"nothing in {path}", lambda: not [p for p in there.iterdir() if p.name != ".new"] if there.is_dir() else True)
    until("an empty trash", lambda: not list((bare_kelp.store / "trash").iterdir()))
    left = [path for path in (bare_kelp.store / "layers").iterdir() if path.name not in ("mount-points", "l")]
    assert not left and not list((bare_kelp.store / "layers/l").iterdir())
    assert not [path for path in (bare_kelp.store / "images").iterdir() if path.name != "names"]
    assert bare_kelp("store", "verify").text.startswith("0 images, 0 blobs")
