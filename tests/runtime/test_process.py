"""The payload's process: ids, capabilities, limits, environment, descriptors, exit status."""

import os

import pytest

CAP = {name: bit for bit, name in enumerate(
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN".split())}


def bits(*names):
    return f"{sum(1 << CAP[name] for name in names):016x}"


def test_basics(oci):
    info = oci.info()
    assert info["pid"] == 1 and info["ppid"] == 0
    assert info["uids"] == [0, 0, 0] and info["gids"] == [0, 0, 0]
    assert info["hostname"] == "box" and info["cwd"] == "/"
    assert info["env"][:2] == ["PATH=/bin", "HOME=/"]
    assert info["NoNewPrivs"] == "1" and info["Seccomp"] == "0"
    assert info["SigBlk"] == "0" * 16
    for name, link in info["ns"].items():
        kind = {"net": "net", "mnt": "mnt"}.get(name, name)
        if name != "time":
            assert link != os.readlink(f"/proc/self/ns/{kind}"), name


def test_user_groups_umask(oci):
    oci.process["user"] = {"uid": 1000, "gid": 1001, "umask": 0o27, "additionalGids": [5, 20]}
    info = oci.info()
    assert info["uids"] == [1000] * 3 and info["gids"] == [1001] * 3
    assert sorted(set(info["groups"]) - {1001}) == [5, 20]
    assert info["umask"] == 0o27


def test_root_keeps_capabilities(oci):
    oci.process["capabilities"] = {kind: ["CAP_CHOWN", "CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
    info = oci.info()
    assert info["CapBnd"] == info["CapEff"] == info["CapPrm"] == bits("CHOWN", "KILL")
    assert info["CapInh"] == info["CapAmb"] == "0" * 16


def test_other_user_has_none_without_ambient(oci):
    oci.process["user"] = {"uid": 7, "gid": 7}
    oci.process["capabilities"] = {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
    info = oci.info()
    assert info["CapEff"] == info["CapPrm"] == "0" * 16
    assert info["CapBnd"] == bits("KILL")


def test_ambient_capabilities_survive_exec(oci):
    oci.process["user"] = {"uid": 7, "gid": 7}
    kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
    oci.process["capabilities"] = {kind: ["CAP_NET_BIND_SERVICE"] for kind in kinds}
    info = oci.info()
    assert info["CapAmb"] == info["CapEff"] == info["CapPrm"] == bits("NET_BIND_SERVICE")


def test_no_capabilities(oci):
    oci.process["capabilities"] = {}
    info = oci.info()
    assert info["CapBnd"] == info["CapEff"] == info["CapPrm"] == "0" * 16


def test_no_new_privileges_off(oci):
    oci.process["noNewPrivileges"] = False
    assert oci.info()["NoNewPrivs"] == "0"


def test_rlimits(oci):
    oci.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    limits = oci.info()["rlimits"]
    assert limits["NOFILE"] == [100, 200] and limits["CORE"] == [0, 0]


def test_oom_score_adj(oci):
    oci.process["oomScoreAdj"] = 500
    assert oci.info()["oom_score_adj"].strip() == "500"


@pytest.mark.parametrize("code", [0, 1, 7, 125, 255])
def test_exit_status(oci, code):
    oci.run("exit", str(code), code=code)


def test_status_of_a_signal(oci):
    # A process other than 1: PID 1 ignores signals that it does not handle.
    oci.create("wait")
    oci.start()
    oci.output("ready")
    done = oci.exec("kill", "15", code=None)
    assert done.code == 128 + 15, str(done)
    oci("kill", "c1", "KILL")
    oci.wait_status("stopped")


def test_stdin_stdout_stderr(oci):
    done = oci.run("cat", "-", ";", "error", "oops", stdin="hello\nworld\n")
    assert done.out == "hello\nworld\n"
    assert "oops" in done.err


def test_descriptors(oci):
    """Nothing of the runtime's own is open in the payload."""
    assert oci.info()["fds"] == [0, 1, 2]


def test_preserve_fds(oci):
    oci.base = ["sh", "-c", 'exec "$@" 3</dev/null 4</dev/null', "sh", *oci.base]
    assert oci.run("info", args=("--preserve-fds", "1")).json["fds"] == [0, 1, 2, 3]


def test_cwd_is_made_or_entered(oci):
    (oci.rootfs / "work").mkdir()
    oci.process["cwd"] = "/work"
    assert oci.info()["cwd"] == "/work"


def test_environment_is_exact(oci):
    oci.process["env"] = ["A=1", "B=two words", "EMPTY=", "U=\u00fc"]
    assert [e for e in oci.info()["env"] if not e.startswith("HOME=")] == ["A=1", "B=two words", "EMPTY=", "U=\u00fc"]


def test_missing_program(oci):
    oci.process["args"] = ["/nowhere"]
    done = oci.run(code=None)
    assert done.code not in (0, None) and "nowhere" in done.err


def test_not_executable(oci):
    (oci.rootfs / "plain").write_text("text")
    oci.process["args"] = ["/plain"]
    done = oci.run(code=None)
    assert done.code != 0 and "plain" in done.err


def test_program_found_in_path_of_the_container(oci):
    (oci.rootfs / "bin").mkdir()
    (oci.rootfs / "probe").rename(oci.rootfs / "bin/probe")
    oci.process["args"] = ["probe", "echo", "found"]
    assert oci.run().out == "found\n"


def test_scheduler_and_io_priority(kelp_oci):
    kelp_oci.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    kelp_oci.process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    info = kelp_oci.info()
    assert info["policy"] == 3 and info["nice"] == 5 and info["ioprio"] >> 13 == 3


def test_personality(kelp_oci):
    kelp_oci.linux["personality"] = {"domain": "LINUX32"}
    info = kelp_oci.info()
    assert info["personality"] & 0xFF == 8


def test_the_end_of_pid_1_ends_all(oci):
    """A left-over process of the container must not keep the runtime waiting."""
    done = oci.run("background", "60", ";", "exit", "3", code=3, timeout=10)
    assert done.code == 3
