"""kelp-oci, and its peers, with a bundle and a static probe: no image, no network.

RUNTIME=crun tests/run tests/runtime      one runtime (or several, with commas); default: all that are installed
"kelp-oci-nested" is kelp-oci inside a user namespace of the caller's, as kelp itself runs it; crun is run there too,
because it refuses hybrid cgroup hierarchies and gets a pure one there.
"kelp-oci-mount2" is the same under a filter that refuses the new mount calls, as those of older engines do; by default it
takes the tests of MOUNT2_TESTS alone.
What a peer cannot do stands by name in peer_exceptions.txt: a failure that is not listed, and a listed one that
passes (unless the reason begins with "race:"), both fail the run. The races of a peer are not ours to mend: its test
is played a second time before it counts, and the end of the output names those that were; kelp-oci has one try.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest
from _pytest.runner import runtestprotocol

from harness import confine, leaks, needs, processes, programs

HERE = pathlib.Path(__file__).parent
RUNTIMES = [name for name in os.environ.get("RUNTIME", "kelp-oci,kelp-oci-nested,crun,runc").split(",") if name]
PEERS = ("crun", "runc")
MOUNT2 = "kelp-oci-mount2"
NESTED = ("crun", "kelp-oci-nested", MOUNT2)  # run inside a user namespace that is made for them
MOUNT2_TESTS = ("test_mounts", "test_namespaces", "test_rootfs", "test_terminal")
NEW_MOUNT_CALLS = ("open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr")
CAPS = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID",
        "CAP_SYS_CHROOT"]


def _exceptions():
    listed = {}
    for line in (HERE / "peer_exceptions.txt").read_text().splitlines():
        line, _, reason = line.partition("#")
        if line.strip():
            runtime, test = line.split()
            listed[(runtime, test)] = reason.strip()
    return listed


def _for_this_role(item):
    """test_cgroup_v2.py is run again by itself, as user and as root, in a pure cgroup v2 view."""
    if item.get_closest_marker("not_nested") and item.callspec.params.get("runtime_name") in NESTED:
        return False
    if item.module.__name__ != "test_cgroup_v2":
        return True
    role = os.environ.get("KELP_TEST_V2")
    if role is None or item.originalname == "test_in_a_pure_view":
        return role is None and item.originalname == "test_in_a_pure_view"
    wanted = getattr(item.function, "role", role)
    # crun raises RLIMIT_MEMLOCK for its device filter, which the root of a container may not.
    return wanted == role and not (hasattr(item.function, "role") and item.callspec.params.get("runtime_name") == "crun")


def _runtime_of(item):
    params = item.callspec.params if getattr(item, "callspec", None) else {}
    return params.get("runtime_name") or params.get("nested_oci")


_played_twice = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    if _runtime_of(item) not in PEERS:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if any(report.failed for report in reports):
        _played_twice.append(item.nodeid)
        item._initrequest()  # new fixtures: a new bundle, a new state
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter):
    if _played_twice:
        terminalreporter.section("tests of peers that were played twice")
        for name in _played_twice:
            terminalreporter.line(name)


def pytest_collection_modifyitems(config, items):
    config.hook.pytest_deselected(items=[item for item in items if not _for_this_role(item)])
    items[:] = [item for item in items if _for_this_role(item)]
    listed = _exceptions()
    for item in items:
        runtime = _runtime_of(item)
        if not runtime:
            continue
        name = item.nodeid.split("/")[-1].replace(f"[{runtime}-", "[").replace(f"-{runtime}]", "]")
        name = name.replace(f"[{runtime}]", "")
        reason = listed.get((runtime, name)) or listed.get((runtime, name.split("[")[0]))
        if reason:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=not reason.startswith("race:"), raises=BaseException))


def pytest_generate_tests(metafunc):
    if "runtime_name" in metafunc.fixturenames:
        more = [MOUNT2] if "RUNTIME" not in os.environ and metafunc.module.__name__ in MOUNT2_TESTS else []
        metafunc.parametrize("runtime_name", RUNTIMES + more)


class Nested:
    """A user namespace with the caller as 0, his ranges from 1 on, and a pure cgroup v2 view; lives until end()."""

    OPTIONS = ("--cgroup",)  # of unshare, and
    JOIN = ("-C",)           # of nsenter, beside those of every one
    PROGRAM = ("sh", "-c", "mount -t cgroup2 none /sys/fs/cgroup && echo $$ && exec sleep infinity")

    def __init__(self):
        self.process = subprocess.Popen(
            ["unshare", "--map-root-user", "--map-auto", "--mount", *self.OPTIONS, "--kill-child", *self.PROGRAM],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        processes.expect(self.process.pid)  # it outlives tests
        self.pid = self._first()
        self.ids = min(int(open(f"/proc/{self.pid}/{kind}_map").read().split()[-1]) for kind in ("uid", "gid"))

    def _first(self):
        """The number of its first process, when all is set up."""
        return int(self.process.stdout.readline())

    def prefix(self):
        return ["nsenter", "-t", str(self.pid), "-U", "-m", *self.JOIN, "--preserve-credentials", "--"]

    def end(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        processes.forget(self.process.pid)


@pytest.fixture(scope="session")
def nested_namespace():
    needs.need("userns")
    needs.need("subids")
    made = Nested()
    yield made
    made.end()


def own_ids():
    """First id and number of the caller's subordinate ranges, (uids, gids)."""
    names = {str(os.getuid()), subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()}
    found = []
    for path in ("/etc/subuid", "/etc/subgid"):
        lines = (line.strip().split(":") for line in open(path))
        found.append(next((int(first), int(count)) for name, first, count in lines if name in names))
    return found


class Result:
    def __init__(self, argv, code, out, err):
        self.argv, self.code, self.out, self.err = argv, code, out, err

    @property
    def lines(self):
        return self.out.splitlines()

    @property
    def json(self):
        assert self.lines, str(self)
        return json.loads(self.lines[0])

    def __str__(self):
        return f"$ {' '.join(self.argv)}\nexit {self.code}\n--- stdout\n{self.out}--- stderr\n{self.err}"


class Runtime:
    """One runtime with a state directory of its own and a bundle that a test may change before it starts."""

    def __init__(self, name, place, nested):
        self.name, self.place, self.nested = name, place, nested
        self.is_kelp = name.startswith("kelp-oci")
        program = programs.program("kelp-oci") if self.is_kelp else needs.find_program(name)
        self.base = [program, "--root", str(place / "state")]
        if name == MOUNT2:
            self.base = confine.command(*self.base, missing=NEW_MOUNT_CALLS, keep_privileges=True)
        self.base = [*(nested.prefix() if nested else []), *self.base]
        self.role = os.environ.get("KELP_TEST_V2")  # in a pure cgroup v2 view, as user or as root
        if name == "crun":
            self.base.append("--cgroup-manager=" + ("cgroupfs" if self.role else "disabled"))
        self.bundle = place / "b"
        self.rootfs = self.bundle / "rootfs"
        for directory in ("proc", "sys", "dev", "tmp", "etc", "home"):
            (self.rootfs / directory).mkdir(parents=True)
        shutil.copy(programs.build_dir() / "tests/payload/probe", self.rootfs / "probe")
        self.config = self.default_config()
        self.env = {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "HOME": str(place),
                    "XDG_RUNTIME_DIR": str(place / "run"), "XDG_CACHE_HOME": str(place / "cache")}
        (place / "run").mkdir(mode=0o700)
        self.started, self.processes = [], []

    def mappings(self):
        if self.role == "root":
            return [], []
        if self.nested:
            both = [{"containerID": 0, "hostID": 0, "size": 1},
                    {"containerID": 1, "hostID": 1, "size": self.nested.ids}]
            return both, both
        maps = []
        for own, (first, count) in zip((os.getuid(), os.getgid()), own_ids()):
            maps.append([{"containerID": 0, "hostID": own, "size": 1}, {"containerID": 1, "hostID": first, "size": count}])
        return maps

    def default_config(self):
        uids, gids = self.mappings()
        caps = {kind: list(CAPS) for kind in ("bounding", "effective", "permitted")}
        return {
            "ociVersion": "1.0.2",
            "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["/probe", "info"],
                        "env": ["PATH=/bin", "HOME=/"], "cwd": "/", "noNewPrivileges": True, "capabilities": caps},
            "root": {"path": "rootfs", "readonly": False},
            "hostname": "box",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                 "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "user", "cgroup")
                               if kind != "user" or self.role != "root"],
                "uidMappings": uids, "gidMappings": gids,
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys", "/proc/bus"],
            },
        }

    @property
    def process(self):
        return self.config["process"]

    @property
    def linux(self):
        return self.config["linux"]

    def write_config(self):
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def __call__(self, *args, code=0, timeout=120, stdin=None, pass_fds=(), env=None):
        """The runtime's own command line. code None: any."""
        argv = [*self.base, *map(str, args)]
        done = subprocess.Popen(argv, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.bundle, pass_fds=pass_fds,
                                env={**self.env, **(env or {})})
        self.processes.append(done)
        try:
            out, err = done.communicate(stdin.encode() if stdin is not None else None, timeout=timeout)
        except subprocess.TimeoutExpired:
            done.kill()
            raise AssertionError(f"still running after {timeout} s: {argv}") from None
        result = Result(argv, done.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
        assert code is None or result.code == code, str(result)
        return result

    def run(self, *probe, code=0, id="c1", args=(), **keywords):
        """`run` to the end with the probe's words (none: the configuration's args stay)."""
        if probe:
            self.process["args"] = ["/probe", *probe]
        self.write_config()
        self.started.append(id)
        return self("run", *args, "--bundle", self.bundle, id, code=code, **keywords)

    def info(self, **keywords):
        return self.run("info", **keywords).json

    def create(self, *probe, id="c1", args=()):
        """`create`; the container's stdout goes to the file out."""
        if probe:
            self.process["args"] = ["/probe", *probe]
        self.write_config()
        self.started.append(id)
        with open(self.place / "out", "w") as out, open(self.place / "err", "w") as err:
            done = subprocess.run([*self.base, "create", *map(str, args), "--bundle", str(self.bundle), id], stdout=out,
                                  stderr=err, stdin=subprocess.DEVNULL, env=self.env, cwd=self.bundle, timeout=120)
        assert done.returncode == 0, (self.place / "err").read_text()

    def start(self, id="c1"):
        self("start", id)

    def output(self, text=None, timeout=20):
        """stdout of a created container, once it holds `text`."""
        end = time.monotonic() + timeout
        while True:
            content = (self.place / "out").read_text()
            if text is None or text in content:
                return content
            assert time.monotonic() < end, f"{text!r} did not come; out: {content!r}"
            time.sleep(0.01)

    def state(self, id="c1"):
        return json.loads(self("state", id).out)

    def wait_status(self, status, id="c1", timeout=20):
        end = time.monotonic() + timeout
        while self.state(id)["status"] != status:
            assert time.monotonic() < end, self.state(id)
            time.sleep(0.01)
        return self.state(id)

    def exec_detached(self, *probe, id="c1"):
        """A process that goes on; nothing of ours may be its stdout, or we would wait for its end."""
        subprocess.run([*self.base, "exec", "--detach", id, "/probe", *probe], env=self.env, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=120)

    def exec(self, *probe, id="c1", args=(), **keywords):
        return self("exec", *args, id, "/probe", *probe, **keywords)

    def end(self):
        for id in set(self.started):
            self("delete", "--force", id, code=None)
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def _make(name, place, request):
    if not name.startswith("kelp-oci"):
        needs.need(f"program:{name}")
    if os.environ.get("KELP_TEST_V2") != "root":
        needs.need("userns")
        needs.need("subids")
    nested = None
    if name in NESTED and not os.environ.get("KELP_TEST_V2"):
        nested = request.getfixturevalue("nested_namespace")
    return Runtime(name, place, nested)


@pytest.fixture
def oci(runtime_name, place, request):
    """A runtime and a bundle; what the test leaves behind is deleted, and for kelp-oci must have left nothing."""
    made = _make(runtime_name, place, request)
    yield made
    made.end()
    if made.is_kelp:
        left = [path.name for path in (place / "state").iterdir()] if (place / "state").exists() else []
        assert left == [], f"left in the state directory: {left}"


@pytest.fixture(params=[name for name in RUNTIMES if name in ("kelp-oci-nested", "crun")])
def nested_oci(request, place):
    """A runtime inside a user namespace: for what that namespace has to own."""
    made = _make(request.param, place, request)
    yield made
    made.end()


@pytest.fixture
def kelp_oci_nested(place, request):
    """kelp-oci alone, inside a user namespace."""
    made = _make("kelp-oci-nested", place, request)
    yield made
    made.end()


@pytest.fixture
def kelp_oci(place, request):
    """kelp-oci alone, for what is its own: messages, hints, private options."""
    made = _make("kelp-oci", place, request)
    yield made
    made.end()
