"""Filters: actions, arguments, the cache, order with capabilities."""

import array
import fcntl
import json
import os
import socket
import struct
import threading

import pytest


def profile(*rules, default="SCMP_ACT_ALLOW", **more):
    return {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
            if os.uname().machine == "x86_64" else [], "syscalls": list(rules), **more}


def test_errno(oci):
    oci.linux["seccomp"] = profile({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99})
    done = oci.run("mkdir", "/tmp/x", ";", "info")
    assert done.lines[0].startswith("errno 99 ")
    assert json.loads(done.lines[1])["Seccomp"] == "2"


def test_default_errno(oci):
    oci.linux["seccomp"] = profile({"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"})
    assert oci.run("try", "sethostname").lines[0].startswith("errno 1 EPERM")


def test_argument(oci):
    oci.linux["seccomp"] = profile({"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
                                    "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]})
    out = oci.run("try", "personality-32", ";", "try", "personality-bad").lines
    assert out[0].startswith("errno 77 ") and not out[1].startswith("errno 77 ")


@pytest.mark.parametrize("nnp", [True, False])
def test_with_and_without_no_new_privileges(oci, nnp):
    oci.process["noNewPrivileges"] = nnp
    oci.process["user"] = {"uid": 33, "gid": 33}
    oci.linux["seccomp"] = profile({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"})
    done = oci.run("mkdir", "/tmp/x", ";", "info")
    info = json.loads(done.lines[1])
    assert info["Seccomp"] == "2" and info["NoNewPrivs"] == ("1" if nnp else "0") and info["uids"][0] == 33
    assert "EPERM" in done.lines[0]


def test_kill_process(oci):
    oci.linux["seccomp"] = profile({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"})
    done = oci.run("mkdir", "/tmp/x", ";", "exit", "0", code=None)
    assert done.code == 128 + 31, str(done)


def test_unknown_call_is_skipped(oci):
    oci.linux["seccomp"] = profile({"names": ["no_such_call", "sethostname"], "action": "SCMP_ACT_ERRNO"})
    assert "EPERM" in oci.run("try", "sethostname").lines[0]


def test_cache_is_used_and_mended(kelp_oci):
    kelp_oci.linux["seccomp"] = profile({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99})
    cache = kelp_oci.place / "cache/kelp/seccomp"
    for content in (None, b"", b"KELPBPF1 but not more than that", None):
        files = list(cache.glob("*.bpf")) if cache.exists() else []
        if content is not None:
            assert len(files) == 1
            files[0].write_bytes(content)
        assert kelp_oci.run("mkdir", "/tmp/x").lines[0].startswith("errno 99 ")
    assert len(list(cache.iterdir())) == 1


def test_default_profile(kelp_oci):
    """contrib/seccomp.json, converted as an engine does, lets a program run and stops what it should."""
    top = json.load(open(os.path.join(os.path.dirname(__file__), "../../contrib/seccomp.json")))
    rules = []
    for rule in top["syscalls"]:
        if rule.get("includes", {}).get("caps") or (rule.get("includes") and "amd64" not in rule["includes"]["arches"]):
            continue
        rules.append({key: rule[key] for key in ("names", "action", "errnoRet", "args") if key in rule})
    kelp_oci.linux["seccomp"] = profile(*rules, default="SCMP_ACT_ERRNO", defaultErrnoRet=38)
    out = kelp_oci.run("try", "bpf", ";", "try", "kexec", ";", "try", "add-key", ";", "try", "socket-inet", ";",
                       "mkdir", "/tmp/x", ";", "try", "personality-32").lines
    assert [line.split(":")[0] for line in out] == ["errno 1 EPERM", "errno 1 EPERM", "errno 38 ENOSYS", "ok", "ok", "ok"]


def test_notify(oci):
    """The descriptor reaches the listener, with the state of the container."""
    path = str(oci.place / "n.sock")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen(1)
    got = {}

    def serve():
        server.settimeout(10)
        connection, _ = server.accept()
        data, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(16))
        fds = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content[:len(content) - len(content) % 4])
        got["state"], got["fds"] = json.loads(data), list(fds)
        for fd in fds:
            os.close(fd)  # no listener any more: the call fails with ENOSYS

    thread = threading.Thread(target=serve)
    thread.start()
    oci.linux["seccomp"] = profile({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}, listenerPath=path,
                                   listenerMetadata="meta")
    out = oci.run("mkdir", "/tmp/x").lines
    thread.join()
    server.close()
    assert "ENOSYS" in out[0]
    assert got["state"]["metadata"] == "meta" and got["state"]["fds"] == ["seccompFd"] and len(got["fds"]) == 1
    assert got["state"]["state"]["id"] == "c1" and got["state"]["pid"] > 0


# ---- every action, operator, flag and architecture, by what it does to umask(2), which takes any number -------------

KILLED = 128 + 31


def every_call_but_umask():
    top = json.load(open(os.path.join(os.path.dirname(__file__), "../../contrib/seccomp.json")))
    return sorted({name for rule in top["syscalls"] for name in rule["names"]} - {"umask"})


# action, errnoRet, the probe's words, what it prints, exit status
ACTIONS = [
    ("SCMP_ACT_ALLOW", None, ["umask", "1"], ["ok"], 0),
    ("SCMP_ACT_LOG", None, ["umask", "1"], ["ok"], 0),
    ("SCMP_ACT_ERRNO", None, ["umask", "1"], ["errno 1 EPERM: Operation not permitted"], 0),
    ("SCMP_ACT_ERRNO", 77, ["umask", "1"], ["errno 77 EBADFD: File descriptor in bad state"], 0),
    ("SCMP_ACT_KILL_PROCESS", None, ["umask-in-thread", "1"], [], KILLED),
    ("SCMP_ACT_KILL_THREAD", None, ["umask-in-thread", "1"], ["the other thread goes on"], 0),
    ("SCMP_ACT_KILL", None, ["umask-in-thread", "1"], ["the other thread goes on"], 0),
    ("SCMP_ACT_TRAP", None, ["umask", "1"], [], KILLED),
    ("SCMP_ACT_TRAP", None, ["catch-sigsys", ";", "umask", "1"], ["SIGSYS for umask", "ok"], 0),
    ("SCMP_ACT_TRACE", None, ["umask", "1"], ["errno 38 ENOSYS: Function not implemented"], 0),
    ("SCMP_ACT_TRACE", 42, ["umask-traced", "1"], ["traced with 42", "exit 0"], 0),
]


@pytest.mark.parametrize("of", ["rule", "default"])
@pytest.mark.parametrize("action,number,words,printed,status", ACTIONS)
def test_action(oci, of, action, number, words, printed, status):
    value = {} if number is None else {"errnoRet" if of == "rule" else "defaultErrnoRet": number}
    if of == "rule":
        oci.linux["seccomp"] = profile({"names": ["umask"], "action": action, **value},
                                       default="SCMP_ACT_ERRNO" if action in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG") else "SCMP_ACT_ALLOW")
        if oci.linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO":
            oci.linux["seccomp"]["syscalls"].append({"names": every_call_but_umask(), "action": "SCMP_ACT_ALLOW"})
    elif action == "SCMP_ACT_ALLOW":
        oci.linux["seccomp"] = profile({"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"})
    else:
        oci.linux["seccomp"] = profile({"names": every_call_but_umask(), "action": "SCMP_ACT_ALLOW"}, default=action, **value)
    done = oci.run(*words, code=None)
    assert (done.lines, done.code) == (printed, status), str(done)


BIG = 0x1_0000_0005
# operator, its values, numbers that it holds for, numbers that it does not
OPERATORS = [
    ("SCMP_CMP_NE", (5,), [4, 6, BIG], [5]),
    ("SCMP_CMP_LT", (5,), [0, 4], [5, 6, BIG]),
    ("SCMP_CMP_LE", (5,), [0, 5], [6, BIG]),
    ("SCMP_CMP_EQ", (5,), [5], [4, BIG]),
    ("SCMP_CMP_EQ", (BIG,), [BIG], [5, 0x1_0000_0000]),
    ("SCMP_CMP_GE", (5,), [5, 6, BIG], [4]),
    ("SCMP_CMP_GE", (BIG,), [BIG, BIG + 1, 0x2_0000_0000], [5, 6, BIG - 1, 0xffffffff]),
    ("SCMP_CMP_GT", (5,), [6, BIG], [4, 5]),
    ("SCMP_CMP_MASKED_EQ", (0x6, 0x4), [4, 5, 0x1_0000_000c], [0, 2, 6]),
    ("SCMP_CMP_MASKED_EQ", (0x1_0000_0001, 0x1_0000_0000), [0x1_0000_0000, 0x3_0000_0002], [0, 1, BIG]),
]


@pytest.mark.parametrize("op,values,holds,fails", OPERATORS)
def test_operator(oci, op, values, holds, fails):
    compare = {"index": 0, "op": op, "value": values[0], **({"valueTwo": values[1]} if len(values) > 1 else {})}
    oci.linux["seccomp"] = profile({"names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": [compare]})
    words = [word for number in [*holds, *fails] for word in ("umask", str(number), ";")]
    assert [line.split(":")[0] for line in oci.run(*words).lines] == ["errno 77 EBADFD"] * len(holds) + ["ok"] * len(fails)


def test_default_errno_of_the_profile(oci):
    oci.linux["seccomp"] = profile({"names": every_call_but_umask(), "action": "SCMP_ACT_ALLOW"}, default="SCMP_ACT_ERRNO",
                                   defaultErrnoRet=99)
    assert oci.run("umask", "1").lines[0].startswith("errno 99 ")


@pytest.mark.parametrize("flag", ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])
def test_flag(oci, flag):
    """A filter with it is loaded and in force; what it means to the kernel stands in tests/unit/runtime/seccomp_test.cc."""
    oci.linux["seccomp"] = profile({"names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}, flags=[flag])
    assert oci.run("umask", "1").lines[0].startswith("errno 77 ")


def test_unknown_flag_is_refused(oci):
    oci.linux["seccomp"] = profile({"names": ["umask"], "action": "SCMP_ACT_ERRNO"}, flags=["SECCOMP_FILTER_FLAG_NO_SUCH"])
    assert oci.run("umask", "1", code=None).code != 0


@pytest.mark.parametrize("abi,arch", [("i386", "SCMP_ARCH_X86"), ("x32", "SCMP_ARCH_X32")])
@pytest.mark.parametrize("listed", [True, False])
def test_architecture(oci, abi, arch, listed):
    """Rules hold for the calls of each architecture that is listed; those of others kill."""
    if os.uname().machine != "x86_64":
        pytest.skip("needs x86_64: the only machine with three ways into its kernel")
    oci.linux["seccomp"] = profile({"names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77})
    oci.linux["seccomp"]["architectures"] = ["SCMP_ARCH_X86_64", *([arch] if listed else [])]
    done = oci.run("umask", "1", ";", "umask", "1", abi, code=None)
    assert done.lines[0].startswith("errno 77 "), str(done)
    if listed:
        assert done.lines[1].startswith("errno 77 "), str(done)
    else:
        assert done.code == KILLED and len(done.lines) == 1, str(done)


def test_native_architecture_is_always_there(oci):
    oci.linux["seccomp"] = profile({"names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77})
    oci.linux["seccomp"]["architectures"] = []
    assert oci.run("umask", "1").lines[0].startswith("errno 77 ")


def test_unknown_architecture_is_refused(oci):
    oci.linux["seccomp"] = profile({"names": ["umask"], "action": "SCMP_ACT_ERRNO"})
    oci.linux["seccomp"]["architectures"] = ["SCMP_ARCH_PDP11"]
    assert oci.run("umask", "1", code=None).code != 0


NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101  # source: linux/seccomp.h


@pytest.mark.parametrize("flags", [[], ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]])
def test_notify_is_answered(oci, flags):
    """A supervisor sees each call with its argument, and what it says is what the caller gets."""
    path = str(oci.place / "n.sock")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen(1)
    server.settimeout(20)
    seen = []

    def supervise():
        connection, _ = server.accept()
        _, fds, _, _ = socket.recv_fds(connection, 65536, 1)
        for answer in (-55, 0):
            request = bytearray(80)
            fcntl.ioctl(fds[0], NOTIF_RECV, request, True)
            cookie, _, _, _, _, _, argument = struct.unpack_from("=QIIiIQQ", request)
            seen.append(argument)
            fcntl.ioctl(fds[0], NOTIF_SEND, struct.pack("=QqiI", cookie, 18 if answer == 0 else 0, answer, 0))
        os.close(fds[0])

    thread = threading.Thread(target=supervise, daemon=True)
    thread.start()
    oci.linux["seccomp"] = profile({"names": ["umask"], "action": "SCMP_ACT_NOTIFY"}, listenerPath=path, flags=flags)
    lines = oci.run("umask", "5", ";", "umask", "6").lines
    thread.join(20)
    server.close()
    assert seen == [5, 6] and lines[0].startswith("errno 55 ") and lines[1] == "ok"
