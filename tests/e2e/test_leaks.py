"""Nothing is left. Every test's teardown looks for processes, mounts, sockets, files; these make it hard on purpose."""

import json
import os
import signal
import subprocess
import time

import pytest

from harness import needs, processes
from harness.waiting import until

NONE = ("--network", "none")


def named(word):
    return [pid for pid, state, name in processes.descendants() if word in name and state != "Z"]


@pytest.mark.parametrize("network", ["none", "slirp4netns"])
def test_after_run_nothing_is_left_within_a_second(kelp, network):
    if network != "none":
        needs.need("tun")
    kelp("run", "--rm", "--network", network, "busybox", "true")
    assert processes.wait_gone(1) == []


def test_grandchildren_of_the_container_go_with_it(kelp):
    kelp("run", "--rm", *NONE, "busybox", "sh", "-c", "for n in 1 2 3; do (setsid sleep 1000 &) ; done; exit 0")
    assert processes.wait_gone(1) == []


def test_a_failed_start_leaves_nothing(kelp):
    kelp("run", "--rm", *NONE, "busybox", "no-such-command", code=127)
    kelp("run", "--rm", *NONE, "-w", "/etc/passwd/x", "busybox", "true", code=None)
    kelp("run", "--rm", *NONE, "-u", "no-such-user", "busybox", "true", code=None)
    assert kelp("ps", "-aq").text == ""


@pytest.mark.parametrize("victim", ["monitor", "slirp4netns", "sleep"])
def test_a_killed_helper_leaves_nothing(kelp, victim):
    needs.need("tun")
    kelp("run", "-d", "--name", "c", "busybox", "sleep", "1000")
    pids = named(victim)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    kelp("rm", "-f", "-t", "0", "c")
    assert processes.wait_gone(1) == []


def test_the_session_of_a_terminal_that_vanishes(kelp):
    terminal = kelp.terminal("run", "--rm", "-it", *NONE, "busybox", "sh")
    terminal.expect("# ")
    os.close(terminal.master)
    terminal.master = os.open("/dev/null", os.O_RDWR)
    until("the client is gone", lambda: terminal.poll() is not None, 10)


def test_inherited_descriptors_do_not_reach_the_container(kelp, place):
    secret = os.open(place, os.O_RDONLY)
    try:
        out = kelp("run", "--rm", *NONE, "busybox", "sh", "-c", "ls -l /proc/self/fd /proc/1/fd", pass_fds=(secret,)).out
    finally:
        os.close(secret)
    assert str(place) not in out


def test_the_monitor_holds_nothing_of_the_caller(kelp, place):
    directory = place / "held"
    directory.mkdir()
    kept = os.open(directory, os.O_RDONLY)
    try:
        kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100", pass_fds=(kept,), cwd=directory)
    finally:
        os.close(kept)
    for pid, _, _ in processes.descendants():
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            links.append(os.readlink(f"/proc/{pid}/cwd"))
        except OSError:
            continue
        assert str(directory) not in links


def test_detached_output_does_not_hold_the_callers_pipe(kelp):
    start = time.monotonic()
    done = subprocess.run(kelp.argv("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100"), env=kelp.env,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
    assert done.returncode == 0 and time.monotonic() - start < 20


def test_the_trash_is_emptied_while_nobody_calls(kelp):
    for _ in range(5):
        kelp("run", "--rm", *NONE, "busybox", "sh", "-c", "mkdir -m 0 /locked; mknod /f p; ln -s / /l")
    # A monitor and the next command may be at the same tree. Nobody else comes to end it.
    until("an empty trash", lambda: not any((kelp.store / "trash").iterdir()), 60)


@pytest.mark.slow
def test_a_hundred_idle_containers(kelp):
    count = 300 if os.environ.get("KELP_TEST_FULL") else 60
    children = []
    for n in range(count):
        children.append(kelp.start("run", "-d", "--name", f"c{n}", *NONE, "busybox", "sleep", "1000"))
        if len(children) >= 8:
            child = children.pop(0)
            assert child.wait(timeout=120) == 0, child.stderr.read()
    for child in children:
        assert child.wait(timeout=120) == 0, child.stderr.read()
    kelp.end_children()
    assert len(kelp("ps", "-q").lines) == count
    for pid in named("monitor")[:20]:
        text = open(f"/proc/{pid}/smaps_rollup").read()
        private = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))
        assert private < 100, f"{private} K private in monitor {pid}\n{text}"
    kelp("rm", "-f", "-a", "-t", "0", timeout=120)


@pytest.mark.parametrize("mounted", [False, True], ids=["nothing", "directory"])
def test_monitor_holds_no_mounts_of_the_host(kelp, place, mounted):
    """It holds the container's mount namespace a little longer, but not where somebody may wait to unmount what is in it."""
    options = ["-v", f"{place}:/in"] if mounted else []
    kelp("run", "-d", "--name", "c", *NONE, *options, "busybox", "sleep", "100")
    state = json.loads(next(kelp.run_dir.glob("*/state.json")).read_text())
    directory = f"/proc/{state['monitor_pid']}/fd"
    held = [os.readlink(f"{directory}/{fd}") for fd in os.listdir(directory)]
    assert any(link.startswith("mnt:[") for link in held) == (not mounted), held
