"""The payload's process: ids, capabilities, limits, environment, descriptors, exit status."""

import json
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


def test_every_rlimit(oci):
    """Lower than what the caller has: nobody may raise his own."""
    names = ("AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RSS", "RTPRIO",
             "RTTIME", "SIGPENDING", "STACK")
    wanted = {}
    for name in names:
        hard = resource_limit(name)
        wanted[name] = [min(hard, 1 << 30) - 1, min(hard, 1 << 30)] if hard > 1 else [0, hard]
    oci.process["rlimits"] = [{"type": f"RLIMIT_{name}", "soft": soft, "hard": hard} for name, (soft, hard) in wanted.items()]
    limits = oci.info()["rlimits"]
    assert {name: limits[name] for name in names} == wanted


def resource_limit(name):
    """The caller's own hard limit, from the kernel's table."""
    words = {"AS": "Max address space", "CORE": "Max core file size", "CPU": "Max cpu time", "DATA": "Max data size",
             "FSIZE": "Max file size", "LOCKS": "Max file locks", "MEMLOCK": "Max locked memory", "MSGQUEUE": "Max msgqueue size",
             "NICE": "Max nice priority", "NOFILE": "Max open files", "NPROC": "Max processes", "RSS": "Max resident set",
             "RTPRIO": "Max realtime priority", "RTTIME": "Max realtime timeout", "SIGPENDING": "Max pending signals",
             "STACK": "Max stack size"}
    line = next(line for line in open("/proc/self/limits") if line.startswith(words[name]))
    value = line[26:].split()[1]
    return 1 << 62 if value == "unlimited" else int(value)


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


RESET_ON_FORK = 0x40000000


@pytest.mark.parametrize("scheduler, policy, more", [
    ({"policy": "SCHED_OTHER"}, 0, 4), ({"policy": "SCHED_BATCH"}, 3, 2), ({"policy": "SCHED_IDLE"}, 5, 0),
    ({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, RESET_ON_FORK, 3)],
    ids=["other", "batch", "idle", "reset-on-fork"])
def test_scheduler(kelp_oci, scheduler, policy, more):
    """Of the container's process, and of those that join it. Nobody may be nicer to himself than his caller is."""
    nice = min(os.nice(0) + more, 19)
    kelp_oci.process["scheduler"] = {**scheduler, "nice": nice}
    kelp_oci.create("info", ";", "wait")
    kelp_oci.start()
    for info in (json.loads(kelp_oci.output("ready").splitlines()[0]), kelp_oci.exec("info").json):
        assert (info["policy"], info["nice"]) == (policy, nice)


@pytest.mark.parametrize("scheduler, says", [({"policy": "SCHED_FAST"}, "SCHED_FAST"),
                                             ({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NONE"]}, "SCHED_FLAG_NONE"),
                                             ({"policy": "SCHED_FIFO", "priority": 100}, "SCHED_FIFO"),
                                             ({"policy": "SCHED_DEADLINE", "runtime": 9, "deadline": 3, "period": 3}, "SCHED_DEADLINE")])
def test_scheduler_that_cannot_be_is_refused(kelp_oci, scheduler, says):
    kelp_oci.process["scheduler"] = scheduler
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and says in done.err and len(done.err.splitlines()) <= 2, str(done)


@pytest.mark.parametrize("name, level, value", [("BE", 0, 2 << 13), ("BE", 6, 2 << 13 | 6), ("IDLE", 0, 3 << 13)])
def test_io_priority(kelp_oci, name, level, value):
    kelp_oci.process["ioPriority"] = {"class": f"IOPRIO_CLASS_{name}", "priority": level}
    assert kelp_oci.info()["ioprio"] == value


@pytest.mark.parametrize("name, level, says", [("NONE_SUCH", 0, "NONE_SUCH"), ("BE", 8, "8"), ("BE", -1, "-1")])
def test_io_priority_that_cannot_be_is_refused(kelp_oci, name, level, says):
    kelp_oci.process["ioPriority"] = {"class": f"IOPRIO_CLASS_{name}", "priority": level}
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and says in done.err and len(done.err.splitlines()) <= 2, str(done)


def test_personality(kelp_oci):
    kelp_oci.linux["personality"] = {"domain": "LINUX32"}
    info = kelp_oci.info()
    assert info["personality"] & 0xFF == 8


def test_the_end_of_pid_1_ends_all(oci):
    """A left-over process of the container must not keep the runtime waiting."""
    done = oci.run("background", "60", ";", "exit", "3", code=3, timeout=10)
    assert done.code == 3


def test_memory_policy(kelp_oci):
    kelp_oci.linux["memoryPolicy"] = {"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    assert kelp_oci.info()["mempolicy"] == 3 | 1 << 15


def test_bad_memory_policy(kelp_oci):
    kelp_oci.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "x"}
    assert "linux.memoryPolicy.nodes" in kelp_oci.run("exit", "0", code=None).err
    kelp_oci.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "8000"}
    assert "linux.memoryPolicy" in kelp_oci.run("exit", "0", code=None).err


def test_affinity_of_exec(kelp_oci):
    """`final` is what counts in the end; it is for exec alone."""
    cpus = sorted(os.sched_getaffinity(0))
    kelp_oci.process["execCPUAffinity"] = {"initial": str(cpus[0]), "final": str(cpus[-1])}
    kelp_oci.create("info", ";", "wait")
    kelp_oci.start()
    assert json.loads(kelp_oci.output("ready").splitlines()[0])["cpus"] == cpus
    assert kelp_oci.exec("info").json["cpus"] == [cpus[-1]]


def test_initial_affinity_stays_without_a_final_one(kelp_oci):
    cpus = sorted(os.sched_getaffinity(0))
    kelp_oci.process["execCPUAffinity"] = {"initial": str(cpus[0])}
    kelp_oci.create("wait")
    kelp_oci.start()
    assert kelp_oci.exec("info").json["cpus"] == [cpus[0]]


LABELS = {"apparmorProfile": "/sys/module/apparmor/parameters/enabled", "selinuxLabel": "/sys/fs/selinux/enforce"}


@pytest.mark.parametrize("member", [member for member, path in LABELS.items() if not os.path.exists(path)])
def test_label_of_a_module_that_is_off(kelp_oci, member):
    kelp_oci.process[member] = "some-profile"
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and f"process.{member}" in done.err and "not enabled" in done.err
    kelp_oci.process.pop(member)
    kelp_oci.create("wait")
    kelp_oci.start()
    option = "--apparmor" if member == "apparmorProfile" else "--process-label"
    done = kelp_oci.exec("exit", "0", args=(option, "some-profile"), code=None)
    assert done.code != 0 and "not enabled" in done.err


def test_exec_user_keeps_the_rest(oci):
    """The container's group, and for us its umask, unless they are named."""
    oci.process["user"] = {"uid": 5, "gid": 6, "umask": 0o77}
    oci.create("wait")
    oci.start()
    info = oci.exec("info", args=("--user", "8")).json
    assert info["uids"][0] == 8 and info["gids"][0] == 6 and (info["umask"] == 0o77 or not oci.is_kelp)
    assert oci.exec("info", args=("--user", "8:9")).json["gids"][0] == 9


def test_exec_adds_a_capability(oci):
    oci.process["capabilities"] = {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
    oci.create("wait")
    oci.start()
    assert oci.exec("info", args=("--cap", "CAP_CHOWN")).json["CapEff"] == bits("KILL", "CHOWN")
    assert oci.exec("info").json["CapEff"] == bits("KILL")


def test_exec_without_new_privileges(oci):
    oci.process["noNewPrivileges"] = False
    oci.create("wait")
    oci.start()
    assert oci.exec("info").json["NoNewPrivs"] == "0"
    assert oci.exec("info", args=("--no-new-privs",)).json["NoNewPrivs"] == "1"


def test_exec_preserves_descriptors(oci):
    oci.create("wait")
    oci.start()
    oci.base = ["sh", "-c", 'exec "$@" 3</dev/null 4</dev/null', "sh", *oci.base]
    assert oci.exec("info", args=("--preserve-fds", "1")).json["fds"] == [0, 1, 2, 3]


def test_exec_adds_groups(oci):
    oci.create("wait")
    oci.start()
    args = ("--user", "3:3", "--additional-gids", "7", "--additional-gids", "9")
    assert set(oci.exec("info", args=args).json["groups"]) - {3} == {7, 9}


def test_cwd_is_made(oci):
    oci.process["cwd"] = "/made/for/it"
    assert oci.info()["cwd"] == "/made/for/it"


def test_cwd_that_is_a_file_is_refused(oci):
    oci.process["cwd"] = "/probe"
    assert oci.run("exit", "0", code=None).code != 0


def test_home_comes_from_the_containers_passwd(oci):
    (oci.rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nuser:x:7:7::/home/user:/bin/sh\n")
    oci.process["user"] = {"uid": 7, "gid": 7}
    oci.process["env"] = ["PATH=/bin"]
    assert "HOME=/home/user" in oci.info(env={"HOME": "/of/the/host"})["env"]


def test_inheritable_is_kept_apart(oci):
    oci.process["capabilities"] = {"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
                                   "effective": ["CAP_KILL"], "inheritable": ["CAP_CHOWN"]}
    info = oci.info()
    assert info["CapBnd"] == bits("KILL", "CHOWN") and info["CapInh"] == bits("CHOWN") and info["CapAmb"] == "0" * 16
