"""process.apparmorProfile where the kernel has AppArmor on: in a machine that is booted with it."""

import json

import conftest as vm
import pytest
from test_runtime_limits import BUNDLE, config


@pytest.fixture(scope="module")
def machine(machine_programs):
    with vm.boot(machine_programs, init="plain", options="lsm=landlock,yama,bpf,apparmor") as made:
        made.run("mount -t securityfs none /sys/kernel/security", "root")
        made.has_apparmor = made.run("cat /sys/module/apparmor/parameters/enabled", "root").out == "Y\n"
        yield made


def run(machine, profile, script="kelp-oci --cgroup-manager disabled run c1"):
    whole = config("cat /proc/self/attr/current; echo; cat /proc/self/attr/apparmor/current")
    whole["process"]["apparmorProfile"] = profile
    return machine.run(BUNDLE % (json.dumps(whole), script), "root")


def test_profile_is_the_kernels_to_judge(machine):
    """No policy is loaded there but the profile that is always there; a name without one is the kernel's error."""
    known, unknown = run(machine, "unconfined"), run(machine, "no-such-profile")
    if machine.has_apparmor:
        assert known.status == 0 and "unconfined" in known.out, known
        assert unknown.status == 125 and "no-such-profile" in unknown.err and "No such file" in unknown.err, unknown
    else:
        for done in (known, unknown):
            assert done.status == 125 and "AppArmor is not enabled" in done.err, done
