"""kelp doctor: a line for each requirement, the command that mends it, an exit status for scripts."""

import json
import os
import re
import subprocess

import pytest

from harness import confine, needs

NAMES = ["kernel", "programs", "run directory", "user namespaces", "id helpers", "subordinate ids", "new /proc", "seccomp",
         "storage", "overlay", "fuse-overlayfs", "/dev/net/tun", "slirp4netns", "pasta", "cgroups", "controllers", "user bus", "linger"]


def findings(kelp, *wrapper, code=0, **more):
    """{name: finding} of `kelp doctor`, run by the wrapper's command line where one is given."""
    argv = [*wrapper, kelp.path, "doctor", "--format", "json"]
    result = kelp(*argv[1:], program=argv[0], code=code, **more)
    answer = json.loads(result.out)
    assert [finding["Name"] for finding in answer["Findings"]] == NAMES
    for finding in answer["Findings"]:
        assert finding["Text"], finding
        assert (finding["Verdict"] == "ok") == (finding["Fix"] == ""), finding  # each that is not good says what mends it
    return {"level": answer["Level"], **{finding["Name"]: finding for finding in answer["Findings"]}}


def confined(kelp, code=0, **how):
    line = confine.command(kelp.path, **how)
    return findings(kelp, *line[:-1], code=code)


def test_every_requirement_has_its_line_and_those_that_lack_something_a_command(bare_kelp):
    lines = bare_kelp("doctor").lines
    heads = [line for line in lines if line.startswith(("✓ ", "! ", "✗ "))]
    assert [re.split(r"  +", line[2:])[0] for line in heads] == NAMES
    for line, following in zip(lines, lines[1:]):
        if line.startswith("!"):
            assert following.strip().startswith("→ "), line
    assert lines[-1].startswith("level: ")


def test_this_host_is_described_as_it_is(bare_kelp):
    found = findings(bare_kelp)
    assert found["user namespaces"]["Verdict"] == "ok"
    assert os.uname().release in found["kernel"]["Text"]
    assert (found["/dev/net/tun"]["Verdict"] == "ok") == needs.probe("tun")[0]
    assert str(bare_kelp.store) in found["storage"]["Text"]
    if needs.probe("subids")[0]:
        assert found["subordinate ids"]["Verdict"] == "ok" and "65536" in found["subordinate ids"]["Text"]
    info = json.loads(bare_kelp("info", "--format", "json").out)["host"]["levels"]
    assert (info["storage"]["driver"] == "overlay") == (found["overlay"]["Verdict"] == "ok")
    assert info["tun"] == (found["/dev/net/tun"]["Verdict"] == "ok")
    assert info["cgroups"]["limits"] == (found["cgroups"]["Verdict"] == "ok")


def test_nothing_is_left_behind(bare_kelp):
    bare_kelp("doctor")
    assert not [name for name in os.listdir(bare_kelp.store) if name.startswith(".probe")]


@pytest.mark.parametrize("how", [{"deny_user_namespaces": True},
                                 {"deny": confine.DOCKER_DENIES, "deny_user_namespaces": True}],
                         ids=["clone", "docker"])
def test_refused_user_namespaces_are_found_by_trying(bare_kelp, how):
    found = confined(bare_kelp, code=1, **how)
    assert found["level"] == "no user namespace"
    assert found["user namespaces"]["Verdict"] == "error" and "seccomp" in found["user namespaces"]["Text"]
    assert "--security-opt seccomp=unconfined" in found["user namespaces"]["Fix"]
    assert found["overlay"]["Verdict"] == "warning"


def test_namespaces_without_the_right_to_mount_are_no_namespaces(bare_kelp):
    """What AppArmor does on Ubuntu: unshare succeeds, and then nothing may be done."""
    found = confined(bare_kelp, code=1, deny=("mount", "mount_setattr", "fsmount", "fsopen", "move_mount"))
    assert found["level"] == "no user namespace" and "mounts in a user namespace" in found["user namespaces"]["Text"]


def test_a_system_call_that_is_missing_is_named(bare_kelp):
    found = confined(bare_kelp, code=1, missing=("mount_setattr", "openat2"))
    assert found["kernel"]["Verdict"] == "error"
    assert "openat2" in found["kernel"]["Text"] and "mount_setattr" in found["kernel"]["Text"]


def test_no_new_privs_means_one_id(bare_kelp):
    needs.need("subids")
    found = findings(bare_kelp, "setpriv", "--no-new-privs")
    assert found["level"].startswith("single-id") and "no_new_privs" in found["subordinate ids"]["Text"]
    assert found["user namespaces"]["Verdict"] == "ok"


def test_a_helper_that_is_not_there_or_without_privilege(bare_kelp, place):
    needs.need("subids")
    programs = place / "bin"
    programs.mkdir()
    for name in ("newuidmap", "newgidmap"):
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
        (programs / name).chmod(0o755)
    found = findings(bare_kelp, env={"PATH": f"{programs}:{bare_kelp.env['PATH']}"})
    assert f"{programs}/newuidmap" in found["id helpers"]["Text"]
    assert found["id helpers"]["Fix"] == f"sudo chmod u+s {programs}/newuidmap {programs}/newgidmap"
    assert found["level"].startswith("single-id")


def test_a_store_that_cannot_be_written(bare_kelp, place):
    (place / "ro").mkdir(mode=0o500)
    result = bare_kelp("--root", place / "ro" / "store", "doctor", code=1)
    assert re.search(r"^✗ storage .*Permission denied", result.out, re.M), result


@pytest.fixture
def small_store(bare_kelp, agent):
    """A store on a file system of 24 MB."""
    bare_kelp.data.mkdir(exist_ok=True)
    agent("mount", path=str(bare_kelp.data), size="24m")
    yield bare_kelp
    agent("unmount", path=str(bare_kelp.data))


def test_a_disk_that_is_nearly_full(small_store):
    found = findings(small_store)["storage"]
    assert found["Verdict"] == "warning" and "on tmpfs" in found["Text"] and found["Text"].endswith("; little space")
    assert found["Fix"] == "kelp image prune --all"


@pytest.fixture
def served(place):
    """Mounts a file system that a program serves, under the name it has in the table of mounts: what is asked of it comes back
    through FUSE, as with sshfs."""
    needs.need("fuse")
    needs.need("program:fuse-overlayfs")
    paths = []

    def mount(path, subtype):
        parts = {name: place / f"{path.name}-{name}" for name in ("lower", "upper", "work")}
        for part in (path, *parts.values()):
            part.mkdir()
        options = ",".join(f"{name}dir={part}" for name, part in parts.items())
        subprocess.run([subtype, "-o", options, str(path)], executable=needs.find_program("fuse-overlayfs"), check=True,
                       capture_output=True)  # FUSE calls it what its program is called
        paths.append(path)
        return path

    yield mount
    for path in paths:
        subprocess.run(["fusermount3", "-u", str(path)], check=True)


@pytest.mark.parametrize("subtype, network", [("sshfs", True), ("ext4-in-a-file", False)])
def test_a_store_on_a_network_file_system_is_said_to_be_one(bare_kelp, served, place, subtype, network):
    mounted = served(place / "remote", subtype)
    found = findings(bare_kelp, env={"XDG_DATA_HOME": str(mounted)}, code=None)["storage"]
    assert f"{mounted}/kelp on fuse.{subtype}, " in found["Text"], found
    assert ("a network file system is slow" in found["Text"]) == network, found
    if network:
        assert found["Verdict"] == "warning" and "XDG_DATA_HOME on a local disk" in found["Fix"]


def test_a_run_directory_that_cannot_be_made(bare_kelp, place):
    """Somebody took /run/user/UID away: that is what is said, and the store is described as it is."""
    (place / "ro").mkdir(mode=0o500)
    result = bare_kelp("--runroot", place / "ro" / "gone" / "kelp", "doctor", code=1)
    assert re.search(r"^✗ run directory .*ro/gone: Permission denied\n +→ .*XDG_RUNTIME_DIR", result.out, re.M), result
    assert re.search(r"^✓ storage .* of .* free$", result.out, re.M), result
    assert "run directory" not in re.search(r"^. overlay .*$", result.out, re.M).group(), result
    assert result.lines[-1] == "level: no run directory; containers cannot be run here", result
    # One that is only missing is made again.
    assert re.search(r"^✓ run directory ", bare_kelp("--runroot", place / "gone" / "kelp", "doctor").out, re.M)


def test_a_template_for_each_line(bare_kelp):
    assert bare_kelp("doctor", "--format", "{{.Name}}:{{.Verdict}}").lines[0] == "kernel:ok"


def test_registries_are_asked_only_on_request(bare_kelp, registry):
    assert "registry" not in bare_kelp("doctor").out
    config = bare_kelp.dir / "registries.conf"
    config.write_text(f'unqualified-search-registries = ["{registry.address}"]\n'
                      f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n')
    out = bare_kelp("doctor", "--registries", env={"CONTAINERS_REGISTRIES_CONF": str(config)}).out
    assert re.search(rf"^✓ registry {re.escape(registry.address)} +plain HTTP, open to all$", out, re.M), out
    out = bare_kelp("doctor", "localhost:1").out
    assert re.search(r"^! registry localhost:1 .*\n +→ ", out, re.M), out
