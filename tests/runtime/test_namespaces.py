"""Namespaces: new, given by path, left out; id maps; time offsets."""

import os

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


def test_bad_path(oci):
    for entry in oci.linux["namespaces"]:
        if entry["type"] == "network":
            entry["path"] = "/proc/1073741823/ns/net"
    assert oci.run("exit", "0", code=None).code != 0


def test_time_offsets(oci):
    oci.config["ociVersion"] = "1.1.0"
    oci.linux["namespaces"].append({"type": "time"})
    oci.linux["timeOffsets"] = {"boottime": {"secs": 100000000, "nanosecs": 0}}
    assert oci.info()["boottime"] > 100000000


def test_loopback_is_up(oci):
    text = oci.run("cat", "/proc/net/if_inet6").out
    assert " lo" in text


def test_unmapped_user_is_refused(oci):
    oci.process["user"] = {"uid": 400000000, "gid": 0}
    done = oci.run("exit", "0", code=None)
    assert done.code != 0
