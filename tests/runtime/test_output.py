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
    assert ours("list", "-q").out == runcs("list", "--quiet").out == ours("list", "--quiet").out
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


FAILURES = {
    "unknown option": ("run", "--no-such-option", "c9"), "unknown global option": ("--no-such-option", "list"), "no words": ("start",),
    "unknown container": ("start", "c9"), "no bundle": ("run", "--bundle", "/no/such/place", "c9"), "bad id": ("run", "a/b"),
    "name in use": ("create", "c1"), "unknown signal": ("kill", "c1", "NOSUCH"), "delete of one that runs": ("delete", "c1"),
    "pause of an unknown one": ("pause", "c9"), "resume of one that runs": ("resume", "c1"), "spec over a file": ("spec",),
    "exec in an unknown one": ("exec", "c9", "/probe", "exit", "0"), "exec of nothing": ("exec", "c1", "/no/such/program"),
    "exec of a directory": ("exec", "c1", "/tmp"), "unknown option of exec": ("exec", "--no-such-option", "c1", "/probe"), "no words of exec": ("exec",)}


def test_status_of_failures(both):
    """Engines and scripts know runc's, whatever went wrong; a program's own is passed on."""
    said = []
    for runtime in both:
        runtime.create("wait")
        runtime.start()
        runtime.output("ready")
        said.append({name: runtime(*words, code=None).code for name, words in FAILURES.items()})
        for status in (0, 1, 7, 125, 255):
            runtime.exec("exit", str(status), code=status)
        runtime.process["args"] = ["/no/such/program"]
        said[-1]["run of nothing"] = runtime.run(id="c2", code=None).code
    assert said[0] == said[1]
    assert {name for name, status in said[0].items() if status != 1} == {name for name in FAILURES if name.startswith("exec ")}


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


# Stands for criu, which no kernel of today runs in Debian's version: notes its arguments, and does what DUMP and RESTORE say.
CRIU = """#!/bin/bash
echo "$@" >>{place}/argv
for ((i = 1; i <= $#; i++)); do [ "${{!i}}" != --pidfile ] || {{ j=$((i + 1)); pidfile=${{!j}}; }}; done
case $1 in
  dump | pre-dump) {dump} ;;
  restore) {restore} ;;
esac
"""


def stand_in(oci, dump="true", restore="true"):
    path = oci.place / "criu"
    path.write_text(CRIU.format(place=oci.place, dump=dump, restore=restore))
    path.chmod(0o755)
    return path


def arguments(oci):
    """Of criu's last run: [(option, value)], where two words that begin with -- follow each other the value is ""."""
    words = (oci.place / "argv").read_text().splitlines()[-1].split()
    return words[0], [(word, next_word if not next_word.startswith("--") else "")
                      for word, next_word in zip(words, [*words[1:], ""]) if word.startswith("--")]


def test_criu_gets_what_was_asked_for(kelp_oci):
    oci = kelp_oci
    fake = stand_in(oci, f'echo "(00.01) Error (x.c:1): it cannot" >{oci.place}/images/dump.log; exit 1')
    oci.create("wait")
    pid = oci.state()["pid"]
    oci.start()
    oci.output("ready")
    done = oci("--criu", fake, "checkpoint", "--image-path", oci.place / "images", "--leave-running", "--tcp-established",
               "--ext-unix-sk", "--shell-job", "--file-locks", "--tcp-skip-in-flight", "--lazy-pages", "--auto-dedup",
               "--manage-cgroups-mode", "full", "--parent-path", "../before", "--work-path", oci.place / "work",
               "--empty-ns", "network", "--page-server", "host:99", "c1", code=None)
    assert done.code != 0 and "hint:" in done.err and str(oci.place / "work/dump.log") in done.err
    verb, options = arguments(oci)
    assert verb == "dump" and {("--tree", str(pid)), ("--leave-running", ""), ("--tcp-established", ""), ("--ext-unix-sk", ""),
                               ("--shell-job", ""), ("--file-locks", ""), ("--skip-in-flight", ""), ("--lazy-pages", ""),
                               ("--auto-dedup", ""), ("--manage-cgroups=full", ""), ("--prev-images-dir", "../before"),
                               ("--track-mem", ""), ("--work-dir", str(oci.place / "work")), ("--empty-ns", "net"),
                               ("--page-server", ""), ("--address", "host"), ("--port", "99")} <= set(options), options
    assert oci.state()["status"] == "running"
    done = oci("--criu", fake, "checkpoint", "--image-path", oci.place / "images", "c1", code=None)
    assert done.code != 0 and "it cannot" in done.err
    assert "--empty-ns" in dict(arguments(oci)[1]), "as in runc, the network is for the engine to set up again"
    assert oci("--criu", fake, "checkpoint", "--empty-ns", "pid", "c1", code=None).code != 0


def test_criu_is_told_what_belongs_to_the_host(kelp_oci):
    """As runc tells it: bind mounts and devices by their place, masks as /dev/null, namespaces that were joined."""
    oci = kelp_oci
    fake = stand_in(oci, "exit 1")
    oci.config["mounts"].append({"destination": "/home", "type": "bind", "source": str(oci.place), "options": ["rbind"]})
    oci.linux["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    oci.linux["maskedPaths"] = ["/proc/version", "/sys/firmware", "/no/such"]
    oci.create("wait")
    oci.start()
    oci.output("ready")
    oci("--criu", fake, "checkpoint", "--image-path", oci.place / "images", "c1", code=None)
    verb, options = arguments(oci)
    outside = [value for option, value in options if option == "--external"]
    assert {"mnt[/home]:/home", "mnt[/dev/null]:/dev/null", "mnt[/dev/tty]:/dev/tty", "mnt[/dev/fuse]:/dev/fuse",
            "mnt[/proc/version]:/dev/null"} <= set(outside), outside
    assert not any("/sys/firmware" in value or "/no/such" in value for value in outside), outside
    descriptors = json.loads((oci.place / "images/descriptors.json").read_text())
    assert descriptors[0] == "/dev/null" and descriptors[1].endswith("/out"), descriptors
    oci("--criu", fake, "checkpoint", "--pre-dump", "--image-path", oci.place / "images", "c1", code=None)
    verb, options = arguments(oci)
    assert verb == "pre-dump" and ("--track-mem", "") in options and "--external" not in dict(options)


def test_checkpoint_ends_the_container(kelp_oci):
    oci = kelp_oci
    oci.create("wait")
    pid = oci.state()["pid"]
    oci.start()
    oci.output("ready")
    oci("--criu", stand_in(oci, f"kill -9 {pid}"), "checkpoint", "--image-path", oci.place / "images", "c1")
    assert oci("state", "c1", code=None).code != 0


@pytest.mark.parametrize("how", ["foreground", "detached", "failed"])
def test_restore(kelp_oci_nested, how):
    """The root filesystem is a mount for criu, the pipes of the images are ours, and what criu makes is a container."""
    oci = kelp_oci_nested  # an ordinary user may mount here
    life = {"foreground": "sleep 0.3; exit 7", "detached": "exec sleep 100", "failed": ""}[how]
    fake = stand_in(oci, restore=f"grep -c ' {oci.rootfs} ' /proc/self/mountinfo >{oci.place}/mounted; " +
                    (f"( {life} ) >&101 2>&101 & echo $! >$pidfile" if life else "exit 1"))
    oci.config["mounts"].append({"destination": "/home", "type": "bind", "source": "/tmp", "options": ["rbind"]})
    oci.write_config()
    (oci.place / "images").mkdir()
    (oci.place / "images/descriptors.json").write_text(json.dumps(["/dev/null", "pipe:[11]", "pipe:[12]"]))
    oci.started.append("c1")
    args = ("--criu", fake, "restore", "--image-path", oci.place / "images", "--bundle", oci.bundle)
    more = ("--lsm-profile", "apparmor:x", "--lsm-mount-context", "label", "--pid-file", oci.place / "pid")
    if how == "detached":  # what goes on must not hold a pipe of ours
        done = subprocess.run([*oci.base, *map(str, args), *map(str, more), "--detach", "c1"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=oci.env, timeout=60)
        assert done.returncode == 0
        assert oci.state()["status"] == "running" and oci.state()["pid"] == int((oci.place / "pid").read_text())
        oci("delete", "--force", "c1")
    else:
        done = oci(*args, *more, "c1", code=None)
        assert done.code == {"foreground": 7, "failed": 1}[how], str(done)
    verb, options = arguments(oci)
    assert verb == "restore" and {
        ("--root", str(oci.rootfs)), ("--restore-detached", ""), ("--external", "mnt[/home]:/tmp"),
        ("--external", "mnt[/dev/null]:/dev/null"), ("--inherit-fd", "fd[100]:pipe:[11]"),
        ("--inherit-fd", "fd[101]:pipe:[12]"), ("--lsm-profile", "apparmor:x"), ("--lsm-mount-context", "label"),
        ("--empty-ns", "net")} <= set(options), options
    assert (oci.place / "mounted").read_text() == "1\n"
    mounts = subprocess.run([*oci.nested.prefix(), "cat", "/proc/self/mountinfo"], capture_output=True, text=True).stdout
    assert str(oci.rootfs) not in mounts and oci("state", "c1", code=None).code != 0


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


@pytest.mark.parametrize("keep", [False, True])
def test_no_new_keyring(kelp_oci, keep):
    oci = kelp_oci
    script = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(250, 1, None)  # keyctl(JOIN_SESSION_KEYRING)
open(sys.argv[1], "w").write(str(libc.syscall(250, 0, -3, 0)))
os.execvp(sys.argv[2], sys.argv[2:])
"""
    if os.uname().machine != "x86_64":
        pytest.skip("needs x86_64: the numbers of its system calls")
    oci.base = ["/usr/bin/python3", "-c", script, str(oci.place / "ours"), *oci.base]
    def same():
        inside = oci.run("keyring", args=("--no-new-keyring",) if keep else ()).lines[0]
        return inside == (oci.place / "ours").read_text()
    until("a keyring of that kind", lambda: same() == keep, 60)  # a quota that others use up gives the caller's


def test_no_pivot(kelp_oci):
    out = kelp_oci.run("cat", "/proc/self/mountinfo", ";", "ls", "/", args=("--no-pivot",)).out
    assert "etc" in json.loads(out.splitlines()[-1]) and " / " in out


def test_keep(kelp_oci):
    """What ended stays to be looked at, until it is deleted."""
    kelp_oci.run("exit", "3", code=3, args=("--keep",))
    assert kelp_oci.state()["status"] == "stopped"
    kelp_oci.run("exit", "3", code=3, id="c2")
    assert kelp_oci("state", "c2", code=None).code != 0


@pytest.mark.parametrize("level", ["--log-level=debug", "--log-level=error", "--debug"])
def test_log_level(kelp_oci, level):
    kelp_oci.base.insert(1, level)
    done = kelp_oci.run("exit", "0")
    assert (done.err == "") == level.endswith("error"), str(done)


def test_no_subreaper_is_taken(kelp_oci):
    assert kelp_oci.run("echo", "up", args=("--no-subreaper",)).out == "up\n"


def test_status_of_the_page_server(kelp_oci):
    """Its descriptor reaches criu."""
    oci = kelp_oci
    fake = stand_in(oci, "echo ready >&3; exit 1")
    oci.create("wait")
    oci.start()
    oci.output("ready")
    oci.base = ["sh", "-c", f'exec "$@" 3>{oci.place}/status', "sh", *oci.base]
    oci("--criu", fake, "checkpoint", "--image-path", oci.place / "images", "--status-fd", "3", "c1", code=None)
    assert ("--status-fd", "3") in arguments(oci)[1] and (oci.place / "status").read_text() == "ready\n"


HERE = pathlib.Path(__file__).parent


def test_each_option_is_given_by_a_test(kelp_oci):
    text = "".join(path.read_text() for directory in (HERE, HERE.parent / "vm") for path in directory.glob("*.py"))
    missing = []
    for command in ("", *re.findall(r"^  (\w+) ", kelp_oci("--help").out.split("options:")[0], re.M)):
        listed = re.findall(r"^ +(?:-\w, )?--([a-z][a-z0-9-]*)", kelp_oci(*filter(None, [command]), "--help").out, re.M)
        missing += [f"{command} --{name}" for name in listed if not re.search(rf"--{name}\b", text)]
    assert missing == []


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
