#!/usr/bin/env python3
"""The few things in the tests that only root can do, behind a socket with fixed verbs.

tests/run starts it when it is root, before it drops to the test user: `root_agent.py SOCKET UID`. It sets up a network
namespace with a client address of its own (10.213.64.2, the host is .1) and answers one JSON line per connection:
  {"verb": "fetch", "url": …}      the body of an HTTP answer, fetched by the client in that namespace
  {"verb": "address"}              [client's address, host's address]
  {"verb": "mount", "path": …, "size": "1m", "type": "tmpfs"}   a file system (tmpfs, ramfs, an overlay over the directory)
                                   on an existing directory below /tmp/kt-
  {"verb": "host", "setup": …, "argv": …, "env": …, "role": "user"|"root"}   [exit status, stdout, stderr] of a command in a
                                   mount namespace where the lines of `setup` (shell, run as root) have changed the host
  {"verb": "unmount", "path": …}
  {"verb": "stat", "path": …}      [owner, group, mode] of a file below /tmp/kt-
  {"verb": "conformance", "role": "user"|"root", "suite": …, "runtime": …}   verdicts of tests/runtime/conformance/run.py
                                   in a pure cgroup v2 view, as the test user or as root
"""

import json
import os
import pathlib
import pwd
import socket
import subprocess
import sys

CLIENT, HOST = "10.213.64.2", "10.213.64.1"


class Agent:
    """The test's side."""

    def __init__(self, path):
        self.path = path

    def __call__(self, verb, timeout=30, **arguments):
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(timeout)
            link.connect(self.path)
            link.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
            answer = json.loads(link.makefile().readline())
        if "error" in answer:
            raise AssertionError(f"{verb} {arguments}: {answer['error']}")
        return answer["value"]


def _run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def _setup_client(name):
    _run("ip", "netns", "add", name)
    _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    _run("ip", "addr", "add", f"{HOST}/30", "dev", name)
    _run("ip", "link", "set", name, "up")
    _run("ip", "-n", name, "addr", "add", f"{CLIENT}/30", "dev", "eth0")
    _run("ip", "-n", name, "link", "set", "eth0", "up")
    _run("ip", "-n", name, "link", "set", "lo", "up")


def _remove_client(name):
    subprocess.run(["ip", "link", "del", name], capture_output=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _inside_tests(path):
    real = os.path.realpath(path)
    if not real.startswith("/tmp/kt-"):
        raise RuntimeError(f"{path} is not a test's directory")
    return real


def _mount(path, kind, size):
    if kind == "overlay":  # a directory of the root file system of a container: an overlay whose layers are elsewhere
        parts = {name: f"{path}.{name}" for name in ("lower", "upper", "work")}
        for part in parts.values():
            os.makedirs(part, exist_ok=True)
        os.chmod(parts["upper"], 0o777)
        options = ",".join(f"{name}dir={part}" for name, part in parts.items())
        return _run("mount", "-t", "overlay", "-o", options, "kelp-test", path)
    options = f"size={size},mode=777" if kind == "tmpfs" else "mode=777"
    return _run("mount", "-t", kind, "-o", options, "kelp-test", path)


def _on_host(request, user):
    account = pwd.getpwuid(user)
    become = ["setpriv", "--reuid", str(user), "--regid", str(account.pw_gid), "--init-groups"] \
        if request["role"] == "user" else []
    script = "set -e\nmount --make-rslave /\n" + request["setup"] + '\nexec "$@"'
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", *become, *request["argv"]], capture_output=True,
                          text=True, errors="replace", stdin=subprocess.DEVNULL, env=request["env"], cwd="/")
    return [done.returncode, done.stdout, done.stderr]


def _conformance(request, user):
    here = pathlib.Path(__file__).resolve().parent.parent / "runtime/conformance"
    account = pwd.getpwuid(user)
    role = account.pw_name if request["role"] == "user" else "root"
    home = account.pw_dir if request["role"] == "user" else "/root"
    return json.loads(_run(
        str(here / "in-v2"), role, "env", "-i", f"HOME={home}", "LANG=C.UTF-8",
        "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        *([f"XDG_RUNTIME_DIR=/run/user/{user}"] if request["role"] == "user" else []),
        "/usr/bin/python3", str(here / "run.py"), request["suite"], request["runtime"], "--jobs", "6", "--json", "-"))


def _answer(request, namespace, user):
    verb = request["verb"]
    if verb == "address":
        return [CLIENT, HOST]
    if verb == "fetch":
        return _run("ip", "netns", "exec", namespace, "curl", "-sS", "--max-time", "20", request["url"])
    if verb == "mount":
        return _mount(_inside_tests(request["path"]), request.get("type", "tmpfs"), request.get("size", "1m"))
    if verb == "host":
        return _on_host(request, user)
    if verb == "unmount":
        return _run("umount", _inside_tests(request["path"]))
    if verb == "stat":
        info = os.lstat(_inside_tests(request["path"]))
        return [info.st_uid, info.st_gid, info.st_mode]
    if verb == "conformance":
        return _conformance(request, user)
    raise RuntimeError(f"unknown verb {verb}")


def main(path, uid):
    namespace = f"kelptest{os.getpid() % 10000}"
    _setup_client(namespace)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chown(path, uid, -1)
    os.chmod(path, 0o600)
    listener.listen(8)
    try:
        while True:
            link, _ = listener.accept()
            with link:
                try:
                    reply = {"value": _answer(json.loads(link.makefile().readline()), namespace, uid)}
                except (RuntimeError, OSError, ValueError, KeyError) as error:
                    reply = {"error": str(error)}
                link.sendall(json.dumps(reply).encode() + b"\n")
    finally:
        pathlib.Path(path).unlink(missing_ok=True)
        _remove_client(namespace)


if __name__ == "__main__":
    import signal
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main(sys.argv[1], int(sys.argv[2]))
