"""Options of run and exec, each by its effect."""

import os
import select
import shlex
import socket
import subprocess

from harness.waiting import until

NONE = ("--network", "none")


def run(kelp, *words, **more):
    return kelp("run", "--rm", *NONE, *words, **more)


def test_env_merge(kelp, place):
    assert run(kelp, "--env-merge", "PATH=${PATH}:/more", "busybox", "sh", "-c", "echo $PATH").text.endswith("/bin:/more")
    assert run(kelp, "--env-merge", "container=a$NOTHING-b", "busybox", "sh", "-c", "echo $container").text == "a-b"
    # In order, each with what those before it made; what is not there is not made.
    several = ("--env-merge", "container=x", "--env-merge", "PATH=${PATH}:/$container", "--env-merge", "PATH=${PATH}:/b",
               "--env-merge", "NEW=y")
    out = run(kelp, *several, "busybox", "sh", "-c", "echo $PATH $NEW").text
    assert out.endswith("/bin:/x:/b")


def test_passwd(kelp):
    look = ("--user", "1234", "busybox", "sh", "-c", "grep -c 1234 /etc/passwd || true")
    assert run(kelp, *look).text == "1" and run(kelp, "--passwd=false", *look).text == "0"


def test_hosts_file(kelp, place):
    (place / "hosts").write_text("10.9.8.7 elsewhere")
    out = run(kelp, "--hosts-file", place / "hosts", "--add-host", "own:10.0.0.9", "busybox", "cat", "/etc/hosts").out
    assert out.startswith("10.9.8.7 elsewhere\n") and "10.0.0.9" in out and "127.0.0.1" in out
    kelp.fails("run", *NONE, "--hosts-file", "/nothing", "busybox", "true", says="no file")
    kelp.fails("run", *NONE, "--hosts-file", "relative", "busybox", "true", says="absolute")


def test_timezone_by_either_name(kelp):
    for option in ("--tz", "--timezone"):
        assert run(kelp, option, "Europe/Berlin", "busybox", "date", "-d", "@0", "+%H").text == "01"


def test_rmi(kelp):
    kelp("tag", "busybox", "gone:1")
    kelp("run", "--rmi", *NONE, "busybox", "true")
    assert kelp("images", "-q").text == "" and kelp("ps", "-aq").text == ""
    kelp.fails("run", "--rmi", "-d", *NONE, "busybox", "true", says="exclude")


def test_rmi_leaves_an_image_in_use(kelp):
    kelp("create", "--name", "other", *NONE, "busybox", "true")
    kelp("run", "--rmi", *NONE, "busybox", "true")
    kelp("image", "exists", "busybox")


def test_keep_groups(kelp):
    own = [group for group in os.getgroups() if group != os.getgid()]
    seen = run(kelp, "--group-add", "keep-groups", "busybox", "id", "-G").text.split()
    # Groups of the caller have no number inside: each is seen as nobody's, and still opens what it opens outside.
    assert seen.count("65534") == (1 if own else 0) or seen.count("65534") == len(own)
    kelp.fails("run", *NONE, "--group-add", "keep-groups", "--group-add", "5", "busybox", "true", says="excludes")


def with_descriptors(kelp, opened, *words, **more):
    """A shell that opens descriptors and becomes kelp: this process has its own under these numbers."""
    line = shlex.join(map(str, (kelp.path, *words)))
    return kelp("-c", f"exec {opened}; exec {line}", program="/bin/sh", **more)


def test_preserve_fds(kelp, place):
    (place / "three").write_text("third\n")
    run_it = ("run", "--rm", *NONE)
    opened = f"3<{place}/three"
    assert with_descriptors(kelp, opened, *run_it, "--preserve-fds", "1", "busybox", "sh", "-c", "cat <&3").text == "third"
    kept = ("run", "-d", "--name", "d", *NONE, "--preserve-fds", "1", "busybox", "sh", "-c", "cat <&3")
    with_descriptors(kelp, opened, *kept)
    kelp("wait", "d")
    assert kelp("logs", "d").text == "third"
    result = with_descriptors(kelp, opened, *run_it, "--preserve-fds", "2", "busybox", "true", code=125)
    assert "descriptor 4 is not open" in result.err
    assert with_descriptors(kelp, opened, *run_it, "busybox", "sh", "-c", "cat <&3 || echo closed").text == "closed"


def test_preserve_fds_are_not_kept_by_the_monitor(kelp, place):
    """A pipe's reader sees the end when the container closes it."""
    os.mkfifo(place / "pipe")
    reader = os.open(place / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    line = shlex.join(map(str, (kelp.path, "run", "--rm", "-i", "--preserve-fds", "1", *NONE, "busybox", "sh", "-c",
                                "echo hello >&3; exec 3>&-; cat")))
    child = subprocess.Popen(["sh", "-c", f"exec {line} 3>{place}/pipe"], env=kelp.env, stdin=subprocess.PIPE)
    kelp.children.append(child)
    until("somebody writes", lambda: select.select([reader], [], [], 0)[0])
    os.set_blocking(reader, True)
    data = b""
    while piece := os.read(reader, 100):
        data += piece
    os.close(reader)
    assert data == b"hello\n"


def test_exec_with_one_descriptor(kelp, place):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "1000")
    (place / "five").write_text("fifth\n")
    opened = f"5<{place}/five"
    assert with_descriptors(kelp, opened, "exec", "--preserve-fd", "5", "c", "sh", "-c", "cat <&5").text == "fifth"
    kelp.fails("exec", "--preserve-fd", "900", "c", "true", says="not open")


def test_conmon_pidfile(kelp, place):
    kelp("run", "-d", "--name", "c", "--conmon-pidfile", place / "pid", *NONE, "busybox", "sleep", "1000")
    pid = (place / "pid").read_text()
    assert pid == kelp("inspect", "--format", "{{.State.ConmonPid}}", "c").text
    kelp("rm", "-f", "-t", "0", "c")
    until("the file is gone", lambda: not (place / "pid").exists())


def notify_socket(place):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(place / "notify"))
    listener.settimeout(20)
    return listener


def messages(listener, until_word):
    seen = []
    while True:
        seen.append(listener.recv(4096).decode())
        if until_word in seen[-1]:
            return seen


def test_sdnotify_conmon(kelp, place):
    listener = notify_socket(place)
    kelp("run", "-d", "--name", "c", "--sdnotify", "conmon", *NONE, "busybox", "sleep", "1000",
         env={"NOTIFY_SOCKET": str(place / "notify")})
    seen = "\n".join(messages(listener, "READY=1"))
    assert f"MAINPID={kelp('inspect', '--format', '{{.State.ConmonPid}}', 'c').text}" in seen
    assert kelp("exec", "c", "sh", "-c", "echo $NOTIFY_SOCKET").text == ""


def test_sdnotify_container(kelp, place):
    listener = notify_socket(place)
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sh", "-c", "test -S $NOTIFY_SOCKET && echo there; sleep 1000",
         env={"NOTIFY_SOCKET": str(place / "notify")})
    assert "MAINPID=" in messages(listener, "MAINPID")[0]
    until("the socket is there", lambda: kelp("logs", "c").text == "there")
    path = kelp("inspect", "--format", "{{.Id}}", "c").text
    # What the container would send; its own end of the socket lies in the run directory.
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    directory = os.open(kelp.run_dir / path / "notify", os.O_PATH)
    sender.connect(f"/proc/self/fd/{directory}/notify.sock")
    sender.send(b"MAINPID=1\nSTATUS=up\nREADY=1")
    assert messages(listener, "READY=1") == ["STATUS=up", "READY=1"]
    os.close(directory)


def test_sdnotify_healthy(kelp, place):
    listener = notify_socket(place)
    kelp("run", "-d", "--name", "c", "--sdnotify", "healthy", "--health-cmd", "test -e /up", "--health-interval", "100ms",
         *NONE, "busybox", "sleep", "1000", env={"NOTIFY_SOCKET": str(place / "notify")})
    assert "READY" not in messages(listener, "MAINPID")[0]
    kelp("exec", "c", "touch", "/up")
    assert messages(listener, "READY=1") == ["READY=1"]


def test_ps_namespaces_and_watch(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "1000")
    pid = kelp("inspect", "--format", "{{.State.Pid}}", "c").text
    number = os.readlink(f"/proc/{pid}/ns/net")[5:-1] if os.access(f"/proc/{pid}/ns/net", os.R_OK) else None
    heading, row = (line.split() for line in kelp("ps", "--ns").lines)
    assert heading == ["CONTAINER", "ID", "NAMES", "PID", "CGROUPNS", "IPC", "MNT", "NET", "PIDNS", "USERNS", "UTS"]
    assert row[1:3] == ["c", pid] and (number is None or number in row)
    watcher = kelp.start("ps", "--watch", "1", "--format", "{{.Names}}")
    assert [watcher.stdout.readline() for _ in range(2)] == [b"c\n", b"c\n"]
    kelp.fails("ps", "--watch", "0", says="second")


def test_wait_for_the_first(kelp):
    kelp("run", "-d", "--name", "slow", *NONE, "busybox", "sleep", "1000")
    kelp("run", "-d", "--name", "quick", *NONE, "busybox", "sh", "-c", "exit 6")
    assert kelp("wait", "--exit-first-match", "slow", "quick").text == "6"
    assert kelp("wait", "--condition", "paused,running", "slow").text == "-1"


def test_a_hint_of_the_runtime_is_shown(kelp):
    """It travels in the runtime's log beside the error; a foreign runtime's log has none."""
    result = kelp("run", "--rm", "--network", "none", "--ulimit", "nofile=9000000000:9000000000", "busybox", "true", code=None)
    lines = result.err.splitlines()
    assert result.code in (125, 126) and len(lines) == 2 and "RLIMIT_NOFILE" in lines[0], result
    assert lines[1].startswith("hint: the hard limit in force is "), result
