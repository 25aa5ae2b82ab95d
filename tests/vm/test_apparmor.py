"""AppArmor for real: profiles that are loaded into the kernel of the machine."""

import json

import pytest

PROFILE = """cat >/tmp/profile <<'END'
profile confined /opt/confined/* {end}
END
apparmor_parser -r /tmp/profile"""
# All but mounts and capabilities: what Ubuntu leaves a program in a user namespace that it does not know.
WITHOUT_MOUNTS = "{\n  file,\n  network,\n  signal,\n  ptrace,\n  unix,\n  dbus,\n}"


def load(rules):
    return PROFILE.replace("{end}", rules)


@pytest.fixture
def confined(run, rig):
    """A copy of kelp in a place for which a profile can be loaded."""
    if rig.run("cat /sys/module/apparmor/parameters/enabled", "root").out != "Y\n":
        pytest.fail("the machine's kernel has no AppArmor")
    run("cp -r /opt/kelp /opt/confined", "root")
    yield
    run("apparmor_parser -R /tmp/profile 2>/dev/null; rm -rf /opt/confined", "root")


def test_a_profile_that_keeps_namespaces_from_kelp_is_recognised(run, confined):
    run(load(WITHOUT_MOUNTS), "root")
    done = run("/opt/confined/kelp doctor --format json", status=1)
    answer = json.loads(done.out)
    found = {finding["Name"]: finding for finding in answer["Findings"]}
    assert answer["Level"] == "no user namespace" and found["user namespaces"]["Verdict"] == "error"
    assert "the AppArmor profile confined confines kelp" in found["user namespaces"]["Text"], found
    done = run("/opt/confined/kelp run --rm --network none busybox true", status=125)
    lines = done.err.splitlines()
    assert len(lines) == 2 and "AppArmor profile confined" in lines[0] and lines[1].startswith("hint: "), done
    assert run("/opt/confined/kelp images -q").out  # what needs no namespace goes on
    # The command that was named, really run.
    run(lines[1].partition("unload it: ")[2].replace("sudo ", ""), "root")
    assert run("/opt/confined/kelp run --rm --network none busybox echo alive").out == "alive\n"
    # A profile as quickstart installs it, but for the rule that only newer parsers know.
    run(load("flags=(unconfined) {\n}"), "root")
    assert json.loads(run("/opt/confined/kelp doctor --format json").out)["Level"] == "full"
    assert run("/opt/confined/kelp run --rm --network none busybox echo alive").out == "alive\n"


def test_a_container_gets_the_profile_that_was_named(run, confined):
    run(load("{\n  file,\n  deny /etc/passwd r,\n}"), "root")
    run("sed -i 's,^profile confined /opt/confined/[*],profile confined,' /tmp/profile; apparmor_parser -r /tmp/profile", "root")
    option = "--security-opt apparmor=confined"
    out = run(f"kelp run --rm --network none {option} busybox sh -c 'cat /proc/self/attr/current; cat /etc/passwd || cat /etc/group'")
    assert out.out.startswith("confined (enforce)\nroot:x:0:") and "Permission denied" in out.err
    done = run("kelp run --rm --network none --security-opt apparmor=nowhere busybox true", status=None)
    assert done.status == 127 and "nowhere" in done.err, done
