"""Limits where they can be had: by a systemd scope, in a delegated unit, and in a group of one's own without systemd."""

import pytest

CONTAINER = "kelp run --rm --network none"
# As ssh gives it, as a terminal under the user manager and a unit of it have it, and as cron has it: linger gives all of
# them a manager to ask.
MODES = ("session", "terminal", "unit", "bare")


@pytest.mark.parametrize("mode", MODES)
def test_limits_are_in_the_files_of_the_kernel(run, mode):
    files = ["memory.max", "memory.low", "pids.max", "cpu.max"]
    out = run(f"{CONTAINER} --memory 64m --memory-reservation 32m --pids-limit 50 --cpus 0.5 busybox "
              f"sh -c 'cd /sys/fs/cgroup; cat {' '.join(files)}'", mode).out.split("\n")
    assert dict(zip(files, out)) == {"memory.max": str(64 << 20), "memory.low": str(32 << 20), "pids.max": "50",
                                     "cpu.max": "50000 100000"}


def test_what_a_kernel_may_lack(rig, run):
    """Kernels are built without cpuset and without accounting of swap."""
    if "cpuset" in rig.run("cat /sys/fs/cgroup/cgroup.controllers", "root").out:
        assert run(f"{CONTAINER} --cpuset-cpus 0 busybox cat /sys/fs/cgroup/cpuset.cpus").out == "0\n"
    else:
        assert "cpuset" in run(f"{CONTAINER} --cpuset-cpus 0 busybox true", status=125).err
    swap = run(f"{CONTAINER} --memory 64m busybox sh -c 'cat /sys/fs/cgroup/memory.swap.max || :'").out
    if swap:
        assert int(swap) == 64 << 20  # as much again
        assert run(f"{CONTAINER} --memory 64m --memory-swap 64m busybox cat /sys/fs/cgroup/memory.swap.max").out == "0\n"


@pytest.mark.parametrize("mode", MODES)
def test_memory_that_is_used_up_ends_in_137(run, mode):
    run(f"{CONTAINER} --memory 24m busybox tail /dev/zero", mode, status=137)


def test_the_oom_killer_is_told_of(run):
    out = run("kelp run --name oom --network none --memory 24m busybox tail /dev/zero; "
              "kelp inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}} {{.HostConfig.Memory}}' oom; "
              "kelp events --stream=false --since 10m --filter container=oom --format '{{.Status}}'").out.split("\n")
    assert out[0] == f"true 137 {24 << 20}" and out.count("oom") == 1 and out.index("oom") < out.index("died"), out
    out = run("kelp run --rm --name well --network none --memory 24m busybox true; "
              "kelp events --stream=false --since 10m --filter container=well --filter event=oom").out
    assert out == ""


def test_processes_beyond_the_limit_are_refused(run):
    done = run(f"{CONTAINER} --pids-limit 8 busybox sh -c 'for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done'", status=2)
    assert "can't fork" in done.err


def test_a_default_limit_of_processes(run):
    assert run(f"{CONTAINER} busybox cat /sys/fs/cgroup/pids.max").out == "2048\n"
    assert run(f"{CONTAINER} --pids-limit -1 busybox cat /sys/fs/cgroup/pids.max").out == "max\n"


def test_zero_is_no_limit(run):
    assert run(f"{CONTAINER} --memory 0 --cpus 0 busybox sh -c 'cd /sys/fs/cgroup; cat memory.max cpu.max'").out == \
        "max\nmax 100000\n"


@pytest.mark.parametrize("mode", MODES)
def test_pause_stops_it_and_unpause_lets_it_go_on(run, mode):
    run("kelp run -d --name p --network none busybox sh -c 'while :; do echo; sleep 0.1; done'", mode)
    # Its monitor may still have something to write down when it no longer moves.
    out = run("count() { kelp logs p | wc -l; }; kelp pause p; kelp inspect -f '{{.State.Status}}' p; kelp exec p true; echo $?; "
              "wait_for 'a=$(count); sleep 0.5; [ $a = $(count) ]'; a=$(count); sleep 1; echo $(($(count) - a)); kelp unpause p; "
              "wait_for '[ $(count) -gt $a ]' && kelp inspect -f '{{.State.Status}}' p", mode).out.split()
    assert out == ["p", "paused", "125", "0", "p", "running"]


def test_a_paused_container_can_be_removed(run):
    run("kelp run -d --name p --network none busybox sleep 1000; kelp pause p; kelp rm -f -t 0 p")


@pytest.mark.parametrize("mode", MODES)
def test_exec_is_in_the_group_of_the_container(run, mode):
    run("kelp run -d --name e --network none --memory 32m busybox sleep 1000; kelp exec -d e sleep 2000", mode)
    groups = run("sleep 1; for pid in $(pgrep -x sleep); do cat /proc/$pid/cgroup; done | grep kelp- | sort | uniq -c",
                 mode).out.split()
    assert groups[0] == "2" and groups[1].endswith(".scope/container") and len(groups) == 2
    assert run("kelp exec e cat /proc/self/cgroup", mode).out == "0::/\n"
    run("kelp exec e tail /dev/zero", mode, status=137)


def test_many_starts_at_once_are_each_in_their_group(run):
    out = run("for i in 1 2 3 4 5 6; do kelp run -d --name c$i --network none --memory 32m busybox sleep 1000 & done; "
              "wait; for i in 1 2 3 4 5 6; do cat /proc/$(kelp inspect -f '{{.State.Pid}}' c$i)/cgroup; done").out.split()
    groups = [line for line in out if line.startswith("0::")]
    assert len(groups) == len(set(groups)) == 6 and all(group.endswith(".scope/container") for group in groups)


def test_a_container_that_is_started_again_keeps_its_limits(run):
    run("kelp run -d --name r --network none --restart on-failure:2 --memory 32m "
        "busybox sh -c 'cat /sys/fs/cgroup/memory.max; exit 1'; kelp wait r")
    assert set(run("sleep 2; kelp logs r").out.split()) == {str(32 << 20)}


def test_without_cgroups_a_limit_is_refused(run):
    done = run(f"{CONTAINER} --cgroups disabled --memory 32m busybox true", status=125)
    assert "--memory" in done.err and "--cgroups" in done.err
    assert ".scope" not in run(f"{CONTAINER} --cgroups disabled --cgroupns host busybox cat /proc/self/cgroup",
                               "unit").out


def test_groups_of_ones_own_in_a_delegated_unit(run):
    """Its own group holds processes, so it gives no controllers and must stay as it is; the one above it is ours too."""
    own = "/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)"
    out = run(f"for i in 1 2; do kelp --cgroup-manager cgroupfs run --rm --network none --memory 32m busybox "
              f"cat /sys/fs/cgroup/memory.max; done; cat {own}/cgroup.type; sleep 1", "unit").out.split("\n")
    assert out[:3] == [str(32 << 20), str(32 << 20), "domain"]


def test_a_group_that_is_not_ours_is_refused_with_the_reason(run):
    done = run("kelp --cgroup-manager cgroupfs run --rm --network none --memory 32m busybox true", "bare", status=125)
    assert "is not writable" in done.err and "hint: " in done.err


def test_info_names_the_manager(run):
    assert run("kelp info -f '{{.Host.CgroupManager}} {{.Host.CgroupsVersion}}'").out == "systemd v2\n"
