"""linux.netDevices: a device of the host becomes the container's."""

import json
import os

import pytest

from harness import needs, root_agent

# A network that stands for the host's, with a pair of devices; one has addresses of several kinds.
HOST = """set -e
ip link set lo up
ip link add kt0 type veth peer name kt1
ip link set kt0 mtu 1400 address 02:00:00:00:00:07 up
ip addr add 10.9.8.7/24 brd 10.9.8.255 dev kt0
ip addr add fd00::7/64 dev kt0 nodad
ip addr add 169.254.3.3/16 scope link dev kt0
if "$@"; then echo "left: $(ls /sys/class/net)"; else echo "status $?: $(ls /sys/class/net)"; fi
"""


@pytest.fixture
def as_root(kelp_oci):
    """Runs the bundle as root, in a network of its own with the devices above; [status, stdout, stderr]."""
    needs.need("root-agent")
    needs.need("program:ip")

    def run(user_namespace=False):
        oci = kelp_oci
        if not user_namespace:
            oci.linux["namespaces"] = [entry for entry in oci.linux["namespaces"] if entry["type"] != "user"]
            del oci.linux["uidMappings"], oci.linux["gidMappings"]
        oci.write_config()
        argv = ["unshare", "--net", "sh", "-c", "mount -t sysfs none /sys\n" + HOST, "sh", *oci.base[:-2], "--root",
                str(oci.place / "root-state"), "--cgroup-manager", "disabled", "run", "--bundle", str(oci.bundle), "c1"]
        return root_agent.Agent(os.environ["KELP_TEST_ROOT_AGENT"])("host", role="root", setup="", argv=argv,
                                                                    env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})

    yield run


SHOW = ["/probe", "ls", "/sys/class/net", ";", "cat", "/sys/class/net/eth7/mtu", ";", "cat", "/sys/class/net/eth7/address", ";",
        "cat", "/sys/class/net/eth7/flags", ";", "cat", "/proc/net/fib_trie", ";", "cat", "/proc/net/if_inet6"]


@pytest.mark.parametrize("user_namespace", [False, True])
def test_device_is_moved_and_renamed(kelp_oci, as_root, user_namespace):
    """With its size, its hardware address and its permanent addresses, and set up; those of the link are made anew."""
    kelp_oci.linux["netDevices"] = {"kt0": {"name": "eth7"}, "kt1": {}}
    kelp_oci.process["args"] = SHOW
    status, out, err = as_root(user_namespace)
    assert status == 0, err
    lines = out.splitlines()
    assert set(json.loads(lines[0])) >= {"lo", "eth7", "kt1"} and "kt0" not in lines[0], out
    assert lines[1:3] == ["1400", "02:00:00:00:00:07"] and int(lines[3], 16) & 1, out
    assert "10.9.8.7" in out and "169.254.3.3" not in out and "fd000000000000000000000000000007" in out, out
    assert out.rstrip().endswith("left: lo"), out


def test_device_that_is_not_there(kelp_oci):
    kelp_oci.linux["netDevices"] = {"kt-none": {}}
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and "linux.netDevices.kt-none" in done.err and "No such device" in done.err, str(done)


def test_name_that_is_taken(kelp_oci, as_root):
    kelp_oci.linux["netDevices"] = {"kt0": {"name": "eth7"}, "kt1": {"name": "lo"}}
    kelp_oci.process["args"] = SHOW
    status, out, err = as_root()
    assert "linux.netDevices.kt1" in err and "File exists" in err and "status" in out, (status, out, err)


def test_user_cannot_take_a_device(kelp_oci):
    kelp_oci.linux["netDevices"] = {"lo": {"name": "lo9"}}
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and "linux.netDevices.lo" in done.err and "hint:" in done.err, str(done)


@pytest.mark.parametrize("devices,said", [({"a/b": {}}, "a/b"), ({"kt0": {"name": "eth%d"}}, "eth%d"), ({"kt0": {"name": "."}}, "."),
                                          ({"kt0": {"name": "eth0"}, "kt1": {"name": "eth0"}}, "two devices")])
def test_names(kelp_oci, devices, said):
    kelp_oci.linux["netDevices"] = devices
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and "linux.netDevices" in done.err and said in done.err, str(done)


def test_needs_a_network_namespace(kelp_oci):
    kelp_oci.linux["netDevices"] = {"kt0": {}}
    kelp_oci.linux["namespaces"] = [entry for entry in kelp_oci.linux["namespaces"] if entry["type"] != "network"]
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and "linux.netDevices" in done.err and "network namespace" in done.err, str(done)
