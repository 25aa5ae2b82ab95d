"""`kelp isolation`: what a container can see, use and touch, compared with what the kernel says from inside."""

import json

from harness import needs

NONE = ("--network", "none")


def report(kelp, name, code):
    return json.loads(kelp("isolation", name, code=code).out)[0]


def parts(found):
    return {entry["Part"] for entry in found["Deviations"]}


def test_an_ordinary_one(kelp, place):
    kelp("run", "-d", "--name", "a", *NONE, "-v", f"{place}:/host", "-v", f"{place}:/ro:ro", "busybox", "sleep", "1000")
    kelp("run", "-d", "--name", "b", "--network", "container:a", "--pid", "host", "busybox", "sleep", "1000")
    found = report(kelp, "a", 1)
    spaces = {space["Type"]: space for space in found["See"]["Namespaces"]}
    assert spaces["mnt"]["Own"] and spaces["pid"]["Own"]
    assert spaces["net"]["SharedWith"] == ["b"] and spaces["user"]["SharedWith"] == ["b"]
    touch = found["Touch"]
    inside = dict(line.split(":\t") for line in kelp("exec", "a", "cat", "/proc/1/status").lines if ":\t" in line)
    bits = int(inside["CapBnd"], 16)
    assert len(touch["Capabilities"]) == bin(bits).count("1") and "CAP_CHOWN" in touch["Capabilities"]
    assert touch["Seccomp"]["Filter"] and touch["Seccomp"]["AllowedCalls"] > 200
    assert touch["Seccomp"]["Default"] == "SCMP_ACT_ERRNO"
    assert {"Source": str(place), "Destination": "/host"} in touch["WritableMounts"]
    assert "/ro" not in [mount["Destination"] for mount in touch["WritableMounts"]]
    assert "/proc/kcore" in touch["MaskedPaths"]
    assert {"user", "ids", "capabilities", "root file system"} <= parts(found)
    other = report(kelp, "b", 1)
    assert {"namespace", "network"} <= parts(other)
    assert {"Type": "pid", "Own": False, "SharedWith": ["host"]} in other["See"]["Namespaces"]


def test_privileged_stands_out(kelp):
    kelp("run", "-d", "--name", "p", "--privileged", *NONE, "busybox", "sleep", "1000")
    found = report(kelp, "p", 1)
    assert {"seccomp", "masked paths", "new privileges"} <= parts(found)


def test_a_hardened_one_deviates_nowhere(kelp):
    needs.need("subids")
    kelp("run", "-d", "--name", "h", "--hardened", "busybox", "sleep", "1000")
    found = report(kelp, "h", 0)
    assert found["Deviations"] == [] and found["Touch"]["Capabilities"] == [] and found["Touch"]["User"]["Uid"] == 1000
    assert kelp("isolation", "h", "--format", "{{.Name}}: {{len .Deviations}}").text == "h: 0"
    kelp("run", "-d", "--name", "w", "--hardened", "--read-only=false", "busybox", "sleep", "1000")
    assert parts(report(kelp, "w", 1)) == {"root file system"}
    assert len(json.loads(kelp("isolation", "--all", code=1).out)) == 2


def test_stopped_and_never_started(kelp):
    kelp("run", "--name", "ended", *NONE, "busybox", "true")
    found = report(kelp, "ended", 1)
    assert found["Running"] is False and "CAP_CHOWN" in found["Touch"]["Capabilities"]
    kelp("create", "--name", "new", *NONE, "busybox", "true")
    kelp.fails("isolation", "new", says="never been started", hint="kelp start new")
    kelp.fails("isolation", "nothing", says="nothing")


def test_the_hardened_filter_refuses_more(kelp):
    needs.need("subids")
    calls = {}
    for name, options in (("usual", ()), ("hardened", ("--security-opt", "seccomp=hardened"))):
        kelp("run", "--name", name, *NONE, *options, "busybox", "true")
        touch = report(kelp, name, 1)
        calls[name] = touch["Touch"]["Seccomp"]["AllowedCalls"]
        assert ("seccomp" in parts(touch)) == (name == "usual")
    assert 200 < calls["hardened"] < calls["usual"]
    kelp("run", "--name", "own", "--hardened", "--security-opt", "seccomp=default", "busybox", "true")
    assert parts(report(kelp, "own", 1)) == {"seccomp"}


def test_who_cannot_live_hardened_is_told_which_part(kelp):
    needs.need("subids")
    for script, option in (("echo x >/file", "--read-only=false"), ("cat /etc/shadow >/dev/null || cat /root/x", "--user 0"),
                           ("ip link set lo down", "--cap-add"), ("wget -q -O - http://192.0.2.1/", "--network")):
        prepared = "mkdir -p /tmp/x; " + script
        done = kelp("run", "--rm", "--hardened", "busybox", "sh", "-c", prepared, code=None)
        if "--user" in option and done.code == 0:
            continue  # this image lets everybody read both
        hints = [line for line in done.err.splitlines() if line.startswith("hint: --hardened: ")]
        assert done.code != 0 and len(hints) == 1 and option in hints[0], done
    # What fails by itself, and what is not hardened, gets no such word.
    assert "hint" not in kelp("run", "--rm", "--hardened", "busybox", "sh", "-c", "exit 3", code=3).err
    assert "hint" not in kelp("run", "--rm", *NONE, "--read-only", "busybox", "sh", "-c", "echo x >/file", code=1).err
