"""Death at any moment: each program is killed at its system calls and at random moments; the next commands work, nothing
stays stuck, nothing committed is lost.

A kill at the N-th system call comes from tests/payload/kill_at.cc, a detached tracer of the one program (a traced
newuidmap would have no privilege, so a container that runs beside holds the user namespace). The seed of the random
moments is printed and can be set: KELP_TEST_SEED.
"""

import os
import random
import signal
import time

import pytest

from harness import images, leaks, needs, processes, programs, waiting

NONE = ("--network", "none")


@pytest.fixture
def seed():
    value = int(os.environ.get("KELP_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"KELP_TEST_SEED={value}")
    return random.Random(value)


class Tracer:
    """Puts kill_at around one program, by a script beside links to the others in a directory of its own. traces_only:
    the calls that count are those that can leave something behind (tests/payload/system_calls.h says which, and why)."""

    def __init__(self, kelp, place, program, traces_only=False):
        self.program, self.log, self.traces_only = program, place / "calls.log", traces_only
        self.dir = place / "programs"
        self.dir.mkdir()
        for name in ("kelp", "kelp-oci", "kelp-monitor", "kelp-image"):
            (self.dir / name).symlink_to(programs.program(name))
        self.real = programs.program(program) if program.startswith("kelp") else needs.find_program(program)
        self.script = self.dir / program
        self.env = {"KELP_LIBEXEC": str(self.dir), "PATH": f"{self.dir}:{kelp.env['PATH']}"}
        self.kelp = kelp

    def at(self, number):
        """The path of a script that is the program, with something to happen at its system call of that number."""
        self.log.unlink(missing_ok=True)
        self.script.unlink(missing_ok=True)
        self.script.write_text(f'#!/bin/sh\nexec {programs.payload("kill_at")} {self.log} {number} {self.real} "$@"\n')
        self.script.chmod(0o755)
        return str(self.script)

    def run(self, *args, kill_at=0, victim=None, timeout=60):
        """The command, its program (or another process) killed as it enters its system call number kill_at (from 1; 0:
        never)."""
        script, path = self.at(kill_at), self.kelp.path
        if self.program == "kelp":
            self.kelp.path = script
        try:
            return self.kelp(*args, code=None, timeout=timeout,
                             env=self.env | ({"KILL_AT_VICTIM": str(victim)} if victim else {})
                             | ({"KILL_AT_TRACES": "1"} if self.traces_only else {}))
        finally:
            self.kelp.path = path

    def made(self):
        """How many system calls the program has entered in the last command, of those that count."""
        return sum(not call.startswith("-") for call in self.names())

    def names(self):
        """The log of the last command, as kill_at.cc has it."""
        return self.log.read_text().split() if self.log.exists() else []

    def calls(self, *args):
        """How many system calls the program makes in the command when nobody kills it."""
        result = self.run(*args)
        assert result.code == 0, result
        # A monitor outlives its command by some milliseconds, traced on a busy machine by more.
        end, before = time.monotonic() + 10, -1
        while self.made() != before and time.monotonic() < end:
            before = self.made()
            time.sleep(0.3)
        assert len(self.names()) > 20, "the program was not traced"
        unknown = {call for call in self.names() if call.startswith("?")}
        if unknown:
            print(f"system calls that tests/payload/system_calls.h does not know, and which count: {unknown}")
        return before


def sweep(tracer, command, after, part=0, parts=1):
    """Kills the program at each of its system calls that count in turn; after(result) looks at what is left. Of several
    parts, which run beside each other, each takes its share of the calls."""
    count, all_of_them = tracer.calls(*command), len(tracer.names())
    numbers, tries, killed = list(range(part, count, parts)), 0, 0
    for number in numbers:
        result = tracer.run(*command, kill_at=number + 1)
        try:
            after(result)
        except AssertionError as error:
            raise AssertionError(f"{tracer.program} was killed at system call {number + 1} of {count}:\n{result}\n{error}") \
                from None
        # The last calls of one run are not always made in another.
        tries, killed = tries + 1, killed + (tracer.made() == number + 1)
    print(f"{tracer.program}: killed at {killed} of {count} system calls ({all_of_them} with those that leave nothing), "
          f"{tries} tried, part {part + 1} of {parts}")
    assert killed >= min(len(numbers), 10) and killed >= tries * 0.7


def names_of(kelp):
    return set(kelp("ps", "-a", "--format", "{{.Names}}").lines)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["kelp", "kelp-oci", "kelp-monitor", "slirp4netns"])
def test_run_killed_at_system_calls(kelp, place, program):
    if program == "slirp4netns":
        needs.need("tun")
    network = () if program == "slirp4netns" else NONE
    kelp("run", "-d", "--name", "holder", *NONE, "busybox", "sleep", "10000")
    held = {pid for pid, _, _ in processes.descendants()}

    def after(result):
        kelp("rm", "-f", "-t", "0", "--ignore", "victim", timeout=20)
        left = _settle(held)
        assert not left, "left: " + ", ".join(processes.describe(p[0]) for p in left)
        assert names_of(kelp) == {"holder"}
        assert kelp("run", "--rm", "--name", "victim", *NONE, "busybox", "echo", "well").text == "well"
        others = leaks.lasting_leftovers(kelp, accepted=(kelp_id(kelp), "/names/holder"))
        assert not others, "\n".join(others)

    sweep(Tracer(kelp, place, program), ("run", "--rm", "--name", "victim", *network, "busybox", "true"), after)


def kelp_id(kelp):
    if not hasattr(kelp, "holder"):
        kelp.holder = kelp("inspect", "--format", "{{.Id}}", "holder").text
    return kelp.holder


def _settle(held, seconds=1.5):
    limit = waiting.Limit(seconds)
    while True:
        processes.reap_orphans()
        left = [p for p in processes.descendants() if p[1] != "Z" and p[0] not in held]
        if not left or limit.over():
            return left
        time.sleep(0.01)


@pytest.mark.slow
def test_holder_of_the_user_namespace_killed_at_system_calls(kelp, place):
    """The only other container ends, and with it the user namespace that kelp has seen or is just joining: a new one is
    made, and the start goes well."""
    tracer, command = Tracer(kelp, place, "kelp"), ("run", "--rm", *NONE, "busybox", "echo", "well")
    kelp("run", "-d", "--name", "holder", *NONE, "busybox", "sleep", "10000")
    count, killed = tracer.calls(*command), 0
    for number in range(count):
        (holder,) = [pid for pid, state, name in processes.descendants() if name == "kelp-monitor" and state != "Z"]
        result = tracer.run(*command, kill_at=number + 1, victim=holder)
        assert result.code == 0 and result.text == "well", f"killed at system call {number + 1} of {count}:\n{result}"
        left = _settle(set())
        alive = any(pid == holder for pid, _, _ in left)  # when kelp has made fewer calls than the time before
        assert alive or not left, "left: " + ", ".join(processes.describe(p[0]) for p in left)
        if not alive:
            killed += 1
            kelp("rm", "-f", "holder")
            kelp("run", "-d", "--name", "holder", *NONE, "busybox", "sleep", "10000")
    print(f"the holder was killed at {killed} of {count} system calls")
    assert killed >= count * 0.7


def _all_is_well(kelp, name):
    """Containers run and images come and go; with that what killed ones left is swept up."""
    assert kelp("run", "--rm", *NONE, "busybox", "echo", "well").text == "well"
    kelp("pull", "-q", "--tls-verify=false", name)
    assert kelp("run", "--rm", *NONE, name, "sh", "-c", "wc -c < /d/random").text == "2000000"
    kelp("rmi", name)
    kelp("create", "--name", "last", *NONE, "busybox")
    kelp("rm", "last")  # what a monitor leaves that is killed while it cleans up stays until the next command
    assert leaks.lasting_leftovers(kelp) == []


KILLS, PARTS = 500, 5  # in parts, which run beside each other


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_random_moments(kelp, place, seed, registry, part):
    """From idle, so that the making of the user namespace is hit too; any process that has to do with it, newuidmap and
    the container's own as well. A moment that comes when all has ended does not count."""
    needs.need("tun")
    image = images.busybox_image([images.LayerTar().directory("d").file("d/random", os.urandom(2_000_000))])
    name = registry.push(f"oci:{image.write_layout(place / 'l', 'x')}:x", f"random:{part}")
    run = ("run", "--rm", "--name", "victim")
    commands = [(*run, *NONE, "busybox", "true"), (*run, "busybox", "true"), ("pull", "-q", "--tls-verify=false", name)]
    spans = []
    for command in commands:
        start = time.monotonic()
        kelp(*command)
        spans.append(time.monotonic() - start)
    kelp("rmi", name)

    hits, number = {}, 0
    while sum(hits.values()) < KILLS // PARTS:
        assert number < 3 * KILLS // PARTS, f"too few moments hit: {hits}"
        which = number % len(commands)
        child = kelp.start(*commands[which])
        time.sleep(seed.random() * spans[which])
        alive = [(pid, name) for pid, state, name in processes.descendants() if state != "Z"]
        if alive:
            seed.shuffle(alive)  # then the program that was hit least, so that all of them are
            pid, victim = min(alive, key=lambda process: hits.get(process[1], 0))
            try:
                os.kill(pid, signal.SIGKILL)
                hits[victim] = hits.get(victim, 0) + 1
            except (ProcessLookupError, PermissionError):
                pass
        child.wait(timeout=60)
        kelp.end_children()
        kelp("rm", "-f", "-t", "0", "--ignore", "victim", timeout=60)
        left = processes.wait_gone(5)
        assert not left, f"kill {number}: left " + ", ".join(processes.describe(p[0]) for p in left)
        number += 1
        if number % 12 == 0:
            _all_is_well(kelp, name)
    _all_is_well(kelp, name)
    print(f"killed {sum(hits.values())} times in {number} tries: {hits}")
    assert len(hits) >= 3
