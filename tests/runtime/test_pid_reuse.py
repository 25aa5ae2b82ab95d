"""The container dies at any moment of a command, and its process number goes to somebody else at once: nothing that is meant
for the container reaches that one, and nothing runs outside of it.

The moments are the system calls of the command, in front of which a tracer holds it (tests/payload/kill_at.cc). The numbers
are chosen: in a pid namespace of the test's own, whose root may ask for one with the set_tid of clone3.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

import conftest
from harness import needs, programs
from harness.waiting import until

PIDFD_OPEN, CLONE3 = "434", "435"  # the same numbers everywhere
STEP = 1 if os.environ.get("KELP_TEST_FULL") == "1" else 3

# Process 1 of the namespace, which makes processes with wanted numbers. Whoever ends is gone at once, with the number.
FIRST = """
import ctypes, os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
libc = ctypes.CDLL(None, use_errno=True)
def clone(number):
    wanted = ctypes.c_int(number)
    arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
    made = libc.syscall(435, arguments, ctypes.sizeof(arguments))
    while made == 0:
        signal.pause()
    return made if made > 0 else -ctypes.get_errno()
def lives(number):
    try:
        os.kill(number, 0)
        return 1
    except ProcessLookupError:
        return 0
def end(number):
    os.kill(number, signal.SIGKILL)
    return 0
for line in sys.stdin:
    verb, number = line.split()
    print({"clone": clone, "lives": lives, "end": end}[verb](int(number)), flush=True)
"""


class Numbers(conftest.Nested):
    """As Nested, with a pid namespace of its own, whose first process is asked for numbers."""

    OPTIONS, JOIN = ("--pid", "--fork", "--mount-proc"), ("-p",)
    PROGRAM = ("/usr/bin/python3", "-c", FIRST)

    def _first(self):
        self.ask("lives", 1)  # it is there
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def ask(self, verb, number):
        self.process.stdin.write(f"{verb} {number}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture
def numbers():
    needs.need("userns")
    needs.need("subids")
    made = Numbers()
    yield made
    made.end()


@pytest.fixture
def oci(place, numbers):
    made = conftest.Runtime("kelp-oci-nested", place, numbers)
    # The same path is a program of the host, which says something else.
    (made.rootfs / "bin").mkdir()
    shutil.copy(made.rootfs / "probe", made.rootfs / "bin/echo")
    yield made
    made.end()


def open_for_writing(fifo):
    """None while nobody reads from it."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


class Traced:
    """A command of the runtime, held in front of its n-th system call; n = 0: not held at all."""

    def __init__(self, oci, n, words):
        self.log, self.fifo = oci.place / f"log{n}", oci.place / f"fifo{n}"
        os.mkfifo(self.fifo)
        at = len(oci.nested.prefix())
        argv = [*oci.base[:at], programs.payload("kill_at"), str(self.log), str(n), *oci.base[at:], *words]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env={**oci.env, "KILL_AT_HOLD": str(self.fifo)}, cwd=oci.bundle)
        oci.processes.append(self.process)

    def held(self):
        """A descriptor that holds it there; None when it has ended before."""
        return until("the system call", lambda: open_for_writing(self.fifo) or (self.process.poll() is not None and -1))

    def ended(self):
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


COMMANDS = {"kill": ("kill", "ID", "KILL"), "kill-all": ("kill", "--all", "ID", "KILL"), "delete": ("delete", "--force", "ID"),
            "exec": ("exec", "ID", "/bin/echo", "echo", "inside")}


@pytest.mark.parametrize("command", COMMANDS)
def test_number_of_the_container_goes_to_another(oci, numbers, command):
    def container(id):
        oci.create("wait", id=id)
        oci.start(id)
        return oci.state(id)["pid"]

    def words(id):
        return [id if word == "ID" else word for word in COMMANDS[command]]

    container("c")
    whole = Traced(oci, 0, words("c"))
    code, out, err = whole.ended()
    assert code == 0, err
    calls = whole.log.read_text().split()
    first = calls.index(PIDFD_OPEN)
    # A process of exec's in the container keeps the number taken, until exec has reaped it.
    last = calls.index(CLONE3) + 1 if CLONE3 in calls else len(calls)
    tried = 0
    for n in range(first, last + 1, STEP):
        id = f"c{n}"
        pid = container(id)
        traced = Traced(oci, n, words(id))
        holding = traced.held()
        if holding < 0:
            break
        try:
            if numbers.ask("lives", pid):  # where the command has not killed it yet
                numbers.ask("end", pid)
            until("its end", lambda: not numbers.ask("lives", pid))
            # The number is free a moment after its process is gone.
            until("its number", lambda: numbers.ask("clone", pid) == pid)
        finally:
            os.close(holding)
        code, out, err = traced.ended()
        assert numbers.ask("lives", pid), f"call {n} of {len(calls)}: the other process was hit; {err}"
        assert out in ("", "inside\n"), f"call {n} of {len(calls)}: it ran outside: {out}"
        numbers.ask("end", pid)
        oci("delete", "--force", id)
        tried += 1
    assert tried > 3, calls
