"""The store under fire: killed at system calls, killed at random, its disk filled. Afterwards `kelp store verify` finds
nothing (or one --repair mends it), and what was committed before is there."""

import hashlib
import os
import signal
import time

import pytest

from harness import images, processes
from harness.images import Image, LayerTar
from test_crash import FULL, NONE, SECONDS, Tracer, _settle, seed, sweep  # noqa: F401

PLAIN = "--tls-verify=false"


def noise(text, size):
    return b"".join(hashlib.sha256(f"{text}{n}".encode()).digest() for n in range(size // 32 + 1))[:size]


def small(text="x"):
    return Image([LayerTar().directory("d").file("d/a", noise(text, 3000)).symlink("d/l", "a"),
                  LayerTar().whiteout("d/l").file("d/b", text)], {"Cmd": ["/x"]})


def sound(kelp):
    """The store is in order, or one repair makes it so; the image of the beginning runs."""
    result = kelp("store", "verify", "-q", code=None)
    if result.code != 0:
        kelp("store", "verify", "-q", "--repair")
        kelp("store", "verify", "-q")
    assert kelp("run", "--rm", *NONE, "busybox", "echo", "well").text == "well"


@pytest.fixture
def held(kelp):
    """A container that holds the user namespace, for a traced program cannot make one."""
    kelp("run", "-d", "--name", "holder", *NONE, "busybox", "sleep", "10000")
    return {pid for pid, _, _ in processes.descendants()}


def check(kelp, held):
    left = _settle(held, 5)
    assert not left, "left: " + ", ".join(processes.describe(p[0]) for p in left)
    sound(kelp)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["kelp", "kelp-image"])
def test_load_killed_at_system_calls(kelp, held, place, seed, program):
    archive = small().write_archive(place / "a.tar", "localhost/victim:1")

    def after(result):
        check(kelp, held)
        kelp("load", "-q", "-i", archive)
        kelp("image", "exists", "victim:1")
        kelp("rmi", "-f", "victim:1")

    sweep(Tracer(kelp, place, program), seed, ("load", "-q", "-i", archive), after)


@pytest.mark.slow
@pytest.mark.parametrize("command", [("rmi", "victim:1"), ("image", "prune", "-f", "-a"), ("system", "prune", "-f", "-a"),
                                     ("store", "gc"), ("tag", "victim:1", "other:1")],
                         ids=["rmi", "image-prune", "system-prune", "gc", "tag"])
def test_changes_killed_at_system_calls(kelp, held, place, seed, command):
    archive = small().write_archive(place / "a.tar", "localhost/victim:1")
    tracer = Tracer(kelp, place, "kelp")
    kelp("load", "-q", "-i", archive)

    def after(result):
        check(kelp, held)
        kelp(*command, code=None)
        sound(kelp)
        kelp("load", "-q", "-i", archive)

    sweep(tracer, seed, command, after)


@pytest.mark.slow
def test_large_pulls_killed_at_random(kelp, held, place, seed, registry):
    """Whichever process is hit, in the middle of megabytes."""
    layers = [LayerTar().directory(f"l{n}") for n in range(4)]
    for n, layer in enumerate(layers):
        for k in range(200):
            layer.file(f"l{n}/{k}", noise(f"{n} {k}", 20_000))
    name = registry.push(f"oci:{Image(layers).write_layout(place / 'l', 'x')}:x", "random:1")
    start = time.monotonic()
    kelp("pull", "-q", PLAIN, name)
    span = time.monotonic() - start
    end, hits = time.monotonic() + SECONDS, {}
    for number in range(300):
        if not FULL and time.monotonic() > end:
            break
        kelp("rmi", "-f", name, code=None)
        child = kelp.start("pull", "-q", PLAIN, name)
        time.sleep(seed.random() * span)
        alive = [(pid, what) for pid, state, what in processes.descendants() if state != "Z" and pid not in held]
        if alive:
            pid, what = seed.choice(alive)
            try:
                os.kill(pid, signal.SIGKILL)
                hits[what] = hits.get(what, 0) + 1
            except (ProcessLookupError, PermissionError):
                pass
        child.wait(timeout=60)
        kelp.end_children()
        check(kelp, held)
    kelp("pull", "-q", PLAIN, name)
    sound(kelp)
    print(f"killed: {hits}")
    assert sum(hits.values()) >= 5


# A full disk


class Disk:
    """A small file system under the store, of which so many bytes can be left free."""

    def __init__(self, kelp, agent, size):
        self.path, self.agent, self.size = str(kelp.data), agent, size
        agent("mount", path=self.path, size=str(size))

    def leave(self, free):
        self.empty()
        info = os.statvfs(self.path)
        fill = info.f_bavail * info.f_frsize - free
        if fill > 0:
            with open(self.path + "/filler", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, fill)

    def free(self):
        info = os.statvfs(self.path)
        return info.f_bavail * info.f_frsize

    def empty(self):
        try:
            os.unlink(self.path + "/filler")
        except FileNotFoundError:
            pass

    def end(self):
        self.empty()
        self.agent("unmount", path=self.path)


@pytest.fixture
def disk(bare_kelp, agent, busybox_archive):
    made = Disk(bare_kelp, agent, 40 << 20)
    bare_kelp("load", "-q", "-i", busybox_archive)
    yield made
    made.empty()
    bare_kelp("rm", "-a", "-f", "-t", "0")
    time.sleep(0.2)  # the background sync of the last command has the store open
    for _ in range(50):
        try:
            return made.end()
        except AssertionError:
            time.sleep(0.1)
    made.end()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pull", "load"])
def test_a_full_disk_while_images_come(bare_kelp, disk, place, registry, kind):
    image = Image([LayerTar().directory("d").file("d/a", noise("a", 1 << 20)), LayerTar().file("b", noise("b", 200_000))])
    name = registry.push(f"oci:{image.write_layout(place / 'l', 'x')}:x", f"full-{kind}:1")
    archive = image.write_archive(place / "a.tar", name)
    command = ("pull", "-q", PLAIN, name) if kind == "pull" else ("load", "-q", "-i", archive)
    before = disk.free()
    bare_kelp(*command)
    needed = before - disk.free()
    bare_kelp("rmi", name)
    points = 50 if FULL else 8
    failed = 0
    for point in range(points):
        disk.leave(needed * point // points)
        result = bare_kelp(*command, code=None)
        assert result.code in (0, 125), result
        if result.code:
            failed += 1
            assert "space" in result.err or "free" in result.err, result
            assert bare_kelp("image", "exists", name, code=None).code == 1
        disk.empty()
        sound(bare_kelp)
        bare_kelp(*command)
        sound(bare_kelp)
        bare_kelp("rmi", name)
        bare_kelp("store", "gc")
    assert failed >= points // 2


@pytest.mark.slow
def test_removing_on_a_full_disk(bare_kelp, disk, place):
    archive = small().write_archive(place / "a.tar", "localhost/victim:1")
    for free in (0, 4096, 8192, 65536):
        bare_kelp("load", "-q", "-i", archive)
        disk.leave(free)
        assert disk.free() <= free
        bare_kelp("rmi", "victim:1")
        disk.empty()
        sound(bare_kelp)
        bare_kelp("image", "exists", "victim:1", code=1)
