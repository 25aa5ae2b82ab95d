"""The shortest way through every program: also run in the sanitizer build."""

import os
import re

from harness import programs


def test_hello_says_what_it_is(bare_kelp):
    """Without a registry and without a network; some fifteen lines, each of them a proof of the isolation."""
    out = bare_kelp("run", "--rm", "--network", "none", "hello", timeout=120).out
    said = {line[2:15].strip(): line[16:] for line in out.splitlines() if line.startswith("  ")}
    assert out.startswith("Hello from a container made by kelp.\n")
    assert list(said) == ["process", "namespaces", "hostname", "interfaces", "cgroup", "limits", "root", "mounts", "user",
                          "uid map", "capabilities", "no_new_privs", "seccomp"]
    assert said["process"] == "PID 1, the first of its PID namespace"
    spaces = dict(zip(*[iter(said["namespaces"].replace(" (the host's)", "").split())] * 2))
    assert set(spaces) >= {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"}
    for name in set(spaces) - {"time"}:
        assert spaces[name] != str(os.stat(f"/proc/self/ns/{name}").st_ino), f"the {name} namespace is the host's"
    assert re.fullmatch("[0-9a-f]{12}", said["hostname"]) and said["interfaces"].split()[0].rstrip(",") == "lo"
    assert re.match("memory .+, cpu .+, processes .+", said["limits"])
    assert "1 layer of the image below one of the container, writable" in said["root"]
    assert said["user"] == "uid 0, gid 0" and str(os.getuid()) in said["uid map"]
    assert said["no_new_privs"] == "off" and "filter" in said["seccomp"]


def test_run_and_exit_codes(kelp):
    assert kelp("run", "--rm", "--network", "none", "busybox", "echo", "hi", timeout=120).out == "hi\n"
    kelp("run", "--rm", "--network", "none", "busybox", "sh", "-c", "exit 3", code=3, timeout=120)


def test_detached_exec_logs_stop(kelp):
    kelp("run", "-d", "--name", "one", "--network", "none", "busybox", "sh", "-c", "echo started; exec sleep 100",
         timeout=120)
    assert kelp("exec", "one", "echo", "inside", timeout=120).out == "inside\n"
    assert kelp("logs", "one").out == "started\n"
    assert "one" in kelp("ps").out
    kelp("stop", "-t", "0", "one")
    kelp("rm", "one")
    assert kelp("ps", "-a", "-q").out == ""


def test_pull_runs(bare_kelp, registry, busybox_layout):
    name = registry.push(f"oci:{busybox_layout}:latest", "smoke:1")
    bare_kelp("pull", "-q", "--tls-verify=false", name, timeout=120)
    assert bare_kelp("run", "--rm", "--network", "none", name, "true", timeout=120).out == ""


def test_oci_runtime_answers(kelp):
    assert "1.0" in kelp("--version", program=programs.program("kelp-oci")).out
