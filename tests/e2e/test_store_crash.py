"""The store under fire: killed at system calls, killed at random, its disk filled. Afterwards `kelp store verify` finds
nothing (or one --repair mends it), and what was committed before is there."""

import hashlib
import os
import signal
import time

import pytest

from harness import images, processes
from harness.images import Image, LayerTar
from harness.waiting import until
from test_crash import NONE, Tracer, _settle, seed, sweep  # noqa: F401

PLAIN = "--tls-verify=false"
FULL = bool(os.environ.get("KELP_TEST_FULL"))
SECONDS = 25


def sampled(seed):
    return None if FULL else (seed, SECONDS)


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

    sweep(Tracer(kelp, place, program), ("load", "-q", "-i", archive), after, sample=sampled(seed))


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

    sweep(tracer, command, after, sample=sampled(seed))


@pytest.mark.slow
@pytest.mark.parametrize("program", ["kelp", "kelp-image"])
def test_pull_killed_at_system_calls(kelp, held, place, seed, program, registry):
    name = registry.push(f"oci:{small().write_layout(place / 'l', 'x')}:x", f"swept-{program}:1")

    def after(result):
        check(kelp, held)
        kelp("pull", "-q", PLAIN, name)
        kelp("image", "exists", name)
        kelp("rmi", "-f", name)

    sweep(Tracer(kelp, place, program), ("pull", "-q", PLAIN, name), after, sample=sampled(seed))


@pytest.mark.slow
@pytest.mark.parametrize("program", ["kelp", "kelp-image"])
def test_commit_killed_at_system_calls(kelp, held, place, seed, program):
    kelp("run", "--name", "changed", *NONE, "busybox", "sh", "-c", "echo kept > /kept; mkdir /d; ln -s kept /d/l; rm /etc/passwd")

    def after(result):
        check(kelp, held)
        kelp("commit", "-q", "changed", "localhost/victim:1")
        assert kelp("run", "--rm", *NONE, "victim:1", "cat", "/kept").text == "kept"
        kelp("rmi", "-f", "victim:1")

    sweep(Tracer(kelp, place, program), ("commit", "-q", "changed", "localhost/victim:1"), after, sample=sampled(seed))


LARGE = "localhost/random:1"


def large():
    layers = [LayerTar().directory(f"l{n}") for n in range(4)]
    for n, layer in enumerate(layers):
        for k in range(200):
            layer.file(f"l{n}/{k}", noise(f"{n} {k}", 20_000))
    return Image(layers)


class LargeWork:
    """One command that moves megabytes: before() makes it possible, after() says that it can be had in the end."""

    def __init__(self, kelp, kind, place, registry):
        self.kelp, self.kind, name = kelp, kind, LARGE
        if kind == "pull":
            name = registry.push(f"oci:{large().write_layout(place / 'l', 'x')}:x", "random:1")
        elif kind == "commit":
            kelp("run", "--name", "changed", *NONE, "busybox", "sh", "-c",
                 "mkdir /new; for i in $(seq 600); do head -c 20000 /dev/urandom > /new/$i; done")
        else:
            self.archive = large().write_archive(place / "a.tar", name)
        self.name = name
        self.command = {"pull": ("pull", "-q", PLAIN, name), "load": ("load", "-q", "-i", getattr(self, "archive", "")),
                        "commit": ("commit", "-q", "changed", name), "rmi": ("rmi", "-f", name),
                        "prune": ("image", "prune", "-a", "-f")}[kind]

    def before(self):
        if self.kind in ("rmi", "prune"):
            self.kelp("load", "-q", "-i", self.archive)
        else:
            self.kelp("rmi", "-f", self.name, code=None)

    def after(self):
        self.kelp(*self.command)
        self.kelp("image", "exists", self.name, code=1 if self.kind in ("rmi", "prune") else 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pull", "load", "commit", "rmi", "prune"])
def test_large_work_killed_at_random(kelp, held, place, seed, registry, kind):
    """Whichever process is hit, in the middle of megabytes. What was there before stays."""
    work = LargeWork(kelp, kind, place, registry)
    kelp("load", "-q", "-i", small("keeper").write_archive(place / "k.tar", "localhost/keeper:1"))
    kelp("create", "--name", "keeps", "keeper:1")
    work.before()
    start = time.monotonic()
    kelp(*work.command)
    span = time.monotonic() - start
    end, hits = time.monotonic() + SECONDS / 2, {}
    for _ in range(300):
        if not FULL and time.monotonic() > end and sum(hits.values()) >= 3:
            break
        work.before()
        child = kelp.start(*work.command)
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
        kelp("image", "exists", "keeper:1")
    work.before()
    work.after()
    sound(kelp)
    print(f"killed: {hits}")
    assert sum(hits.values()) >= 3


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
@pytest.mark.parametrize("kind", ["pull", "load", "commit"])
def test_a_full_disk_while_images_come(bare_kelp, disk, place, registry, kind):
    image = Image([LayerTar().directory("d").file("d/a", noise("a", 1 << 20)), LayerTar().file("b", noise("b", 200_000))])
    name = registry.push(f"oci:{image.write_layout(place / 'l', 'x')}:x", f"full-{kind}:1")
    archive = image.write_archive(place / "a.tar", name)
    command = {"pull": ("pull", "-q", PLAIN, name), "load": ("load", "-q", "-i", archive),
               "commit": ("commit", "-q", "changed", name)}[kind]
    if kind == "commit":
        bare_kelp("run", "--name", "changed", *NONE, "busybox", "sh", "-c", "head -c 1300000 /dev/urandom > /new")
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
@pytest.mark.parametrize("command", [("rmi", "victim:1"), ("image", "prune", "-a", "-f"), ("system", "prune", "-a", "-f")],
                         ids=["rmi", "image-prune", "system-prune"])
def test_removing_on_a_full_disk(bare_kelp, disk, place, command):
    archive = small().write_archive(place / "a.tar", "localhost/victim:1")
    bare_kelp("create", "--name", "user", "busybox")  # prune leaves its image
    points = range(0, 50 * 4096, 4096) if FULL else (0, 4096, 8192, 65536)
    if command[0] == "system":
        bare_kelp("run", "-d", "--name", "runs", *NONE, "busybox", "sleep", "10000")  # or its container would be pruned
    for free in points:
        bare_kelp("load", "-q", "-i", archive)
        # What an earlier command has left to clear away in the background may go while the disk is filled.
        until("a full disk", lambda: disk.leave(free) or disk.free() <= free, 60)
        bare_kelp(*command)
        disk.empty()
        sound(bare_kelp)
        bare_kelp("image", "exists", "victim:1", code=1)
