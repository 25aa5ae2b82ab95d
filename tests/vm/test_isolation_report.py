"""`kelp isolation` where the kernel counts and limits: what a container may use, what it uses, and how it is pressed."""

import json
import re

GROUP = "/sys/fs/cgroup/$(kelp inspect -f '{{.State.CgroupPath}}' c)"
START = "kelp run -d --network none --name c"
FILES = {"Memory": "memory.max", "Pids": "pids.max", "Cpu": "cpu.max"}


def use(run):
    return json.loads(run("kelp isolation --format json c", status=None).out)[0]["Use"]


def test_limits_are_those_of_the_group(run):
    run(f"{START} --memory 64m --pids-limit 40 --cpus 0.5 busybox sh -c 'sleep 1000 & sleep 1000'")
    assert use(run)["Limits"] == {"Memory": 64 << 20, "Pids": 40, "Cpu": "50000 100000"}
    run("kelp update --memory 48m --pids-limit 33 --cpus 0.2 c")
    assert use(run)["Limits"] == {"Memory": 48 << 20, "Pids": 33, "Cpu": "20000 100000"}
    assert run("kelp isolation --format '{{.Use.Limits.Memory}} {{.Use.Limits.Pids}}' c", status=1).out == f"{48 << 20} 33\n"


def test_what_has_no_limit_is_null(run):
    run(f"{START} --pids-limit -1 busybox sleep 1000")
    for name, value in use(run)["Limits"].items():
        text = run(f"cat {GROUP}/{FILES[name]} 2>/dev/null || echo max").out.split()
        assert text[0] == "max" and value is None, (name, text)


def test_usage_is_that_of_the_group(run):
    # 20 MB that stay, in three processes.
    run(f"{START} --memory 128m --tmpfs /t busybox sh -c 'dd if=/dev/zero of=/t/x bs=1M count=20; sleep 1000 & sleep 1000 & touch /t/done; wait'")
    run("wait_for 'kelp exec c test -e /t/done'")
    before, usage, after = (int(run(f"cat {GROUP}/memory.current").out), use(run)["Usage"], int(run(f"cat {GROUP}/memory.current").out))
    assert usage["Pids"] == int(run(f"cat {GROUP}/pids.current").out) == 3
    margin = 4 << 20
    assert 20 << 20 <= usage["Memory"] <= 128 << 20
    assert min(before, after) - margin <= usage["Memory"] <= max(before, after) + margin


def test_pressure_is_the_kernels(run):
    run(f"{START} busybox sh -c 'while :; do :; done'")
    there = run(f"cd {GROUP} && ls | grep pressure || true").out.split()
    kinds = {name.removesuffix(".pressure") for name in there} & {"cpu", "memory", "io"}
    pressure = use(run).get("Pressure", {})
    assert set(pressure) == kinds
    for kind, line in pressure.items():
        found = re.fullmatch(r"some avg10=[\d.]+ avg60=[\d.]+ avg300=[\d.]+ total=(\d+)", line)
        assert found, (kind, line)
        later = re.search(r"some .*total=(\d+)", run(f"cat {GROUP}/{kind}.pressure").out)
        assert int(found.group(1)) <= int(later.group(1))


def test_a_container_that_does_not_run_uses_nothing(run):
    run(f"{START} --memory 64m busybox true; wait_for '[ $(kelp inspect -f {{{{.State.Status}}}} c) = exited ]'")
    assert use(run) == {}
