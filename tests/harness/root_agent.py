#!/usr/bin/env python3
"""The few things in the tests that only root can do, behind a socket with fixed verbs.

tests/run starts it when it is root, before it drops to the test user: `root_agent.py SOCKET UID`. It sets up a network
namespace with a client address of its own and answers one JSON line per connection:
  {"verb": "fetch", "url": …}      the body of an HTTP answer, fetched by the client in that namespace
  {"verb": "address"}              [client's address, host's address]
  {"verb": "mount", "path": …, "size": "1m", "type": "tmpfs", "disk": …}   a file system (tmpfs, ramfs, an overlay over the
                                   directory, or that in the file "disk") on an existing directory below /tmp/kt-
  {"verb": "host", "setup": …, "argv": …, "env": …, "role": "user"|"root"}   [exit status, stdout, stderr] of a command in a
                                   mount namespace where the lines of `setup` (shell, run as root) have changed the host
  {"verb": "unmount", "path": …}
  {"verb": "stat", "path": …}      [owner, group, mode] of a file below /tmp/kt-
  {"verb": "lacking", "lack": […], "argv": […], "environment": {…}}   [status, stdout, stderr] of a command of the test
                                   user on a host without "helpers" (newuidmap, newgidmap) or "ranges" (subuid, subgid)
  {"verb": "quickstart", "top": …, "local": …, "arguments": […], "environment": {…}}   [stdout, stderr] of contrib/quickstart
                                   of a tree below /tmp/kt-, with `local` at /usr/local, for the test user
  {"verb": "v2-tests", "role": "user"|"root", "build": …, "runtimes": …, "arguments": […]}
                                   tests/runtime/test_cgroup_v2.py in such a view: [exit status, output]
  {"verb": "conformance", "role": "user"|"root", "suite": …, "runtime": …, "jobs": N, "only": […]}
                                   verdicts of tests/runtime/conformance/run.py, of all programs or of some, in a pure
                                   cgroup v2 view, as the test user or as root
  {"verb": "engine", "engine": …, "runtime": …, "place": …, "archive": …}   verdicts of tests/runtime/engines/drive.py in
                                   such a view, containerd as root and the others as the test user

Several agents may be at work on one machine, and each of them may be killed. So the namespace has no name: one process,
which dies with the agent, holds it, and with it the pair of interfaces goes. Which of the small networks is whose is
told by abstract sockets, which end with their owner and are as far apart as the networks of the host are.
"""

import ctypes
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

NETWORKS = 4096  # of four addresses each, in 10.213.0.0/16
PR_SET_PDEATHSIG = 1


class Agent:
    """The test's side."""

    def __init__(self, path):
        self.path = path

    def __call__(self, verb, timeout=90, **arguments):
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


def _die_with_parent(number):
    """Told by the kernel when the parent dies; gone at once when that has happened already."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


class Client:
    """A network namespace with an address of its own, and the way there."""

    def __init__(self):
        self.holder = self._hold_namespace()
        self.claim, number = self._claim_network()
        base = (10 << 24) + (213 << 16) + 4 * number
        self.host, self.address = (socket.inet_ntoa((base + n).to_bytes(4, "big")) for n in (1, 2))
        self.inside = ("nsenter", f"--net=/proc/{self.holder.pid}/ns/net")
        link = f"kelptest{number}"
        subprocess.run(["ip", "link", "del", link], capture_output=True)  # of a dead agent whose namespace lingers
        _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(self.holder.pid))
        _run("ip", "addr", "add", f"{self.host}/30", "dev", link)
        _run("ip", "link", "set", link, "up")
        _run(*self.inside, "ip", "addr", "add", f"{self.address}/30", "dev", "eth0")
        _run(*self.inside, "ip", "link", "set", "eth0", "up")
        _run(*self.inside, "ip", "link", "set", "lo", "up")

    @staticmethod
    def _hold_namespace():
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL,
                                  preexec_fn=lambda: _die_with_parent(signal.SIGKILL))
        end = time.monotonic() + 20
        while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            if holder.poll() is not None or time.monotonic() > end:
                raise RuntimeError("no network namespace for the client")
            time.sleep(0.01)
        return holder

    @staticmethod
    def _claim_network():
        taken = _run("ip", "-4", "-o", "addr", "show")
        for number in range(NETWORKS):
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(f"\0kelp-tests-network-{number}")
            except OSError:
                claim.close()
                continue
            if f"kelptest{number} " in taken or f" 10.213.{4 * number // 256}.{4 * number % 256 + 1}/" not in taken:
                return claim, number
            claim.close()
        raise RuntimeError("every network for clients is taken")

    def fetch(self, url):
        return _run(*self.inside, "curl", "-sS", "--max-time", "60", url)

    def remove(self):
        self.holder.kill()
        self.holder.wait()
        self.claim.close()


def _inside_tests(path):
    real = os.path.realpath(path)
    if not real.startswith("/tmp/kt-"):
        raise RuntimeError(f"{path} is not a test's directory")
    return real


def _mount(path, kind, size, disk):
    if disk:
        _run("mount", "-t", kind, "-o", "loop,nosuid,nodev", _inside_tests(disk), path)
        return os.chmod(path, 0o777)
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


TESTS = pathlib.Path(__file__).resolve().parent.parent


def _in_v2(role, user, *variables):
    """Words that run the rest of a command line in a pure cgroup v2 view, as the test user or as root."""
    account = pwd.getpwuid(user)
    home = account.pw_dir if role == "user" else "/root"
    return [str(TESTS / "runtime/conformance/in-v2"), account.pw_name if role == "user" else "root", "env", "-i",
            f"HOME={home}", "LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            *([f"XDG_RUNTIME_DIR=/run/user/{user}"] if role == "user" else []), *variables]


def _conformance(request, user):
    return json.loads(_run(*_in_v2(request["role"], user), "/usr/bin/python3", str(TESTS / "runtime/conformance/run.py"),
                           request["suite"], request["runtime"], "--jobs", str(int(request["jobs"])), "--json", "-", "--only",
                           *request["only"]))


def _v2_tests(request, user):
    done = subprocess.run(
        [*_in_v2(request["role"], user, f"KELP_TEST_V2={request['role']}", f"KELP_BUILD={request['build']}",
                 f"RUNTIME={request['runtimes']}", "PYTHONDONTWRITEBYTECODE=1"),
         "/usr/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", "-c", str(TESTS / "pytest.ini"), "--rootdir",
         str(TESTS), str(TESTS / "runtime/test_cgroup_v2.py"), "--tb=short", *request["arguments"]],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=TESTS.parent)
    return [done.returncode, done.stdout]


# In a mount namespace: /usr/bin with two files taken out of it, and two empty files.
LACKS = {
    "helpers": "mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work && for name in newuidmap newgidmap; do "
               "mknod /mnt/upper/$name c 0 0 || exit; done && "
               "mount -t overlay -o lowerdir=/usr/bin,upperdir=/mnt/upper,workdir=/mnt/work overlay /usr/bin && umount -l /mnt",
    "ranges": "mount --bind /dev/null /etc/subuid && mount --bind /dev/null /etc/subgid",
}


def _lacking(request, user):
    account = pwd.getpwuid(user)
    script = " && ".join([*(f"{{ {LACKS[name]}; }}" for name in request["lack"]), 'exec "$@"'])
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", "setpriv", "--reuid", account.pw_name, "--regid", str(account.pw_gid),
         "--init-groups", "--inh-caps=-all", *request["argv"]], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env=request["environment"], cwd="/")
    return [done.returncode, done.stdout, done.stderr]


def _engine(request, user):
    """All that it keeps is in a directory of its own below `place`; root's files go before the test user tidies up."""
    tests = pathlib.Path(__file__).resolve().parent.parent
    if request["engine"] not in ("podman", "buildah", "containerd"):
        raise RuntimeError(f"unknown engine {request['engine']}")
    role = "root" if request["engine"] == "containerd" else pwd.getpwuid(user).pw_name
    place = pathlib.Path(_inside_tests(request["place"])) / "e"
    place.mkdir()
    if role != "root":
        os.chown(place, user, -1)
    try:
        return json.loads(_run(
            str(tests / "runtime/conformance/in-v2"), role, "env", "-i",
            "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin", "PYTHONDONTWRITEBYTECODE=1",
            "/usr/bin/python3", str(tests / "runtime/engines/drive.py"), request["engine"],
            _inside_tests(request["runtime"]) if request["runtime"].startswith("/tmp/") else request["runtime"], str(place),
            _inside_tests(request["archive"])))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _quickstart(request, user):
    """With a mount namespace of its own, so that the host's /usr/local stays as it is."""
    top, local = _inside_tests(request["top"]), _inside_tests(request["local"])
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /usr/local && exec "$@"', local, f"{top}/contrib/quickstart",
         *request["arguments"]], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**request["environment"], "HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
             "SUDO_USER": pwd.getpwuid(user).pw_name})
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return [done.stdout, done.stderr]


def _answer(request, client, user):
    verb = request["verb"]
    if verb == "address":
        return [client.address, client.host]
    if verb == "fetch":
        return client.fetch(request["url"])
    if verb == "mount":
        return _mount(_inside_tests(request["path"]), request.get("type", "tmpfs"), request.get("size", "1m"), request.get("disk"))
    if verb == "host":
        return _on_host(request, user)
    if verb == "unmount":
        return _run("umount", _inside_tests(request["path"]))
    if verb == "stat":
        info = os.lstat(_inside_tests(request["path"]))
        return [info.st_uid, info.st_gid, info.st_mode]
    if verb == "lacking":
        return _lacking(request, user)
    if verb == "quickstart":
        return _quickstart(request, user)
    if verb == "v2-tests":
        return _v2_tests(request, user)
    if verb == "conformance":
        return _conformance(request, user)
    if verb == "engine":
        return _engine(request, user)
    raise RuntimeError(f"unknown verb {verb}")


def _serve(link, client, uid):
    with link:
        try:
            reply = {"value": _answer(json.loads(link.makefile().readline()), client, uid)}
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            reply = {"error": str(error)}
        try:
            link.sendall(json.dumps(reply).encode() + b"\n")
        except OSError:
            pass  # whoever asked has gone


def main(path, uid):
    """Until SIGTERM, or the death of whoever started this."""
    _die_with_parent(signal.SIGTERM)
    path, client = pathlib.Path(path), None
    try:
        client = Client()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        os.chown(path, uid, -1)
        os.chmod(path, 0o600)
        listener.listen(8)
        while True:
            threading.Thread(target=_serve, args=(listener.accept()[0], client, uid), daemon=True).start()
    finally:
        if client:
            client.remove()
        path.unlink(missing_ok=True)
        if path.parent.name.startswith("kt-agent-"):
            try:
                path.parent.rmdir()
            except OSError:
                pass  # the starter has done it


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main(sys.argv[1], int(sys.argv[2]))
