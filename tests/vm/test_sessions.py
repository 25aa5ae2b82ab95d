"""From where containers are started and executed in: ssh, cron, a unit, and machines without systemd."""

import json

import pytest

START = "kelp run -d --network none"
MODES = ("session", "unit", "bare", "login", "terminal")


@pytest.mark.parametrize("mode", MODES)
def test_exec_from_anywhere_is_bound_by_the_container(run, mode):
    """Started from an ssh session, executed in from elsewhere: group, memory, freezer and number of processes."""
    run(f"{START} --name e --init --memory 32m --pids-limit 12 busybox sleep 1000; kelp exec -d e sleep 2000")
    group = run("kelp inspect -f '{{.State.CgroupPath}}' e").out.strip()
    run("kelp exec -d e sleep 3000", mode)
    groups = run("wait_for 'pgrep -fx \"sleep 3000\"'; cat /proc/$(pgrep -fx 'sleep 3000')/cgroup", "root").out.split()
    assert groups == ["0::" + group]
    before = int(run(f"cat /sys/fs/cgroup{group}/memory.current").out)
    run("kelp exec -d e sh -c 'dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null; sleep 4000'", mode)
    run(f"wait_for '[ $(cat /sys/fs/cgroup{group}/memory.current) -ge {before + (8 << 20)} ]'")
    done = run("kelp exec e sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do sleep 5000 & done'", mode, status=None)
    assert done.status != 0 and "fork" in done.err
    run("pkill -KILL -fx 'sleep 5000'; wait_for '! pgrep -fx \"sleep 5000\"'", "root", status=None)
    run("kelp exec e tail /dev/zero", mode, status=137)
    run("kelp exec -d e sh -c 'while :; do echo x >>/dev/shm/ticks; sleep 0.1; done'", mode)
    out = run("pid=$(kelp inspect -f '{{.State.Pid}}' e); count() { cat /proc/$pid/root/dev/shm/ticks | wc -l; }; "
              "wait_for '[ $(count) -gt 0 ]'; kelp pause e >/dev/null; a=$(count); sleep 1; echo $(($(count) - a)); "
              "kelp unpause e >/dev/null; wait_for '[ $(count) -gt $a ]'", mode).out.split()
    assert out == ["0"]


def test_a_scope_is_described_and_collected(run):
    run(f"{START} --name s busybox sleep 1000")
    out = run("id=$(kelp inspect -f '{{.Id}}' s); systemctl --user show kelp-$id.scope -p Description,Delegate,Slice,ActiveState; "
              "kelp stop -t 0 s >/dev/null; wait_for 'systemctl --user show kelp-$id.scope -p LoadState | grep not-found'; "
              "systemctl --user show kelp-$id.scope -p LoadState").out.split("\n")
    assert {"Delegate=yes", "Slice=user.slice", "ActiveState=active", "LoadState=not-found"} < set(out)
    assert any(line.startswith("Description=kelp container ") for line in out)


def test_a_container_can_be_started_again_at_once(run):
    """The scope of the start before is still being collected then."""
    run(f"{START} --name again --memory 32m busybox sleep 1000; for i in 1 2 3 4 5 6 7 8; do kelp restart -t 0 again || exit 1; done")


def test_a_killed_monitor_leaves_no_scope(run):
    run(f"{START} --name k busybox sleep 1000; pkill -KILL -x kelp-monitor; wait_for '! pgrep -x kelp-monitor'; kelp rm -f k", status=None)


def test_the_manager_can_be_chosen(run):
    where = "kelp inspect -f '{{.State.CgroupPath}}' c"
    assert ".scope/container" in run(f"kelp --cgroup-manager systemd run -d --name c --network none busybox sleep 100 >/dev/null; {where}").out
    run("kelp rm -f -t 0 c")
    out = run(f"kelp --cgroup-manager cgroupfs run -d --name c --network none --memory 32m busybox sleep 100 >/dev/null; {where}", "unit").out
    assert "/kelp-" in out and ".scope" not in out
    run("kelp rm -f -t 0 c", "unit")
    out = run(f"{START} --cgroup-parent kelptest-deep.slice --name c --memory 32m busybox sleep 100 >/dev/null; {where}").out
    assert "/kelptest.slice/kelptest-deep.slice/kelp-" in out
    run("kelp rm -f -t 0 c; systemctl --user stop kelptest.slice kelptest-deep.slice")
    out = run(f"{START} --cgroups disabled --name c busybox sleep 100 >/dev/null; {where}; "
              "kelp stats --no-stream --format '{{.PIDs}} {{.MemUsage}}' c").out.split("\n")
    assert out[0] == "" and out[1].startswith("1 ") and not out[1].startswith("1 0B")
    assert "no cgroup" in run("kelp pause c", status=125).err


@pytest.mark.parametrize("manager, mode", [("systemd", "session"), ("systemd", "bare"), ("cgroupfs", "unit")])
def test_info_tells_where_containers_go(run, manager, mode):
    option = "--cgroup-manager cgroupfs" if manager == "cgroupfs" else ""
    host = json.loads(run(f"kelp {option} info -f json", mode).out)["host"]
    assert host["cgroupManager"] == manager and host["cgroupVersion"] == "v2"
    assert {"cpu", "memory", "pids"} <= set(host["cgroupControllers"])


def test_the_cgroup_namespace_is_private(run):
    show = "busybox sh -c 'cat /proc/self/cgroup; touch /sys/fs/cgroup/x 2>&1; ls -d /sys/fs/cgroup/cgroup.procs'"
    out = run(f"kelp run --rm --network none {show}").out.split("\n")
    assert out[0] == "0::/" and "Read-only" in out[1]
    assert run(f"kelp run --rm --network none --cgroupns host {show}").out.startswith("0::/user.slice/")
    assert run("kelp run --rm --network none --systemd always busybox sh -c 'mkdir /sys/fs/cgroup/x && echo made'").out == "made\n"
