"""Mounts, devices, masked and read-only paths, the root."""

import json
import os

import pytest


def lines_of(oci, *probe):
    return oci.run(*probe).lines


def test_devices(oci):
    probe = []
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        probe += ["stat", f"/dev/{name}", ";"]
    nodes = [json.loads(line) for line in lines_of(oci, *probe)]
    assert [node["type"] for node in nodes] == ["char"] * 6
    assert [(node["major"], node["minor"]) for node in nodes] == [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)]


def test_device_links(oci):
    links = lines_of(oci, "lstat", "/dev/fd", ";", "lstat", "/dev/stdin", ";", "lstat", "/dev/ptmx")
    targets = [json.loads(line).get("target") for line in links]
    assert targets[:2] == ["/proc/self/fd", "/proc/self/fd/0"]
    assert targets[2] in ("pts/ptmx", "/dev/pts/ptmx")
    assert lines_of(oci, "try", "ptmx") == ["ok"]


def test_masked_paths(oci):
    oci.linux["maskedPaths"] = ["/proc/kcore", "/proc/timer_list", "/etc", "/nonexistent"]
    (oci.rootfs / "etc/secret").write_text("s")
    out = lines_of(oci, "cat", "/proc/timer_list", ";", "ls", "/etc")
    assert out == ["[]"]


def test_readonly_paths(oci):
    (oci.rootfs / "etc/file").write_text("")
    oci.linux["readonlyPaths"] = ["/etc", "/proc/sys", "/nonexistent"]
    out = lines_of(oci, "write", "/etc/x", "1", ";", "overwrite", "/etc/file", "1", ";",
                   "overwrite", "/proc/sys/kernel/hostname", "x", ";", "write", "/tmp/x", "1")
    assert "EROFS" in out[0] and "EROFS" in out[1] and out[3] == "ok"
    assert out[2] != "ok"


def test_readonly_root(oci):
    oci.config["root"]["readonly"] = True
    out = lines_of(oci, "write", "/tmp/x", "1", ";", "write", "/dev/shm/x", "1")
    assert "EROFS" in out[0] and out[1] == "ok"


def test_bind_mounts(oci):
    source = oci.place / "data"
    source.mkdir()
    (source / "in").write_text("content\n")
    oci.config["mounts"] += [
        {"destination": "/data", "type": "bind", "source": str(source), "options": ["rbind", "rw"]},
        {"destination": "/ro", "type": "bind", "source": str(source), "options": ["rbind", "ro"]},
        {"destination": "/a/b/file", "type": "bind", "source": str(source / "in"), "options": ["bind", "ro"]}]
    out = lines_of(oci, "cat", "/data/in", ";", "write", "/data/out", "x", ";", "write", "/ro/out", "y", ";",
                   "cat", "/a/b/file")
    assert out == ["content", "ok", "errno 30 EROFS: Read-only file system", "content"]
    assert (source / "out").read_text() == "x"
    assert os.stat(source / "out").st_uid == os.getuid()


def test_tmpfs_options(oci):
    oci.config["mounts"].append({"destination": "/t", "type": "tmpfs", "source": "tmpfs",
                                 "options": ["nosuid", "nodev", "noexec", "mode=1750", "size=64k"]})
    out = lines_of(oci, "stat", "/t", ";", "cat", "/proc/self/mountinfo")
    assert json.loads(out[0])["mode"] == 0o1750
    line = next(line for line in out[1:] if " /t " in line)
    assert "size=64k" in line and {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))


def test_mount_order_and_nesting(oci):
    outer, inner = oci.place / "outer", oci.place / "inner"
    (outer / "sub").mkdir(parents=True)
    inner.mkdir()
    (inner / "x").write_text("inner\n")
    oci.config["mounts"] += [
        {"destination": "/m", "type": "bind", "source": str(outer), "options": ["rbind"]},
        {"destination": "/m/sub", "type": "bind", "source": str(inner), "options": ["rbind"]}]
    assert lines_of(oci, "cat", "/m/sub/x") == ["inner"]


def test_links_do_not_lead_out(oci):
    """A link in the image that points at a host directory is resolved inside the root."""
    outside = oci.place / "outside"
    outside.mkdir()
    (oci.rootfs / "link").symlink_to(outside)
    (oci.rootfs / "dots").symlink_to("../../../../../../../../../../" + str(outside))
    oci.config["mounts"] += [
        {"destination": "/link/made", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/dots/made", "type": "tmpfs", "source": "tmpfs"}]
    oci.run("exit", "0", code=None)
    assert list(outside.iterdir()) == []


def test_host_is_not_visible(oci):
    out = lines_of(oci, "ls", "/", ";", "cat", "/proc/self/mountinfo")
    assert set(json.loads(out[0])) == {"proc", "sys", "dev", "tmp", "etc", "home", "probe"}
    points = [line.split()[4] for line in out[1:]]
    assert points.count("/") == 1
    assert all(point == "/" or point.split("/")[1] in ("proc", "sys", "dev") for point in points)


def test_propagation_of_the_root(oci):
    for line in lines_of(oci, "cat", "/proc/self/mountinfo"):
        fields = line.split()
        assert not any(field.startswith("shared:") for field in fields[6:fields.index("-")]), line


def test_extra_device(oci):
    """A node of the host's in a user namespace, where none can be made; what is no device has its own mode and owner."""
    oci.linux["devices"] = [{"type": "c", "path": "/dev/null", "major": 1, "minor": 3, "fileMode": 0o666},
                            {"type": "p", "path": "/dev/line", "fileMode": 0o622, "uid": 7, "gid": 8}]
    null, line = (json.loads(text) for text in lines_of(oci, "stat", "/dev/null", ";", "stat", "/dev/line"))
    assert (null["type"], null["major"], null["minor"]) == ("char", 1, 3)
    assert (line["type"], line["mode"], line["uid"], line["gid"]) == ("fifo", 0o622, 7, 8)


@pytest.mark.parametrize("path, number", [("/dev/mynull", (1, 3)), ("/dev/null", (1, 5))], ids=["no-such-node", "another-node"])
def test_a_device_that_a_user_namespace_cannot_have_is_refused(kelp_oci, path, number):
    kelp_oci.linux["devices"] = [{"type": "c", "path": path, "major": number[0], "minor": number[1], "fileMode": 0o666}]
    kelp_oci.config["mounts"] = [entry for entry in kelp_oci.config["mounts"] if entry["destination"] != "/dev/shm"]
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and path in done.err and len(done.err.splitlines()) <= 2, str(done)


@pytest.mark.parametrize("missing", ["mounts", "root"])
def test_missing_source_names_it(oci, missing):
    if missing == "mounts":
        oci.config["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such/dir", "options": ["bind"]})
    else:
        oci.config["root"]["path"] = "no-such-dir"
    done = oci.run("exit", "0", code=None)
    assert done.code != 0 and "no" in done.err and "such" in done.err


def test_sysctl(oci):
    oci.linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80"}
    assert lines_of(oci, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start") == ["80"]


def test_sysctl_of_the_host_is_refused(oci):
    oci.linux["sysctl"] = {"vm.swappiness": "1"}
    done = oci.run("exit", "0", code=None)
    assert done.code != 0 and "swappiness" in done.err


def test_domainname(kelp_oci):
    kelp_oci.config["domainname"] = "example.org"
    assert kelp_oci.info()["domainname"] == "example.org"


def test_no_mounts_are_left_outside(oci):
    before = open("/proc/self/mountinfo").read()
    oci.run("exit", "0")
    assert open("/proc/self/mountinfo").read() == before
