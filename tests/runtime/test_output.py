"""What the commands print, against runc's own words, key by key; log lines, options, and messages that engines look for."""

import json
import os
import pathlib
import re
import subprocess

import pytest

from conftest import _make
from harness import needs
from harness.waiting import until


@pytest.fixture
def both(place, request):
    """kelp-oci and runc, each with a created container c1 of the same configuration."""
    made = []
    for name in ("kelp-oci", "runc"):
        (place / name).mkdir()
        made.append(_make(name, place / name, request))
    yield made
    for runtime in made:
        runtime.end()


def shape(value):
    """Keys and types, without the values; of a list its first element."""
    if isinstance(value, dict):
        return {key: shape(member) for key, member in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def test_state(both):
    ours, runcs = both
    for runtime in both:
        runtime.config["annotations"] = {"org.example": "value"}
        runtime.create("wait")
    mine, its = ours.state(), runcs.state()
    assert shape(mine) == shape(its)
    assert mine["status"] == its["status"] == "created" and list(mine) == list(its)
    for runtime in both:
        runtime("kill", "c1", "KILL")
        runtime.wait_status("stopped")
    assert shape(ours.state()) == shape(runcs.state()) and ours.state()["pid"] == runcs.state()["pid"] == 0


def test_list(both):
    ours, runcs = both
    assert ours("list", "--format", "json").out == runcs("list", "--format", "json").out
    assert ours("list", "-q").out == runcs("list", "-q").out
    for runtime in both:
        runtime.create("wait")
    mine, its = (json.loads(runtime("list", "-f", "json").out) for runtime in both)
    assert shape(mine) == shape(its) and list(mine[0]) == list(its[0])
    assert ours("list", "-q").out == runcs("list", "-q").out == "c1\n"
    assert ours("list").lines[0].split() == runcs("list").lines[0].split()
    assert len(ours("list").lines) == len(runcs("list").lines) == 2


def test_features(both):
    """All that runc tells, we tell; with what is newer beside it."""
    ours, runcs = (json.loads(runtime("features").out) for runtime in both)

    def missing(mine, its, path=""):
        if not isinstance(its, dict):
            return [] if type(mine) is type(its) else [path]
        gone = [f"{path}.{key}" for key in its if key not in mine]
        return gone + [one for key in its if key in mine for one in missing(mine[key], its[key], f"{path}.{key}")]

    runcs.pop("annotations", None)
    assert missing(ours, runcs) == []
    for key in ("hooks", "mountOptions"):
        assert set(runcs[key]) <= set(ours[key]), set(runcs[key]) - set(ours[key])
    for key in ("namespaces", "capabilities"):
        assert set(runcs["linux"][key]) <= set(ours["linux"][key])
    for key in ("actions", "operators"):
        assert set(runcs["linux"]["seccomp"][key]) <= set(ours["linux"]["seccomp"][key])


# Every option of runc's help is one of ours, but for those of what is not there: cgroup v1.
NOT_OURS = {"help", "generate-bash-completion"}
# A restored container has no terminal of its own, and its root is made by criu.
NOT_IN_RESTORE = {"console-socket", "no-pivot", "no-subreaper", "preserve-fds"}


@pytest.mark.parametrize("command", ["", "create", "run", "start", "state", "kill", "delete", "exec", "list", "ps", "pause",
                                     "resume", "update", "events", "spec", "features", "checkpoint", "restore"])
def test_options_of_runc(command, both):
    def options(runtime):
        text = subprocess.run([*runtime.base, *([command] if command else []), "--help"], capture_output=True, text=True,
                              env=runtime.env).stdout
        return set(re.findall(r"^ +(?:-\w, )?--([a-z][a-z0-9-]*)", text, re.M))

    ours, runcs = (options(runtime) for runtime in both)
    assert runcs - ours - NOT_OURS - (NOT_IN_RESTORE if command == "restore" else set()) == set()


def test_json_log(oci):
    """Lines as engines read them: level, msg, time."""
    log = oci.place / "log.json"
    oci.base += ["--log", str(log), "--log-format", "json"]
    oci.process["args"] = ["/nowhere"]
    assert oci.run(code=None).code != 0
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    errors = [entry for entry in entries if entry["level"] == "error"]
    assert errors and "nowhere" in errors[-1]["msg"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", entry["time"]) for entry in entries)


@pytest.mark.parametrize("words", [("state", "none"), ("start", "none"), ("kill", "none"), ("delete", "none"),
                                   ("exec", "none", "/probe"), ("ps", "none"), ("pause", "none"), ("events", "none")])
def test_unknown_container(oci, words):
    done = oci(*words, code=None)
    assert done.code != 0 and done.out == "" and re.search("not exist|no such", done.err, re.I), str(done)


def test_delete_force_of_an_unknown_one(oci):
    assert oci("delete", "--force", "none").code == 0


def test_kill_of_a_stopped_one(oci):
    oci.create("exit", "0")
    oci.start()
    oci.wait_status("stopped")
    done = oci("kill", "c1", "TERM", code=None)
    assert done.code != 0, str(done)


def test_kill_with_an_unknown_signal(oci):
    oci.create("wait")
    assert oci("kill", "c1", "NOSUCH", code=None).code != 0
    assert oci.state()["status"] == "created"


def test_spec(oci):
    """The example is a configuration that runs, once it has a root filesystem and our maps."""
    oci("spec", "--rootless", "--bundle", oci.bundle)
    made = json.loads((oci.bundle / "config.json").read_text())
    assert made["process"]["args"] == ["sh"] and made["root"]["path"] == "rootfs"
    assert {entry["type"] for entry in made["linux"]["namespaces"]} >= {"pid", "mount", "user", "ipc", "uts"}
    assert oci("spec", "--bundle", oci.bundle, code=None).code != 0, "it must not overwrite"


def test_version(oci):
    out = oci("--version").lines
    assert " version " in out[0] and any(line.startswith("spec: 1.") for line in out)


def test_config_by_another_name(kelp_oci):
    kelp_oci.process["args"] = ["/probe", "echo", "other"]
    kelp_oci.write_config()
    (kelp_oci.bundle / "config.json").rename(kelp_oci.bundle / "other.json")
    assert kelp_oci("run", "--config", "other.json", "--bundle", kelp_oci.bundle, "c1").out == "other\n"
    (kelp_oci.bundle / "other.json").rename(kelp_oci.place / "far.json")
    assert kelp_oci("run", "--config", kelp_oci.place / "far.json", "--bundle", kelp_oci.bundle, "c1").out == "other\n"


def test_user_namespace_is_added(kelp_oci):
    """An ordinary user's configuration that asks for none gets one with the caller as 0 and his ranges after it."""
    kelp_oci.linux["namespaces"] = [entry for entry in kelp_oci.linux["namespaces"] if entry["type"] != "user"]
    maps = {kind: kelp_oci.linux.pop(kind) for kind in ("uidMappings", "gidMappings")}
    info = kelp_oci.info()
    assert [line.split() for line in info["uid_map"].strip().splitlines()] == \
        [[str(entry[key]) for key in ("containerID", "hostID", "size")] for entry in maps["uidMappings"]]
    kelp_oci.base.insert(1, "--rootless=false")
    done = kelp_oci.run("exit", "0", code=None, id="c2")
    assert done.code != 0, "without one an ordinary user can make no namespace"


@pytest.mark.parametrize("command,words", [("checkpoint", ["c1"]), ("restore", ["c2"])])
def test_criu_is_missing(kelp_oci, command, words):
    kelp_oci.create("wait")
    done = kelp_oci("--criu", "/no/such/criu", command, *words, code=None)
    assert done.code != 0 and "/no/such/criu is not installed" in done.err and "hint:" in done.err


def test_criu_gets_what_was_asked_for(kelp_oci):
    """Without criu's own work: a stand-in that notes its arguments and fails with a log, as criu does."""
    fake = kelp_oci.place / "criu"
    fake.write_text(f'#!/bin/sh\necho "$@" >{kelp_oci.place}/argv\n'
                    f'echo "(00.01) Error (x.c:1): it cannot" >{kelp_oci.place}/images/dump.log\nexit 1\n')
    fake.chmod(0o755)
    pid = kelp_oci.create("wait") or kelp_oci.state()["pid"]
    kelp_oci.start()
    done = kelp_oci("--criu", fake, "checkpoint", "--image-path", kelp_oci.place / "images", "--leave-running",
                    "--tcp-established", "--file-locks", "--empty-ns", "network", "--page-server", "host:99", "c1", code=None)
    assert done.code != 0 and "it cannot" in done.err and "hint:" in done.err
    argv = (kelp_oci.place / "argv").read_text().split()
    assert argv[0] == "dump" and f"--tree {pid}" in " ".join(argv)
    assert {"--leave-running", "--tcp-established", "--file-locks", "--empty-ns", "network", "--page-server", "--address",
            "host", "--port", "99"} <= set(argv)
    assert kelp_oci.state()["status"] == "running"


def test_keyring_quota(kelp_oci):
    """With no room for another session keyring the container starts all the same."""
    script = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(250, 1, None)  # keyctl(JOIN_SESSION_KEYRING): all of it goes with this process
made = 0
while libc.syscall(248, b"keyring", b"kelp-%d" % made, None, 0, -3) >= 0:
    made += 1
assert ctypes.get_errno() == 122, ctypes.get_errno()  # EDQUOT
os.execvp(sys.argv[1], sys.argv[1:])
"""
    if os.uname().machine != "x86_64":
        pytest.skip("needs x86_64: the numbers of its system calls")
    kelp_oci.base = ["/usr/bin/python3", "-c", script, *kelp_oci.base]
    assert kelp_oci.run("echo", "started").out == "started\n"


def test_new_session_keyring(oci):
    """The caller's session keyring is not the container's, unless --no-new-keyring."""
    oci.base = [*oci.base]
    def own_keyring(name):  # the user's quota of keys may be used up for a moment by what other tests have left
        return oci.run("try", "keyring", id=name).lines[0] == "ok"
    until("a keyring", lambda: own_keyring("c1"), 60)
    until("another keyring", lambda: own_keyring("c2"), 60)


def receive_fd(path, start):
    import array
    import socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(1)
        server.settimeout(20)
        start()
        connection, _ = server.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
    return array.array("i", ancillary[0][2][:4])[0]


@pytest.mark.parametrize("command", ["create", "exec"])
def test_pidfd_socket(kelp_oci, command):
    path = kelp_oci.place / "p.sock"
    if command == "create":
        fd = receive_fd(path, lambda: kelp_oci.create("wait", args=("--pidfd-socket", path)))
        pid = kelp_oci.state()["pid"]
    else:
        kelp_oci.create("wait")
        kelp_oci.start()
        file = kelp_oci.place / "pid"
        fd = receive_fd(path, lambda: subprocess.run(
            [*kelp_oci.base, "exec", "--detach", "--pid-file", str(file), "--pidfd-socket", str(path), "c1", "/probe", "sleep",
             "100"], env=kelp_oci.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True))
        pid = int(file.read_text())
    fdinfo = pathlib.Path(f"/proc/self/fdinfo/{fd}").read_text()
    os.close(fd)
    assert re.search(rf"^Pid:\s+{pid}$", fdinfo, re.M), fdinfo


def test_resctrl_is_refused(kelp_oci):
    kelp_oci.linux["intelRdt"] = {"closID": "x"}
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and "linux.intelRdt" in done.err
