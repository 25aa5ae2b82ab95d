"""What the limits do that show only where memory is short or processors are many: swap, protection, the OOM killer's choice,
processor sets."""

import itertools

import conftest as vm
import pytest

CONTAINER = "kelp run --rm --network none"
GROUP = "/sys/fs/cgroup$(kelp inspect -f '{{.State.CgroupPath}}' %s)"


numbers = itertools.count()


@pytest.fixture
def in_slice(run):
    """Starts a container in a slice with 48 MB for all in it; there is a file of 16 MB that nobody has in memory."""
    name = f"kelptest{next(numbers)}.slice"
    run("mkdir -p io; [ -e io/mine ] || dd if=/dev/zero of=io/mine bs=1M count=16 2>&1; "
        f"systemctl --user set-property --runtime {name} MemoryMax=48M")
    run("sync; echo 1 >/proc/sys/vm/drop_caches", "root")
    yield f"kelp run --network none --cgroup-parent {name}"
    run(f"rm -f io/other; systemctl --user stop {name}; systemctl --user revert {name}")


@pytest.mark.parametrize("option, kept", [("", False), ("--memory-reservation 24m", True)], ids=["without", "with"])
def test_what_is_reserved_stays_while_others_want_memory(run, in_slice, option, kept):
    """In the group that competes, too: the kernel protects a group no further than the one above it is protected."""
    cached = f"$(sed -n 's/^file //p' {GROUP % 'r'}/memory.stat)"
    out = run(f"{in_slice} -d --name r {option} -v ~/io:/io busybox sh -c 'cat /io/mine >/dev/null; echo read; sleep 1000' >/dev/null; "
              f"wait_for 'kelp logs r | grep read'; a={cached}; "
              f"{in_slice} --rm -v ~/io:/io busybox dd if=/dev/zero of=/io/other bs=1M count=80 2>/dev/null; echo $a {cached}; "
              "kelp rm -f -t 0 r >/dev/null").out.split()
    before, after = map(int, out)
    assert before >= 16 << 20
    assert (after >= before - (1 << 20)) == kept, out


@pytest.mark.parametrize("option, first", [("", False), ("--oom-score-adj 1000", True)], ids=["without", "with"])
def test_the_oom_killer_takes_that_container_first_that_was_named_for_it(run, in_slice, option, first):
    """Its process has hardly any memory, so that without the option it is spared. What it keeps in files makes sure that the
    other one's memory counts less than the option. Monitors are there too, and are spared."""
    run("swapoff -a 2>/dev/null || :", "root")
    out = run(f"{in_slice} -d --name small {option} busybox sh -c 'dd if=/dev/zero of=/dev/shm/x bs=1M count=12; echo holds; exec sleep 1000' "
              ">/dev/null; wait_for 'kelp logs small | grep holds'; "
              f"{in_slice} -d --name big busybox sh -c 'dd if=/dev/zero of=/dev/null bs=100M count=1; echo taken; sleep 1000' >/dev/null; "
              "wait_for 'kelp logs big | grep taken'; "
              + ("kelp wait small >/dev/null; " if first else "")
              + "kelp inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}' small; kelp exec big echo alive; "
              "kelp rm -f -t 0 small big >/dev/null").out.splitlines()
    assert out == ["exited 137 true" if first else "running 0 false", "alive"]


@pytest.fixture
def swap(run, rig):
    """128 MB of swap; False where the kernel has none."""
    done = rig.run("dd if=/dev/zero of=/swap bs=1M count=128 2>/dev/null; chmod 600 /swap; mkswap /swap >/dev/null && swapon /swap",
                   "root")
    yield done.status == 0
    rig.run("swapoff /swap; rm -f /swap", "root")


def test_memory_and_swap_together_are_limited(run, swap):
    """A buffer of 40 MB: in 16 MB of memory and 48 MB of swap it has its place, in less it has not."""
    take = "busybox dd if=/dev/zero of=/dev/null bs=40M count=1"
    if swap:
        run(f"{CONTAINER} --memory 16m --memory-swap 64m {take}")
        run(f"{CONTAINER} --memory 16m --memory-swap -1 {take}")
    run(f"{CONTAINER} --memory 16m --memory-swap 32m {take}", status=137)
    run(f"{CONTAINER} --memory 16m --memory-swap 16m {take}", status=137)


@pytest.mark.parametrize("option", ["--cpuset-cpus", "--cpuset-mems"])
def test_a_controller_that_the_kernel_has_not_is_named_as_such(run, controllers, option):
    """Delegating it would not help. Debian's kernel for machines like this one has a single processor."""
    done = run(f"{CONTAINER} {option} 0 busybox sh -c 'cd /sys/fs/cgroup; cat cpuset.cpus cpuset.mems; "
               "grep _allowed_list /proc/self/status'", status=None)
    if "cpuset" in controllers:
        name = {"--cpuset-cpus": "Cpus", "--cpuset-mems": "Mems"}[option]
        assert done.status == 0 and f"{name}_allowed_list:\t0\n" in done.out, done
        assert option.removeprefix("--") in run(f"{CONTAINER} {option} 7 busybox true", status=125).err.replace(".", "-")
        return
    assert done.status == 125 and done.err == (
        f"kelp: {option}: this kernel has no cgroup controller cpuset\nhint: boot a kernel with CONFIG_CPUSETS, without "
        f"cgroup_disable=cpuset on its command line; or leave {option} out\n"), done
    found = run("kelp doctor --format '{{.Name}}|{{.Text}}|{{.Fix}}' | grep '^controllers|'").out
    assert "not in this kernel: cpuset;" in found and "CONFIG_CPUSETS" in found


def test_a_set_of_processors_is_kept(run, machine_programs, controllers):
    """Two that never rest, on one of two processors: together they get no more than that one."""
    if "cpuset" not in controllers:
        assert "no cgroup controller cpuset" in run(f"{CONTAINER} --cpuset-cpus 0-1 busybox true", status=125).err
        return
    with vm.boot(machine_programs, cpus=2) as machine:
        run = vm.runner(machine)
        run("kelp load -q -i /opt/kelp/busybox.tar", "bare")
        assert run("nproc").out == "2\n"  # who has cpuset has more than one processor
        used = "head -n 1 /sys/fs/cgroup/cpu.stat | cut -d\" \" -f2"
        clock = "cut -d\" \" -f1 /proc/uptime"
        out = run(f"{CONTAINER} --cpuset-cpus 1 busybox sh -c 'nproc; {clock}; {used}; for i in 1 2; do timeout 3 sh -c "
                  f"\"while :; do :; done\" & done; wait; {clock}; {used}'").out.split()
        assert out[0] == "1"
        assert (int(out[4]) - int(out[2])) / 1e6 <= 1.2 * (float(out[3]) - float(out[1])), out
