"""The store under fire: killed at system calls, killed at random, its disk filled. Afterwards `kelp store verify` finds
nothing (or one --repair mends it), and what was committed before is there."""

import hashlib
import os
import pathlib
import signal
import tempfile
import time

import pytest

from harness import images, leaks, processes
from harness.images import Image, LayerTar
from harness.waiting import until
from test_crash import NONE, Tracer, _settle, kelp_id, seed, sweep  # noqa: F401

PLAIN = "--tls-verify=false"
FULL = bool(os.environ.get("KELP_TEST_FULL"))
VICTIM = "localhost/victim:1"


@pytest.fixture
def place(request):
    """In memory where there is room: a killed process loses nothing that it has written, so nobody need wait for a disk.
    (The tests of a full disk mount their own, which is in memory, too.)"""
    memory = "/dev/shm"
    free = os.statvfs(memory) if os.path.isdir(memory) and "disk" not in request.fixturenames else None
    roomy = free is not None and free.f_bavail * free.f_frsize > 1 << 30
    path = pathlib.Path(tempfile.mkdtemp(prefix="kt-", dir=memory if roomy else "/tmp"))
    yield path
    leaks.remove_tree(path)


def noise(text, size):
    return b"".join(hashlib.sha256(f"{text}{n}".encode()).digest() for n in range(size // 32 + 1))[:size]


def small(text="x"):
    """Two layers of its own above busybox's."""
    return images.busybox_image([LayerTar().directory("d").file("d/a", noise(text, 3000)).symlink("d/l", "a"),
                                 LayerTar().whiteout("d/l").file("d/b", text)])


def sound(kelp):
    """The store is in order, or one repair makes it so."""
    result = kelp("store", "verify", "-q", code=None)
    if result.code != 0:
        kelp("store", "verify", "-q", "--repair")
        kelp("store", "verify", "-q")


def works(kelp):
    """And the image of the beginning runs."""
    sound(kelp)
    assert kelp("run", "--rm", *NONE, "busybox", "echo", "well").text == "well"


@pytest.fixture
def held(kelp):
    """A container that holds the user namespace, for a traced program cannot make one. Its processes' numbers."""
    kelp("run", "-d", "--name", "holder", *NONE, "busybox", "sleep", "10000")
    return {pid for pid, _, _ in processes.descendants()}


def ended(held):
    left = _settle(held, 5)
    assert not left, "left: " + ", ".join(processes.describe(p[0]) for p in left)


def tracer(kelp, place, program):
    return Tracer(kelp, place, program, traces_only=not FULL)


def swept(parts):
    """Each program's sweep, in so many parts."""
    return pytest.mark.parametrize("program, part, parts", [(name, part, of) for name, of in parts.items() for part in range(of)])


def brought(kelp, held, command, name, look, says):
    """What is done after each kill of a command that brings an image: what was there is there, the command can be given
    again, and then the whole image is there. It is taken away for the next try, with all that was left."""
    def after(result):
        ended(held)
        sound(kelp)
        kelp(*command)
        assert kelp("run", "--rm", *NONE, name, "sh", "-c", look).text == says
        kelp("rmi", "-f", name)
        left = leaks.lasting_leftovers(kelp, accepted=(kelp_id(kelp), "/names/holder"), seconds=5)
        assert not left, "\n".join(left)

    return after


SMALL = ("ls /d; wc -c < /d/a; cat /d/b", "a\nb\n3000\nx")


@pytest.mark.slow
@swept({"kelp": 1, "kelp-image": 2})
def test_load_killed_at_system_calls(kelp, held, place, program, part, parts):
    command = ("load", "-q", "-i", small().write_archive(place / "a.tar", VICTIM))
    sweep(tracer(kelp, place, program), command, brought(kelp, held, command, VICTIM, *SMALL), part, parts)


@pytest.mark.slow
@swept({"kelp": 1, "kelp-image": 2})
def test_pull_killed_at_system_calls(kelp, held, place, registry, program, part, parts):
    name = registry.push(f"oci:{small().write_layout(place / 'l', 'x')}:x", f"swept-{program}-{part}:1")
    command = ("pull", "-q", PLAIN, name)
    sweep(tracer(kelp, place, program), command, brought(kelp, held, command, name, *SMALL), part, parts)


@pytest.mark.slow
@swept({"kelp": 1, "kelp-image": 1})
def test_commit_killed_at_system_calls(kelp, held, place, program, part, parts):
    kelp("run", "--name", "changed", *NONE, "busybox", "sh", "-c", "echo kept > /kept; mkdir /d; ln -s kept /d/l; rm /etc/passwd")
    command = ("commit", "-q", "changed", VICTIM)
    changed = kelp("inspect", "--format", "{{.Id}}", "changed").text

    def after(result):
        ended(held)
        sound(kelp)
        kelp(*command)
        look = "cat /d/../kept; readlink /d/l; test -e /etc/passwd || echo gone"
        assert kelp("run", "--rm", *NONE, VICTIM, "sh", "-c", look).text == "kept\nkept\ngone"
        kelp("rmi", "-f", VICTIM)
        left = leaks.lasting_leftovers(kelp, accepted=(kelp_id(kelp), "/names/", changed), seconds=5)
        assert not left, "\n".join(left)

    sweep(tracer(kelp, place, program), command, after, part, parts)


@pytest.mark.slow
@pytest.mark.parametrize("command", [("rmi", "victim:1"), ("image", "prune", "-f", "-a"), ("system", "prune", "-f", "-a"),
                                     ("store", "gc"), ("tag", "victim:1", "other:1")],
                         ids=["rmi", "image-prune", "system-prune", "gc", "tag"])
def test_changes_killed_at_system_calls(kelp, held, place, command):
    archive, takes_away = small().write_archive(place / "a.tar", VICTIM), "prune" in command or "rmi" in command
    kelp("load", "-q", "-i", archive)

    def after(result):
        assert result.code in (0, 137, -9), "it was not killed, and yet went wrong"
        ended(held)
        works(kelp)
        again = kelp(*command, code=None)
        # A name may be gone already.
        assert again.code == 0 or command[0] == "rmi" and again.code == 1 and "image not known" in again.err, again
        kelp("image", "exists", VICTIM, code=1 if takes_away else 0)
        if command[0] == "tag":
            kelp("rmi", "other:1")
        kelp("load", "-q", "-i", archive)
        assert kelp("run", "--rm", *NONE, VICTIM, "sh", "-c", SMALL[0]).text == SMALL[1]

    sweep(tracer(kelp, place, "kelp"), command, after)


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


RANDOM_KILLS = 300  # of all kinds together; KELP_TEST_FULL: of each
KINDS = ("pull", "load", "commit", "rmi", "prune")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_large_work_killed_at_random(kelp, held, place, seed, registry, kind):
    """Whichever process is hit, in the middle of megabytes. What was there before stays. A moment that comes when all
    has ended does not count."""
    work = LargeWork(kelp, kind, place, registry)
    kelp("load", "-q", "-i", small("keeper").write_archive(place / "k.tar", "localhost/keeper:1"))
    kelp("create", "--name", "keeps", "keeper:1")
    work.before()
    start = time.monotonic()
    kelp(*work.command)
    span = time.monotonic() - start
    wanted, tries, hits = RANDOM_KILLS if FULL else RANDOM_KILLS // len(KINDS), 0, {}
    while sum(hits.values()) < wanted:
        tries += 1
        assert tries < 4 * wanted, f"too few moments hit: {hits}"
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
        ended(held)
        sound(kelp)
        kelp("image", "exists", "keeper:1")
    work.before()
    work.after()
    works(kelp)
    print(f"killed {sum(hits.values())} times in {tries} tries: {hits}")


# A full disk

POINTS = 50  # of how much is left


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
    failed = 0
    for point in range(POINTS):
        disk.leave(needed * point // POINTS)
        result = bare_kelp(*command, code=None)
        assert result.code in (0, 125), result
        if result.code:
            failed += 1
            assert "space" in result.err or "free" in result.err, result
            assert bare_kelp("image", "exists", name, code=None).code == 1
        disk.empty()
        sound(bare_kelp)
        bare_kelp(*command)
        bare_kelp("rmi", name)
        bare_kelp("store", "gc")
    works(bare_kelp)
    assert failed >= POINTS // 2


@pytest.mark.slow
@pytest.mark.parametrize("command", [("rmi", "victim:1"), ("image", "prune", "-a", "-f"), ("system", "prune", "-a", "-f")],
                         ids=["rmi", "image-prune", "system-prune"])
def test_removing_on_a_full_disk(bare_kelp, disk, place, command):
    archive = small().write_archive(place / "a.tar", "localhost/victim:1")
    bare_kelp("create", "--name", "user", "busybox")  # prune leaves its image
    if command[0] == "system":
        bare_kelp("run", "-d", "--name", "runs", *NONE, "busybox", "sleep", "10000")  # or its container would be pruned
    for free in range(0, POINTS * 4096, 4096):
        bare_kelp("load", "-q", "-i", archive)
        # What an earlier command has left to clear away in the background may go while the disk is filled.
        until("a full disk", lambda: disk.leave(free) or disk.free() <= free, 60)
        bare_kelp(*command)
        disk.empty()
        sound(bare_kelp)
        bare_kelp("image", "exists", "victim:1", code=1)
    works(bare_kelp)
