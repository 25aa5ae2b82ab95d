"""A container's life: create, start, stop, restart, kill, wait, rm, and what ps, logs, inspect say meanwhile."""

import json
import os
import signal
import subprocess
import time

import pytest

from harness import needs
from harness.waiting import until

NONE = ("--network", "none")
POLITE = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"


def status(kelp, name):
    return kelp("inspect", "--format", "{{.State.Status}}", name).text


def exit_code(kelp, name):
    return int(kelp("inspect", "--format", "{{.State.ExitCode}}", name).text)


def ready(kelp, name, word="ready"):
    until(f"{name} says {word}", lambda: word in kelp("logs", name).out)


def test_create_start_wait(kelp):
    container = kelp("create", "--name", "c", *NONE, "busybox", "sh", "-c", "echo once; exit 4").text
    assert len(container) == 64 and status(kelp, "c") == "created"
    assert kelp("start", "c").text == "c"
    assert kelp("wait", "c").text == "4"
    assert status(kelp, "c") == "exited" and kelp("logs", "c").out == "once\n"


def test_start_attached_gives_the_exit_status(kelp):
    kelp("create", "--name", "c", *NONE, "busybox", "sh", "-c", "echo hello; exit 5")
    assert kelp("start", "-a", "c", code=5).out == "hello\n"
    assert kelp("start", "-a", "c", code=5).out == "hello\n"
    assert kelp("logs", "c").out == "hello\nhello\n"


def test_start_again_keeps_the_files(kelp):
    kelp("run", "--name", "c", *NONE, "busybox", "sh", "-c", "echo x >> /count; cat /count")
    assert kelp("start", "-a", "c").out == "x\nx\n"


def test_starting_a_running_one_is_no_error(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100")
    pid = kelp("inspect", "--format", "{{.State.Pid}}", "c").text
    kelp("start", "c")
    assert kelp("inspect", "--format", "{{.State.Pid}}", "c").text == pid


def test_stop_is_polite_first(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sh", "-c", POLITE)
    ready(kelp, "c")
    start = time.monotonic()
    assert kelp("stop", "c").text == "c"
    assert time.monotonic() - start < 5
    assert exit_code(kelp, "c") == 0 and kelp("logs", "c").out == "ready\nbye\n"


def test_stop_kills_after_the_time_out(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    ready(kelp, "c")
    start = time.monotonic()
    kelp("stop", "-t", "1", "c")
    assert 0.9 < time.monotonic() - start < 5
    assert exit_code(kelp, "c") == 137


def test_stop_signal_and_time_out_of_the_container(kelp):
    kelp("run", "-d", "--name", "c", "--stop-signal", "USR2", "--stop-timeout", "30", *NONE, "busybox", "sh", "-c",
         "trap 'exit 3' USR2; trap '' TERM; echo ready; while :; do sleep 0.05; done")
    ready(kelp, "c")
    kelp("stop", "c", timeout=20)
    assert exit_code(kelp, "c") == 3


def test_stopping_twice_is_no_error(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100")
    kelp("stop", "-t", "0", "c")
    kelp("stop", "-t", "0", "c")


def test_kill_with_a_signal(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sh", "-c",
         "trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done")
    ready(kelp, "c")
    kelp("kill", "-s", "HUP", "c")
    ready(kelp, "c", "hup")
    kelp("kill", "c")
    assert kelp("wait", "c").text == "137"


def test_restart(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sh", "-c", "date +%s%N; sleep 100")
    until("the first start is logged", lambda: len(kelp("logs", "c").lines) == 1)
    kelp("restart", "-t", "0", "c")
    until("the second start is logged", lambda: len(kelp("logs", "c").lines) == 2)
    assert status(kelp, "c") == "running"


def test_restart_policy(kelp):
    kelp("run", "-d", "--name", "c", "--restart", "on-failure:2", *NONE, "busybox", "sh", "-c", "echo try; exit 1")
    until("two restarts", lambda: status(kelp, "c") == "exited" and len(kelp("logs", "c").lines) == 3, 30)
    assert kelp("inspect", "--format", "{{.RestartCount}}", "c").text == "2"
    kelp("run", "-d", "--name", "ok", "--restart", "on-failure", *NONE, "busybox", "sh", "-c", "echo try; exit 0")
    assert kelp("wait", "ok").text == "0"
    time.sleep(0.3)
    assert len(kelp("logs", "ok").lines) == 1


def test_stop_ends_a_restarting_container(kelp):
    kelp("run", "-d", "--name", "c", "--restart", "always", *NONE, "busybox", "sh", "-c", "echo try; sleep 0.1; exit 1")
    until("a restart", lambda: len(kelp("logs", "c").lines) >= 2, 30)
    kelp("stop", "-t", "1", "c")
    count = len(kelp("logs", "c").lines)
    time.sleep(1)
    assert status(kelp, "c") == "exited" and len(kelp("logs", "c").lines) == count


def test_rm(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100")
    kelp.fails("rm", "c", says="running|state", code=2)
    kelp("rm", "-f", "c")
    kelp("rm", "c", code=1)
    kelp("rm", "-f", "c")
    kelp("rm", "--ignore", "c")


def test_several_at_once(kelp):
    """A name that fits no container: nothing happens to the others. One that cannot be served: the others are."""
    kelp("create", "--name", "a", *NONE, "busybox", "sleep", "1000")
    kelp("run", "-d", "--name", "b", *NONE, "busybox", "sleep", "1000")
    kelp.fails("rm", "a", "nobody", says="nobody", code=1)
    for command in (("stop", "-t", "0"), ("kill",), ("restart", "-t", "0")):
        kelp.fails(*command, "nobody", "b", says="nobody")
        kelp.fails(*command, "b", "nobody", says="nobody")
    kelp.fails("start", "a", "nobody", says="nobody")
    assert (status(kelp, "a"), status(kelp, "b")) == ("created", "running")
    assert kelp("rm", "b", "a", code=2).out == "a\n"
    assert kelp("stop", "--ignore", "-t", "0", "nobody", "b").out == "b\n"


def test_init_sets_up_without_executing(kelp, place):
    kelp("create", "--name", "c", *NONE, "busybox", "sh", "-c", "cat /etc/later; exit 3")
    assert kelp("init", "c").text == "c"
    state = json.loads(kelp("inspect", "c").out)[0]["State"]
    assert state["Status"] == "initialized" and not state["Running"] and state["Pid"] > 0
    assert kelp("ps", "-q").text == ""
    assert kelp("ps", "-a", "--filter", "status=initialized", "--format", "{{.Status}}").text == "Initialized"
    assert kelp("wait", "--condition", "initialized", "c").text == "-1"
    (place / "later").write_text("came between\n")
    kelp("cp", place / "later", "c:/etc/later")
    kelp.fails("container", "init", "c", says="already initialized")
    kelp.fails("exec", "c", "true", says="running containers", code=255)
    kelp.fails("kill", "c", says="running")
    assert kelp("logs", "c").out == ""
    assert kelp("start", "-a", "c", code=3).out == "came between\n"
    assert status(kelp, "c") == "exited" and exit_code(kelp, "c") == 3
    steps = kelp("events", "--stream=false", "--filter", "container=c", "--format", "{{.Status}}").lines
    assert [step for step in steps if step != "cleanup"] == ["create", "init", "start", "attach", "died"]
    kelp("start", "c")  # later starts do not stop there
    assert kelp("wait", "c").text == "3"


def test_init_of_all_and_of_the_latest(kelp):
    kelp("run", "-d", "--name", "runs", *NONE, "busybox", "sleep", "1000")
    for name in "ab":
        kelp("create", "--name", name, *NONE, "busybox", "sleep", "1000")
    kelp("init", "--latest")
    assert status(kelp, "b") == "initialized" and status(kelp, "a") == "created"
    assert len(kelp("container", "init", "--all").lines) == 1
    assert status(kelp, "a") == "initialized" and status(kelp, "runs") == "running"
    kelp.fails("init", "runs", says="already running")
    kelp.fails("init", "nobody", says="nobody")
    kelp("start", "a")
    assert status(kelp, "a") == "running"
    kelp("stop", "-t", "0", "b")
    assert status(kelp, "b") == "exited" and kelp("wait", "b").text == "137"
    kelp("rm", "b")


def test_what_ends_an_initialized_container(kelp):
    from harness import processes
    kelp("create", "--name", "a", *NONE, "busybox", "touch", "/ran")
    kelp("init", "a")
    kelp("rm", "a")  # nothing of its own has run: no --force is needed
    kelp("create", "--rm", "--name", "b", *NONE, "busybox", "nothing-of-that-name")
    kelp.fails("init", "b", says="nothing-of-that-name")
    kelp("container", "exists", "b", code=1)
    kelp("create", "--name", "c", *NONE, "busybox", "true")
    kelp("init", "c")
    monitor = json.loads(kelp("inspect", "c").out)[0]["State"]["ConmonPid"]
    os.kill(monitor, signal.SIGKILL)
    until("it is over", lambda: status(kelp, "c") == "exited")
    processes.reap_orphans()
    assert kelp("container", "prune", "-f").lines
    kelp("create", "--name", "d", *NONE, "busybox", "true")
    kelp("init", "d")
    assert kelp("container", "prune", "-f").lines and kelp("ps", "-aq").text == ""


def test_the_end_of_a_container_that_goes_with_it_is_no_lost_exit(kelp):
    """Neither while it starts nor while it is taken away is there a moment in which its exit looks lost."""
    seen = set()
    for n in range(10):
        child = kelp.start("run", "--rm", "--name", f"c{n}", *NONE, "busybox", "true")
        while child.poll() is None:
            seen.add(kelp("inspect", "--type", "container", "--format", "{{.State.Status}} {{.State.ExitCode}}", f"c{n}",
                          code=None).text)
    assert not [text for text in seen if "-1" in text], seen
    for n in range(10):
        child = kelp.start("run", "--name", f"d{n}", *NONE, "busybox", "sh", "-c", "exit 4")
        while child.poll() is None:
            seen.add(kelp("inspect", "--type", "container", "--format", "{{.State.Status}} {{.State.ExitCode}}", f"d{n}",
                          code=None).text)
    assert not [text for text in seen if "-1" in text] and "exited 0" not in seen, seen


def test_rename(kelp):
    kelp("create", "--name", "old", *NONE, "busybox", "true")
    kelp("create", "--name", "other", *NONE, "busybox", "true")
    kelp.fails("rename", "old", "other", says="in use")
    kelp("rename", "old", "new")
    kelp("inspect", "new")
    kelp("inspect", "old", code=125)
    kelp("create", "--name", "old", *NONE, "busybox", "true")


def test_a_name_may_be_how_several_ids_begin(kelp):
    ids = [kelp("create", *NONE, "busybox", "true").text for _ in range(17)]
    digit = next(one for one in "0123456789abcdef" if sum(name.startswith(one) for name in ids) > 1)
    for options in ((), ("--replace",)):
        kelp("create", *options, "--name", digit, *NONE, "busybox", "true")
        assert kelp("inspect", "--format", "{{.Name}}", digit).text == digit


def test_wait_for_several_and_conditions(kelp):
    for n in (1, 2):
        kelp("run", "-d", "--name", f"w{n}", *NONE, "busybox", "sh", "-c", f"sleep 0.3; exit {n}")
    assert kelp("wait", "w1", "w2").lines == ["1", "2"]
    kelp("run", "-d", "--name", "up", *NONE, "busybox", "sleep", "100")
    kelp("wait", "--condition", "running", "up", timeout=10)


def test_pause(kelp):
    needs.need("cgroup-limits")
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sh", "-c", "while :; do echo x; sleep 0.05; done")
    kelp("pause", "c")
    assert status(kelp, "c") == "paused"
    count = len(kelp("logs", "c").lines)
    time.sleep(0.3)
    assert len(kelp("logs", "c").lines) <= count + 1
    kelp("unpause", "c")
    assert status(kelp, "c") == "running"


def health(kelp, name):
    return kelp("inspect", "--format", "{{.State.Health.Status}}", name).text


def test_health(kelp):
    """Run inside, again and again; the word changes after so many failures, and back at the first success."""
    kelp("run", "-d", "--name", "c", "--health-cmd", "test -f /well", "--health-interval", "100ms", "--health-retries", "2",
         *NONE, "busybox", "sleep", "1000")
    until("unhealthy", lambda: health(kelp, "c") == "unhealthy", 30)
    assert "(unhealthy)" in kelp("ps", "--filter", "name=c").out
    kelp("exec", "c", "touch", "/well")
    until("healthy", lambda: health(kelp, "c") == "healthy", 30)
    assert "(healthy)" in kelp("ps").out


def test_health_in_the_start_period_and_with_a_time_out(kelp):
    """Failures in the start period do not count; a check that takes too long is a failure."""
    kelp("run", "-d", "--name", "starts", "--health-cmd", "echo x >> /checks; false", "--health-interval", "50ms",
         "--health-retries", "1", "--health-start-period", "1h", *NONE, "busybox", "sleep", "1000")
    until("five checks", lambda: kelp("exec", "starts", "wc", "-l", "/checks", code=None).out[:1] in tuple("56789"), 30)
    assert health(kelp, "starts") == "starting"
    kelp("run", "-d", "--name", "hangs", "--health-cmd", "sleep 1000", "--health-interval", "50ms", "--health-timeout", "200ms",
         "--health-retries", "1", *NONE, "busybox", "sleep", "1000")
    until("unhealthy", lambda: health(kelp, "hangs") == "unhealthy", 30)


def test_ps(kelp):
    kelp("run", "-d", "--name", "up", *NONE, "busybox", "sleep", "100")
    kelp("run", "--name", "down", *NONE, "busybox", "false", code=1)
    header, line = kelp("ps").lines
    assert header.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert line.endswith("up") and "Up" in line and "localhost/busybox:latest" in line
    names = kelp("ps", "-a", "--format", "{{.Names}}\t{{.State}}").lines
    assert sorted(names) == ["down\texited", "up\trunning"]
    assert kelp("ps", "-a", "--filter", "status=exited", "--format", "{{.Names}}").text == "down"
    assert kelp("ps", "-a", "--filter", "name=up", "--format", "{{.Names}}").text == "up"
    assert "Exited (1)" in kelp("ps", "-a", "--filter", "name=down").out
    assert len(json.loads(kelp("ps", "-a", "--format", "json").out)) == 2


def test_logs(kelp):
    kelp("run", "--name", "c", *NONE, "busybox", "sh", "-c", "for n in 1 2 3 4 5; do echo line $n; done; echo err >&2")
    result = kelp("logs", "c")
    assert result.lines == [f"line {n}" for n in range(1, 6)] and result.err == "err\n"
    assert kelp("logs", "--tail", "2", "c").out + kelp("logs", "--tail", "2", "c").err in ("line 5\nerr\n", "err\nline 5\n")
    assert kelp("logs", "-t", "c").lines[0].endswith(" line 1")
    assert kelp("logs", "--since", "1h", "c").lines == result.lines
    assert kelp("logs", "--until", "1h", "c").lines == result.lines  # a duration of --until counts forward, as podman's
    assert kelp("logs", "--until", "2001-01-01T00:00:00Z", "c").out == ""


def test_logs_follow_to_the_end(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sh", "-c", "for n in 1 2 3; do echo $n; sleep 0.2; done")
    assert kelp("logs", "-f", "c", timeout=20).out == "1\n2\n3\n"


def test_a_long_line_and_no_newline_at_the_end(kelp):
    kelp("run", "--name", "c", *NONE, "busybox", "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; printf end")
    assert kelp("logs", "c").out == "x" * 100000 + "end"


def test_log_driver_none(kelp):
    kelp("run", "--name", "c", "--log-driver", "none", *NONE, "busybox", "echo", "x")
    kelp("logs", "c", code=125)


def test_top(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100")
    out = kelp("top", "c").out
    assert "PID" in out.splitlines()[0] and "sleep 100" in out
    kelp("run", "-d", "--name", "few", "--cap-drop", "all", "--cap-add", "kill", "--cap-add", "chown", *NONE, "busybox",
         "sleep", "100")
    assert kelp("top", "few", "pid", "capeff", "capinh").lines[1].split() == ["1", "CHOWN,KILL", "none"]


def test_attach(kelp):
    kelp("run", "-d", "-i", "--name", "c", *NONE, "busybox", "cat")
    child = kelp.start("attach", "c", stdin=subprocess.PIPE)
    child.stdin.write(b"echoed\n")
    child.stdin.flush()
    assert child.stdout.readline() == b"echoed\n"
    child.stdin.close()
    child.stdin = None
    assert child.wait(timeout=20) == 0
    assert exit_code(kelp, "c") == 0


def test_attach_passes_signals(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sh", "-c", POLITE)
    ready(kelp, "c")
    child = kelp.start("attach", "c")
    time.sleep(0.3)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=20) == 0


def test_stop_all_and_rm_all(kelp):
    for n in range(4):
        kelp("run", "-d", "--name", f"c{n}", *NONE, "busybox", "sleep", "100")
    assert sorted(kelp("stop", "-a", "-t", "0").lines) == sorted(kelp("ps", "-aq", "--no-trunc").lines) or \
        len(kelp("ps", "-q").lines) == 0
    kelp("rm", "-a")
    assert kelp("ps", "-aq").text == ""


def test_a_killed_monitor_takes_the_container_along(kelp):
    from harness import processes
    import os
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100")
    pid = int(kelp("inspect", "--format", "{{.State.Pid}}", "c").text)
    monitor = int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])
    assert "monitor" in open(f"/proc/{monitor}/comm").read()
    os.kill(monitor, signal.SIGKILL)
    until("the container's death", lambda: not any(p[0] == pid and p[1] != "Z" for p in processes.descendants()))
    processes.reap_orphans()
    assert status(kelp, "c") == "exited"
    kelp("start", "c")
    assert status(kelp, "c") == "running"


def test_the_run_directory_may_be_lost(kelp):
    import shutil
    kelp("create", "--name", "c", *NONE, "busybox", "echo", "again")
    shutil.rmtree(kelp.run_dir, ignore_errors=True)
    assert kelp("start", "-a", "c").out == "again\n"


@pytest.mark.parametrize("command", [("start",), ("stop",), ("kill",), ("rm",), ("logs",), ("inspect",), ("wait",),
                                     ("top",), ("exec", "nobody", "true"), ("attach",), ("port",), ("pause",)])
def test_an_unknown_container_is_named(kelp, command):
    argv = command if len(command) > 1 else (*command, "nobody")
    result = kelp(*argv, code=None)
    assert result.code in (1, 125) and "nobody" in result.err and len(result.err.splitlines()) <= 2


def test_sixteen_at_once(kelp):
    children = [subprocess.Popen(kelp.argv("run", "--rm", *NONE, "busybox", "sh", "-c", f"echo {n}"), env=kelp.env,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for n in range(16)]
    for n, child in enumerate(children):
        out, err = child.communicate(timeout=60)
        assert (out, child.returncode) == (f"{n}\n", 0), err
