"""process.apparmorProfile where the kernel has AppArmor on, as that of the machine has where it can."""

import json

from test_runtime_limits import BUNDLE, config


def run(rig, profile, script="kelp-oci --cgroup-manager disabled run c1"):
    whole = config("cat /proc/self/attr/current; echo; cat /proc/self/attr/apparmor/current")
    whole["process"]["apparmorProfile"] = profile
    return rig.run(BUNDLE % (json.dumps(whole), script), "root")


def test_profile_is_the_kernels_to_judge(rig):
    """No policy is loaded there but the profile that is always there; a name without one is the kernel's error."""
    known, unknown = run(rig, "unconfined"), run(rig, "no-such-profile")
    if rig.run("cat /sys/module/apparmor/parameters/enabled", "root").out == "Y\n":
        assert known.status == 0 and "unconfined" in known.out, known
        assert unknown.status == 1 and "no-such-profile" in unknown.err and "No such file" in unknown.err, unknown
    else:
        for done in (known, unknown):
            assert done.status == 1 and "AppArmor is not enabled" in done.err, done
