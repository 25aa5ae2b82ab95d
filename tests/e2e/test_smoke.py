"""The shortest way through every program: also run in the sanitizer build."""

from harness import programs


def test_hello_says_what_it_is(bare_kelp):
    out = bare_kelp("run", "--rm", "--network", "none", "hello", timeout=120).out
    assert "Hello from a container made by kelp" in out
    assert "PID 1, the first of its PID namespace" in out
    assert "1 layer of the image below one of the container, writable" in out
    namespaces = next(line for line in out.splitlines() if line.strip().startswith("namespaces"))
    assert "(the host's)" not in namespaces.split("time")[0]


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
