"""Under filters of engines that know only mount(2): test_mounts.py and others run so, too ("kelp-oci-mount2")."""

import pathlib

import pytest

from harness import confine


def confined(oci, **how):
    """The runtime under a filter, inside the namespaces that it is started in."""
    at = len(oci.nested.prefix())
    oci.base = [*oci.base[:at], *confine.command(*oci.base[at:], keep_privileges=True, **how)]
    return oci


@pytest.mark.parametrize("how", [{"missing": ("open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "mount_setattr")},
                                 {"deny": ("open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "mount_setattr")},
                                 {"missing": ("mount_setattr",)}])
def test_start(kelp_oci_nested, how):
    """ENOSYS and EPERM are both seen, and so is a kernel that lacks the youngest call alone."""
    oci = confined(kelp_oci_nested, **how)
    volume = oci.place / "volume"
    (volume / "below").mkdir(parents=True)
    (oci.place / "note").write_text("")
    oci.config["mounts"] += [
        {"destination": "/data", "type": "bind", "source": str(volume), "options": ["rbind", "rro"]},
        {"destination": "/file", "type": "bind", "source": str(oci.place / "note"), "options": ["bind", "ro"]}]
    oci.linux["maskedPaths"].append("/etc")
    oci.config["root"]["readonly"] = True
    done = oci.run("write", "/data/below/x", "1", ";", "overwrite", "/file", "1", ";", "ls", "/etc", ";", "write", "/x", "1", ";",
                   "write", "/proc/sys/kernel/hostname", "x", ";", "write", "/dev/null", "1", args=("--no-new-keyring",))
    assert [line.split(":")[0] for line in done.lines] == ["errno 30 EROFS", "errno 30 EROFS", "[]", "errno 30 EROFS",
                                                           "errno 30 EROFS", "ok"], str(done)
    oci.base.insert(-2, "--debug")
    assert "using mount(2)" in oci.run("exit", "0", id="c2").err


def test_host_sees_none_of_it(kelp_oci_nested):
    """Mounts wait over /dev, in the container's mount namespace and in no other."""
    oci = confined(kelp_oci_nested, missing=("open_tree", "mount_setattr"))
    before = pathlib.Path(f"/proc/{oci.nested.pid}/mountinfo").read_text()
    oci.create("wait")
    oci.start()
    oci.output("ready")
    assert pathlib.Path(f"/proc/{oci.nested.pid}/mountinfo").read_text() == before


def test_what_cannot_be_done_is_said(kelp_oci_nested):
    oci = confined(kelp_oci_nested, missing=("open_tree", "mount_setattr"))
    oci.config["mounts"].append({"destination": "/data", "type": "bind", "source": str(oci.place), "options": ["rbind", "ridmap"],
                                 "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
                                 "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]})
    done = oci.run("exit", "0", code=None)
    assert done.code != 0 and "mount_setattr" in done.err and "/data" in done.err, str(done)
    oci.config["mounts"][-1] = {"destination": "/", "type": "bind", "source": "none", "options": ["remount", "rnosuid"]}
    done = oci.run("exit", "0", id="c2", code=None)
    assert done.code != 0 and "mount_setattr" in done.err, str(done)
