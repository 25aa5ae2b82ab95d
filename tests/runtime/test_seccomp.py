"""Filters: actions, arguments, the cache, order with capabilities."""

import array
import json
import os
import socket
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
