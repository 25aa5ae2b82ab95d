"""Namespaces: new, given by path, left out; id maps; time offsets."""

import os
import subprocess

import pytest


def drop(oci, *kinds):
    oci.linux["namespaces"] = [entry for entry in oci.linux["namespaces"] if entry["type"] not in kinds]


def test_left_out_is_shared(oci):
    drop(oci, "network", "ipc")
    info = oci.info()
    assert info["ns"]["net"] == os.readlink("/proc/self/ns/net")
    assert info["ns"]["ipc"] == os.readlink("/proc/self/ns/ipc")


def test_id_maps(oci):
    info = oci.info()
    first = [int(word) for word in info["uid_map"].split("\n")[0].split()]
    assert first[0] == 0 and first[2] == 1
    assert len(info["uid_map"].strip().split("\n")) == 2
    assert info["setgroups"].strip() == "allow"


def test_single_id(oci):
    if oci.nested:
        one = [{"containerID": 0, "hostID": 0, "size": 1}]
        oci.linux["uidMappings"] = oci.linux["gidMappings"] = one
    else:
        oci.linux["uidMappings"] = [{"containerID": 0, "hostID": os.getuid(), "size": 1}]
        oci.linux["gidMappings"] = [{"containerID": 0, "hostID": os.getgid(), "size": 1}]
    oci.config["mounts"][2]["options"].remove("gid=5")
    info = oci.info()
    assert info["uids"] == [0, 0, 0] and info["uid_map"].split()[2] == "1"


def test_join_by_path(oci):
    """A second container in the first one's user, network and ipc namespaces."""
    oci.create("wait")
    oci.start()
    oci.output("ready")
    pid = oci.state()["pid"]
    names = {"user": "user", "network": "net", "ipc": "ipc"}
    for entry in oci.linux["namespaces"]:
        if entry["type"] in names:
            entry["path"] = f"/proc/{pid}/ns/{names[entry['type']]}"
    oci.linux.pop("uidMappings")
    oci.linux.pop("gidMappings")
    inside = oci.info(id="c2")
    assert inside["ns"]["net"] == os.readlink(f"/proc/{pid}/ns/net")
    assert inside["ns"]["user"] == os.readlink(f"/proc/{pid}/ns/user")
    assert inside["ns"]["mnt"] != os.readlink(f"/proc/{pid}/ns/mnt")


ALL = {"user": "user", "network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid", "cgroup": "cgroup", "time": "time", "mount": "mnt"}


@pytest.fixture
def mount_namespace_beside():
    """Makes a mount namespace with the host's files that the user namespace of a process owns; returns its path."""
    made = []

    def make(pid):
        beside = subprocess.Popen(["nsenter", "-t", str(pid), "-U", "--preserve-credentials", "unshare", "--mount", "sh", "-c",
                                   "echo made; exec sleep infinity"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        made.append(beside)
        beside.stdout.readline()
        return f"/proc/{beside.pid}/ns/mnt"

    yield make
    for beside in made:
        beside.kill()
        beside.wait()


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "user"])
def test_each_kind_is_joined_by_path(kelp_oci, mount_namespace_beside, kind):
    """Beside the first one's user namespace, whose it is; all others are new."""
    oci = kelp_oci
    oci.linux["namespaces"].append({"type": "time"})
    oci.create("wait")
    oci.start()
    oci.output("ready")
    pid = oci.state()["pid"]
    paths = {name: f"/proc/{pid}/ns/{name}" for name in ALL.values()}
    if kind == "mount":  # the first one's own has no more than its root in it
        paths["mnt"] = mount_namespace_beside(pid)
    links = {name: os.readlink(path) for name, path in paths.items()}
    for entry in oci.linux["namespaces"]:
        if entry["type"] in ("user", kind):
            entry["path"] = paths[ALL[entry["type"]]]
    for key in ("uidMappings", "gidMappings"):
        oci.linux.pop(key)
    if kind == "uts":
        oci.config.pop("hostname")
    inside = oci.info(id="c2")["ns"]
    assert {name for name in ALL.values() if inside[name] == links[name]} == {"user", ALL[kind]}


def test_bad_path(oci):
    for entry in oci.linux["namespaces"]:
        if entry["type"] == "network":
            entry["path"] = "/proc/1073741823/ns/net"
    assert oci.run("exit", "0", code=None).code != 0


def test_time_offsets(oci):
    oci.config["ociVersion"] = "1.1.0"
    oci.linux["namespaces"].append({"type": "time"})
    oci.linux["timeOffsets"] = {"boottime": {"secs": 100000000, "nanosecs": 0}, "monotonic": {"secs": 200000000, "nanosecs": 0}}
    info = oci.info()
    assert 100000000 < info["boottime"] < 200000000 < info["monotonic"]


def test_loopback_is_up(oci):
    text = oci.run("cat", "/proc/net/if_inet6").out
    assert " lo" in text


def test_unmapped_user_is_refused(oci):
    oci.process["user"] = {"uid": 400000000, "gid": 0}
    done = oci.run("exit", "0", code=None)
    assert done.code != 0
