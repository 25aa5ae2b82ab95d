"""What needs a cgroup of the container's own: pause, kill --all, ps, events, update, the device filter, groups by path.

The host's layout may be hybrid and nothing delegated, so these tests run a second time over: the two tests at the end
ask root's helper to run all the others in a pure cgroup v2 view with a delegated group, as an ordinary user and as root.
Only controllers that no v1 hierarchy holds can be had there; limits of memory, CPU and pids are tests/vm's.
"""

import json
import os
import pathlib
import subprocess
import time

import pytest

from harness import needs, programs, root_agent
from harness.waiting import until

ROLE = os.environ.get("KELP_TEST_V2")
PEERS = {"user": ("runc",), "root": ("crun", "runc")}  # crun as an ordinary user makes groups through systemd alone
SECONDS = 300


def pytest_generate_tests(metafunc):
    if "role" in metafunc.fixturenames:
        metafunc.parametrize("role", ["user", "root"])


def group_of(pid):
    return pathlib.Path("/sys/fs/cgroup" + open(f"/proc/{pid}/cgroup").read().split("::", 1)[1].strip())


def running(oci, *more):
    oci.create("wait", *more)
    oci.start()
    oci.output("ready")
    return oci.state()["pid"]


def test_pause_and_resume(oci):
    pid = running(oci)
    oci("pause", "c1")
    assert oci.state()["status"] == "paused"
    assert (group_of(pid) / "cgroup.freeze").read_text().strip() == "1"
    assert oci.exec("exit", "0", code=None).code != 0
    oci("resume", "c1")
    assert oci.state()["status"] == "running"
    if oci.name != "crun":
        assert oci("resume", "c1", code=None).code != 0
    assert oci.exec("exit", "0").code == 0


def test_exec_in_a_paused_one_waits(kelp_oci):
    """--ignore-paused: it is started, and runs when the others do."""
    running(kelp_oci)
    kelp_oci("pause", "c1")
    waits = subprocess.Popen([*kelp_oci.base, "exec", "--ignore-paused", "c1", "/probe", "echo", "inside"],
                             stdout=subprocess.PIPE, text=True, env=kelp_oci.env)
    kelp_oci.processes.append(waits)
    assert kelp_oci.state()["status"] == "paused" and waits.poll() is None
    kelp_oci("resume", "c1")
    assert waits.communicate(timeout=60)[0] == "inside\n"


@pytest.mark.parametrize("option,words", [
    ("--cpu-rt-period", "cpu.realtimePeriod"), ("--cpu-rt-runtime", "cpu.realtimeRuntime"),
    ("--kernel-memory", "memory.kernel"), ("--kernel-memory-tcp", "memory.kernelTCP"), ("--cpu-burst", "cpu.burst"),
    ("--cpu-idle", "cpu.idle"), ("--l3-cache-schema", "Intel RDT"), ("--mem-bw-schema", "Intel RDT")])
def test_update_of_what_cannot_be_set_is_refused(kelp_oci, option, words):
    """cgroup v2 has no such limit, or, for the last two of cpu's, this view has no such controller."""
    if "cpu." in words and "cpu" in open("/sys/fs/cgroup/cgroup.controllers").read().split():
        pytest.skip("the controller is there")
    running(kelp_oci)
    done = kelp_oci("update", option, "1", "c1", code=None)
    assert done.code != 0 and words in done.err, str(done)


def test_paused_one_is_deleted(oci):
    running(oci)
    oci("pause", "c1")
    oci("delete", "--force", "c1")
    assert oci("state", "c1", code=None).code != 0


def test_group_by_path(oci):
    own = open("/proc/self/cgroup").read().split("::", 1)[1].strip()
    path = os.path.dirname(own) + "/by-path/c1"
    oci.linux["cgroupsPath"] = path
    pid = running(oci)
    group = group_of(pid)
    assert str(group).startswith("/sys/fs/cgroup" + path)
    oci("delete", "--force", "c1")
    assert not group.exists(), "the group is left behind"
    parent = pathlib.Path("/sys/fs/cgroup" + path).parent
    if parent.exists():
        parent.rmdir()


def test_ps_and_kill_all(oci):
    pid = running(oci)
    oci.exec_detached("sleep", "1000")
    pids = json.loads(oci("ps", "--format", "json", "c1").out)
    assert len(pids) == 2 and pid in pids
    table = oci("ps", "c1").lines
    assert "PID" in table[0] and len(table) == 3
    oci("kill", *(["--all"] if oci.is_kelp else []), "c1", "KILL")
    if oci.is_kelp:  # for others it runs until its last process, a child of this test's, is reaped
        oci.wait_status("stopped")
    end = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{one}/exe") for one in pids):
        assert time.monotonic() < end, "it still runs"
        time.sleep(0.01)


def test_delete_takes_all_without_a_pid_namespace(oci):
    """Nothing but the group knows the other processes then."""
    oci.linux["namespaces"] = [entry for entry in oci.linux["namespaces"] if entry["type"] != "pid"]
    oci.config["mounts"] = [entry for entry in oci.config["mounts"] if entry["type"] != "proc"]
    oci.linux["maskedPaths"] = oci.linux["readonlyPaths"] = []
    oci.config["mounts"].insert(0, {"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]})
    oci.create("background", "1000", ";", "wait")
    oci.start()
    other = int(oci.output("ready").split()[0])
    assert os.path.exists(f"/proc/{other}")
    oci("delete", "--force", "c1")
    assert not os.path.exists(f"/proc/{other}/exe")


@pytest.mark.parametrize("by", ["delete", "kill"])
def test_those_that_fork_away_are_reached(kelp_oci, by):
    """Each of them lives for an instant only, and its child is another: none gets away, by a number that has changed."""
    oci = kelp_oci
    oci.linux["namespaces"] = [entry for entry in oci.linux["namespaces"] if entry["type"] != "pid"]
    oci.config["mounts"] = [entry for entry in oci.config["mounts"] if entry["type"] != "proc"]
    oci.linux["maskedPaths"] = oci.linux["readonlyPaths"] = []
    oci.config["mounts"].insert(0, {"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]})
    id = f"away-{by}"  # a group that nobody has left behind
    oci.create("fork-away", "20", id=id)
    oci.start(id)
    oci.output("ready")
    group = group_of(oci.state(id)["pid"])
    try:
        if by == "kill":
            oci("kill", "--all", id, "TERM")
            until("their end", lambda: not (group / "cgroup.procs").read_text())
        oci("delete", *(["--force"] if by == "delete" else []), id)
        assert not group.exists()
    finally:
        if group.exists():
            (group / "cgroup.kill").write_text("1")


def test_exec_is_in_the_group(oci):
    pid = running(oci)
    own = [line for line in oci.exec("info").json["cgroup"].splitlines() if line.startswith("0::")]
    assert own == ["0::/"]
    subprocess.run(["mkdir", str(group_of(pid) / "sub")], check=True)
    if oci.is_kelp:
        assert "0::/sub" in oci.exec("info", args=("--cgroup", "sub")).json["cgroup"].splitlines()
        assert oci.exec("info", args=("--cgroup", "../x"), code=None).code != 0
    os.rmdir(group_of(pid) / "sub")


def keys_of(value, prefix=""):
    """Paths of all members, lists by their first element."""
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, dict):
        return {prefix}
    return set().union({prefix}, *(keys_of(member, f"{prefix}.{key}") for key, member in value.items()))


# Of the common ancestor's counters; a group without the controller has none. rdma and the like are left out when empty.
EVENT_KEYS = {".type", ".id", ".data", ".data.cpu", ".data.cpu.usage", ".data.cpu.usage.total", ".data.cpu.usage.kernel",
              ".data.cpu.usage.user", ".data.cpu.throttling", ".data.memory", ".data.memory.usage", ".data.memory.usage.limit",
              ".data.memory.swap", ".data.memory.kernel", ".data.memory.kernelTCP", ".data.pids", ".data.blkio",
              ".data.hugetlb", ".data.intel_rdt", ".data.network_interfaces"}


def test_events_stats(oci):
    running(oci)
    done = oci("events", "--stats", "c1")
    event = json.loads(done.lines[0])
    assert event["type"] == "stats" and event["id"] == "c1"
    assert EVENT_KEYS <= keys_of(event), sorted(EVENT_KEYS - keys_of(event))


def test_unified_and_update(oci):
    """hugetlb is the controller that v1 leaves to v2 nearly everywhere."""
    oci.linux["resources"] = {"unified": {"hugetlb.2MB.max": "4194304"}}
    pid = running(oci)
    limit = group_of(pid) / "hugetlb.2MB.max"
    if not limit.exists():
        pytest.skip("needs the controller hugetlb")
    assert limit.read_text().strip() == "4194304"
    (oci.place / "r.json").write_text(json.dumps({"unified": {"hugetlb.2MB.max": "2097152"}}))
    oci("update", "--resources", oci.place / "r.json", "c1")
    if oci.is_kelp:
        assert limit.read_text().strip() == "2097152"


def test_hugepage_limit(oci):
    oci.linux["resources"] = {"hugepageLimits": [{"pageSize": "2MB", "limit": 6291456}]}
    pid = running(oci)
    assert (group_of(pid) / "hugetlb.2MB.max").read_text().strip() == "6291456"


def test_limit_without_its_controller_is_refused(kelp_oci):
    if "memory" in open("/sys/fs/cgroup/cgroup.controllers").read():
        pytest.skip("the controller is there")
    kelp_oci.linux["resources"] = {"memory": {"limit": 100000000}}
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and "linux.resources.memory.limit" in done.err and "hint:" in done.err


def as_root(test):
    """The kernel makes no device nodes in a user namespace."""
    test.role = "root"
    return test


def device_config(oci, *rules):
    """Caps to make nodes, and the usual nothing-but rule before those of the test."""
    for kind in ("bounding", "effective", "permitted"):
        oci.process["capabilities"][kind] = ["CAP_MKNOD", "CAP_DAC_OVERRIDE"]
    oci.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}, *rules]}


@as_root
def test_devices_are_denied(oci):
    """10:229 is /dev/fuse, which anybody may open elsewhere, 1:3 null, 5:2 ptmx. Even with the right to make nodes: what is not allowed cannot be opened."""
    device_config(oci)
    out = oci.run("mknod", "/tmp/fuse", "c", "10", "229", ";", "open", "/tmp/fuse", "r", ";", "mknod", "/tmp/null", "c", "1", "3", ";",
                  "write", "/tmp/null", "x", ";", "overwrite", "/dev/null", "x", ";", "try", "ptmx").lines
    assert out[0] == "ok" and "EPERM" in out[1] and out[2:] == ["ok", "ok", "ok", "ok"], out


@as_root
def test_allowed_device(oci):
    """Reading is allowed and writing is not: each kind of access by itself."""
    device_config(oci, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"})
    out = oci.run("mknod", "/tmp/fuse", "c", "10", "229", ";", "open", "/tmp/fuse", "r", ";", "open", "/tmp/fuse", "w").lines
    assert out[0] == "ok" and out[1] == "ok" and "EPERM" in out[2], out


@as_root
def test_later_rules_win(oci):
    device_config(oci, {"allow": True, "type": "c", "major": 10, "access": "rwm"},
                  {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "w"})
    out = oci.run("mknod", "/tmp/fuse", "c", "10", "229", ";", "open", "/tmp/fuse", "r", ";", "open", "/tmp/fuse", "w").lines
    assert out[1] == "ok" and "EPERM" in out[2], out


@as_root
def test_update_of_the_device_rules(oci):
    device_config(oci)
    oci.process["args"] = ["/probe", "mknod", "/tmp/fuse", "c", "10", "229", ";", "wait"]
    oci.create()
    oci.start()
    oci.output("ready")
    assert "EPERM" in oci.exec("open", "/tmp/fuse", "r").lines[0]
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}]
    (oci.place / "r.json").write_text(json.dumps({"devices": rules}))
    oci("update", "--resources", oci.place / "r.json", "c1")
    assert oci.exec("open", "/tmp/fuse", "r").lines == ["ok"]


def test_group_that_was_killed_is_used_again(kelp_oci):
    """A group that others made, and whose processes cgroup.kill has ended: the next container must live in it."""
    own = open("/proc/self/cgroup").read().split("::", 1)[1].strip()
    path = os.path.dirname(own) + "/again"
    group = pathlib.Path("/sys/fs/cgroup" + path)
    group.mkdir()
    kelp_oci.linux["cgroupsPath"] = path
    for id in ("c1", "c2"):
        kelp_oci.create("wait", id=id)
        kelp_oci.start(id)
        kelp_oci.output("ready")
        (group / "cgroup.kill").write_text("1")
        kelp_oci.wait_status("stopped", id)
        kelp_oci("delete", id)
    assert group.exists(), "it is not the container's to remove"
    group.rmdir()


def test_in_a_pure_view(role):
    needs.need("root-agent")
    runtimes = ["kelp-oci", *(peer for peer in PEERS[role] if needs.find_program(peer))]
    status, output = root_agent.Agent(os.environ["KELP_TEST_ROOT_AGENT"])(
        "v2-tests", timeout=SECONDS, role=role, build=str(programs.build_dir()), runtimes=",".join(runtimes),
        arguments=[])
    print(output)
    assert status == 0
