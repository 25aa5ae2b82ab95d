"""kelp doctor where root has set the host otherwise: what it says, and that the command it names mends it."""

import json

import pytest


@pytest.mark.parametrize("setting", ["user.max_user_namespaces", "kernel.unprivileged_userns_clone"])
def test_a_setting_that_forbids_user_namespaces_is_named_with_its_mend(run, setting):
    path = "/proc/sys/" + setting.replace(".", "/")
    was = run(f"cat {path} 2>/dev/null; true", "root").out.strip()
    if not was:
        return  # Debian's kernels alone have the second one
    run(f"sysctl -q {setting}=0", "root")
    try:
        answer = json.loads(run("kelp doctor --format json", "bare", status=1).out)
        found = {finding["Name"]: finding for finding in answer["Findings"]}["user namespaces"]
        assert answer["Level"] == "no user namespace" and found["Text"] == f"{setting} is 0"
        lines = run("kelp run --rm --network none busybox true", "bare", status=125).err.splitlines()
        assert len(lines) == 2 and setting in lines[0] and lines[1] == "hint: " + found["Fix"], lines
        run(found["Fix"].removeprefix("sudo "), "root")
        assert run("kelp run --rm --network none busybox echo alive", "bare").out == "alive\n"
        assert json.loads(run("kelp doctor --format json", "bare").out)["Level"] == "full"
    finally:
        run(f"sysctl -q {setting}={was}", "root")


def test_a_device_that_was_taken_away_is_brought_back_by_the_command_that_is_named(run):
    run("chmod 0600 /dev/net/tun", "root")
    try:
        found = {finding["Name"]: finding for finding in json.loads(run("kelp doctor --format json", "bare").out)["Findings"]}
        tun = found["/dev/net/tun"]
        assert tun["Verdict"] == "warning" and tun["Fix"] == "sudo chmod 0666 /dev/net/tun"
        run(tun["Fix"].removeprefix("sudo "), "root")
        assert run("kelp run --rm busybox ip -o link show tap0", "bare").out
    finally:
        run("chmod 0666 /dev/net/tun", "root")
