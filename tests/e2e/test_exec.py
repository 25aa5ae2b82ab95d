"""kelp exec: another process in a running container, with nothing recorded and nothing left."""

import json
import os
import re
import subprocess
import time

import pytest

from harness import needs, waiting

NONE = ("--network", "none")


@pytest.fixture
def one(kelp):
    kelp("run", "-d", "--name", "one", *NONE, "-e", "FROM=run", "--label", "x=y", "busybox", "sleep", "1000")
    return kelp


def test_output_and_exit_status(one):
    result = one("exec", "one", "sh", "-c", "echo out; echo err >&2; exit 6", code=6)
    assert (result.out, result.err) == ("out\n", "err\n")


def test_not_found_and_not_executable(one):
    one("exec", "one", "no-such-command", code=127)
    one("exec", "one", "/etc/passwd", code=126)


def test_stdin(one):
    assert one("exec", "-i", "one", "cat", stdin="through\n").out == "through\n"
    assert one("exec", "one", "cat", stdin="not read").out == ""


def test_environment_user_workdir(one):
    needs.need("subids")
    out = one("exec", "-e", "MORE=exec", "-u", "app", "-w", "/home/app", "one", "sh", "-c",
              "echo $FROM $MORE $(id -un) $PWD").text
    assert out == "run exec app /home/app"


def test_it_is_in_all_namespaces_of_the_container(one):
    names = ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup")
    show = "for n in " + " ".join(names) + "; do readlink /proc/%s/ns/$n; done"
    assert one("exec", "one", "sh", "-c", show % "1").lines == one("exec", "one", "sh", "-c", show % "self").lines


def test_it_has_the_containers_limits_on_privilege(one):
    status = "grep -E '^(CapEff|CapBnd|Seccomp|NoNewPrivs):' /proc/%s/status"
    assert one("exec", "one", "sh", "-c", status % "1").out == one("exec", "one", "sh", "-c", status % "self").out


def test_privileged_exec(one):
    out = one("exec", "--privileged", "one", "grep", "CapEff", "/proc/self/status").out
    assert int(out.split()[1], 16) & 1 << 21


def test_a_terminal(one):
    terminal = one.terminal("exec", "-it", "one", "sh", size=(33, 99))
    terminal.expect("# ")
    terminal.type("tty; stty size; exit 4\n")
    terminal.expect("/dev/pts/\\d+\r\n33 99")
    assert terminal.wait() == 4


def test_detached(one):
    session = one("exec", "-d", "one", "sh", "-c", "echo there > /tmp/mark; sleep 1000").text
    assert re.fullmatch("[0-9a-f]{64}", session)
    event = one("events", "--stream=false", "--filter", "event=exec", "--format", "json").lines[-1]
    assert json.loads(event)["Attributes"]["execID"] == session
    end = time.monotonic() + 10
    while one("exec", "one", "cat", "/tmp/mark", code=None).text != "there":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "sleep 1000" in one("exec", "one", "ps", "-o", "args").out


def test_detached_with_a_terminal(one):
    one("exec", "-d", "-t", "one", "sh", "-c", "tty >/tmp/tty; test -t 0 && read x; echo read >/tmp/read; sleep 1000")
    waiting.until("a terminal", lambda: one("exec", "one", "cat", "/tmp/tty", code=None).text == "/dev/pts/0")
    one("exec", "-d", "-t", "one", "false")  # it was started, and how it ends is its own matter
    assert one("exec", "one", "test", "-e", "/tmp/read", code=1).out == ""  # its input has no end


def test_detached_says_why_it_did_not_start(one):
    for terminal in ((), ("-t",)):
        one.fails("exec", "-d", *terminal, "one", "no-such-command", code=127, says="no-such-command")
        one.fails("exec", "-d", *terminal, "one", "/etc/passwd", code=126, says="/etc/passwd")
        one.fails("exec", "-d", *terminal, "-w", "/missing", "one", "true", code=127, says="/missing")


def test_the_monitor_shows_no_trace_afterwards(one):
    from harness import processes
    one("exec", "one", "true")
    time.sleep(0.3)
    processes.reap_orphans()
    before = len(processes.descendants())
    for _ in range(10):
        one("exec", "one", "true")
    time.sleep(0.3)
    processes.reap_orphans()
    assert len(processes.descendants()) <= before
    assert json.loads(one("inspect", "one").out)[0].get("ExecIDs", []) == []


def test_twenty_at_once(one):
    children = [subprocess.Popen(one.argv("exec", "one", "sh", "-c", f"echo {n}; exit {n}"), stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, env=one.env) for n in range(20)]
    for n, child in enumerate(children):
        out, err = child.communicate(timeout=60)
        assert (out, child.returncode) == (f"{n}\n", n), err


def test_a_killed_cli_leaves_no_lock_behind(one):
    child = one.start("exec", "one", "sleep", "1000")
    time.sleep(0.3)
    child.kill()
    child.wait()
    assert one("exec", "one", "echo", "still").text == "still"


def test_death_of_the_container_ends_it(one):
    child = one.start("exec", "one", "sleep", "1000")
    time.sleep(0.3)
    one("kill", "one")
    assert child.wait(timeout=20) == 137


def test_refused_where_nothing_runs(one):
    one("kill", "one")
    one("wait", "one")
    one.fails("exec", "one", "true", says="not running|state", code=None)
    one.fails("exec", "nobody", "true", says="nobody")


def test_keep_id_containers(kelp):
    needs.need("subids")
    kelp("run", "-d", "--name", "mine", "--userns", "keep-id", *NONE, "busybox", "sleep", "1000")
    assert kelp("exec", "mine", "id", "-u").text == str(os.getuid())
    assert kelp("exec", "-u", "0", "mine", "id", "-u").text == "0"


def test_ids_that_begin_a_name_are_enough(one):
    container = one("ps", "-q", "--no-trunc").text
    assert one("exec", container[:6], "echo", "x").text == "x"
