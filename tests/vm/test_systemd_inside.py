"""systemd as process 1 of a container: it reaches its target, is asked to halt in its own way, and leaves nothing."""

import pytest


@pytest.fixture(scope="module")
def image(rig):
    done = rig.run("kelp import -q /srv/systemd.tar debian-systemd", "session")
    assert done.status == 0, done


WAIT = "wait_for 'state=$(kelp exec s systemctl is-system-running); [ $state = running ] || [ $state = degraded ]'; "


def test_debian_boots_and_halts(run, image):
    out = run("kelp run -d --name s --network none --memory 512m debian-systemd /sbin/init >/dev/null; " + WAIT +
              "echo $state; kelp exec s systemctl is-active multi-user.target dbus.service; "
              "kelp exec s systemctl list-units --failed --no-legend --plain | cut -d ' ' -f 1; echo; "
              "kelp exec s cat /proc/1/cgroup; kelp inspect -f '{{.Config.StopSignal}}' s").out.split("\n")
    assert out[0] == "running" and out[1:3] == ["active", "active"], out
    assert out[-3:-1] == ["0::/init.scope", "SIGRTMIN+3"]
    # Its units have groups of their own below the container's.
    out = run("kelp exec s systemd-run -q --unit probe -p MemoryMax=32M sleep 1000; "
              "cat /sys/fs/cgroup$(kelp inspect -f '{{.State.CgroupPath}}' s)/system.slice/probe.service/memory.max").out
    assert out == f"{32 << 20}\n"
    out = run("kelp stop -t 400 s; kelp inspect -f '{{.State.ExitCode}}' s; kelp logs s | tail -n 50", status=None)
    assert out.out.startswith("s\n0\n"), out
    run("kelp rm s")


def test_prepared_only_where_it_is_wanted(run, image):
    mounts = "sh -c 'grep -c \" /run tmpfs\" /proc/self/mounts; touch /sys/fs/cgroup/cgroup.procs 2>&1 | grep -c Read-only'"
    assert run(f"kelp run --rm --network none --systemd false debian-systemd {mounts}", status=None).out.split() == ["0", "1"]
    assert run(f"kelp run --rm --network none --systemd always debian-systemd {mounts}", status=None).out.split() == ["1", "0"]
