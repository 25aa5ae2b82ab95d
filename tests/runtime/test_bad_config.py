"""A bad config.json is refused with its JSON path, in one line, and leaves nothing."""

import pytest

CASES = [
    ("linux.seccomp.defaultAction", lambda c: c["linux"].update(seccomp={"defaultAction": "X"})),
    ("process.args[1]", lambda c: c["process"].update(args=["/probe", 3])),
    ("process.env[0]", lambda c: c["process"].update(env=["novalue"])),
    ("process.cwd", lambda c: c["process"].update(cwd="relative")),
    ("process.user.uid", lambda c: c["process"]["user"].update(uid=-4)),
    ("process.rlimits[0]", lambda c: c["process"].update(rlimits=[{"type": "RLIMIT_X", "soft": 1, "hard": 1}])),
    ("linux.namespaces[0].type", lambda c: c["linux"]["namespaces"].insert(0, {"type": "space"})),
    ("linux.uidMappings[1]", lambda c: c["linux"]["uidMappings"][1].update(containerID=0)),
    ("linux.maskedPaths[0]", lambda c: c["linux"].update(maskedPaths=["x"])),
    ("linux.resources.pids.limit", lambda c: c["linux"].update(resources={"pids": {"limit": "many"}})),
    ("mounts[0].destination", lambda c: c["mounts"][0].update(destination="")),
    ("hooks.prestart[0].path", lambda c: c.update(hooks={"prestart": [{"path": "x"}]})),
    ("ociVersion", lambda c: c.update(ociVersion="3.0.0")),
    ("root", lambda c: c.pop("root")),
]


@pytest.mark.parametrize("where,change", CASES, ids=[case[0] for case in CASES])
def test_names_the_place(kelp_oci, where, change):
    change(kelp_oci.config)
    done = kelp_oci.run(code=None)
    lines = [line for line in done.err.splitlines() if line and not line.startswith("hint:")]
    assert done.code != 0 and len(lines) == 1 and where in lines[0], str(done)
    assert not list((kelp_oci.place / "state").glob("*")), "something was left"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ociVersion": 1}', "{}", "\x00", '{"a":' * 100000],
                         ids=["empty", "open", "array", "number", "nothing", "nul", "deep"])
def test_broken_json(kelp_oci, text):
    kelp_oci.write_config()
    (kelp_oci.bundle / "config.json").write_text(text)
    done = kelp_oci("run", "--bundle", kelp_oci.bundle, "c1", code=None)
    assert done.code != 0 and "config.json" in done.err, str(done)


def test_missing_config(kelp_oci):
    done = kelp_oci("run", "--bundle", kelp_oci.bundle, "c1", code=None)
    assert done.code != 0 and "config.json" in done.err


def test_limits_without_a_cgroup_are_refused(kelp_oci):
    """Nothing is delegated to a test user without a session: the error names limit and controller, with a hint."""
    kelp_oci.linux["resources"] = {"memory": {"limit": 50000000}}
    done = kelp_oci.run("info", code=None)
    if done.code == 0:
        assert "memory" in open("/sys/fs/cgroup/cgroup.controllers").read()
        return
    assert "linux.resources.memory.limit" in done.err and "hint:" in done.err, str(done)


def test_no_limit_never_warns(kelp_oci):
    kelp_oci.linux["resources"] = {"memory": {"limit": -1}, "pids": {"limit": -1},
                                   "devices": [{"allow": False, "access": "rwm"}]}
    assert kelp_oci.run("exit", "0").err == ""
