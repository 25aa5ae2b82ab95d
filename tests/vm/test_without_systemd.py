"""Machines without systemd: one where an administrator has given the user a cgroup, one without any cgroup."""

import conftest as vm
import pytest


@pytest.fixture(scope="module")
def given(machine_programs):
    with vm.boot(machine_programs, init="group") as made:
        assert made.run("kelp load -q -i /opt/kelp/busybox.tar", "group").status == 0
        yield made


@pytest.fixture
def run(given):
    yield vm.runner(given)
    vm.clean(given)


@pytest.fixture(scope="module")
def plain(machine_programs):
    with vm.boot(machine_programs, init="plain") as made:
        assert made.run("kelp load -q -i /opt/kelp/busybox.tar", "bare").status == 0
        yield vm.runner(made)


CONTAINER = "kelp run --rm --network none"


def test_a_group_of_ones_own_limits(run):
    assert run(f"{CONTAINER} --memory 64m --pids-limit 50 busybox sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max'",
               "group").out == f"{64 << 20}\n50\n"
    run(f"{CONTAINER} --memory 24m busybox tail /dev/zero", "group", status=137)
    assert run("kelp info -f '{{.Host.CgroupManager}}'", "group").out == "cgroupfs\n"


def test_freezer_stats_and_update_there(run):
    out = run("kelp run -d --name a --network none --memory 64m busybox sleep 1000 >/dev/null; kelp pause a; "
              "kelp inspect -f '{{.State.Status}}' a; kelp unpause a; kelp update --memory 48m a >/dev/null; "
              "kelp stats --no-stream --format '{{.MemLimit}} {{.PIDs}}' a; kelp restart -t 0 a", "group").out.split()
    assert out == ["a", "paused", "a", str(48 << 20), "1", "a"]


def test_another_parent(run):
    out = run("kelp run -d --name p --cgroup-parent /own/kelp-test-parent --network none --memory 32m busybox sleep 100 >/dev/null; "
              "kelp inspect -f '{{.State.CgroupPath}}' p; kelp rm -f -t 0 p; rmdir /sys/fs/cgroup/own/kelp-test-parent", "group").out
    assert out.startswith("/own/kelp-test-parent/kelp-")


def test_groups_that_a_container_made_are_removed(run):
    run(f"{CONTAINER} --systemd always busybox sh -c 'mkdir -p /sys/fs/cgroup/a/b; echo 0 >/sys/fs/cgroup/a/b/cgroup.procs; true'", "group")


def test_outside_of_the_group_limits_are_refused_with_the_reason(run):
    done = run(f"{CONTAINER} --memory 64m busybox true", "bare", status=125)
    assert "--memory cannot be enforced" in done.err and "hint: " in done.err
    assert run(f"{CONTAINER} busybox echo ran", "bare").out == "ran\n"


def test_without_any_cgroup(plain):
    assert plain(f"{CONTAINER} busybox echo ran", "bare").out == "ran\n"
    done = plain(f"{CONTAINER} --memory 64m busybox true", "bare", status=125)
    assert "no cgroup v2 hierarchy is mounted" in done.err
    out = plain("kelp run -d --name a --network none busybox sleep 1000 >/dev/null; "
                "kelp stats --no-stream --format '{{.PIDs}} {{.MemUsage}}' a; kelp pause a; kelp rm -f -t 0 a", "bare")
    assert out.out.startswith("1 ") and "no cgroup" in out.err
    assert plain("kelp info -f '{{.Host.CgroupManager}}'", "bare").out == "none\n"
