"""Cgroup limits of kelp-oci, with force: in a machine with all controllers (machine.py)."""

import json

import pytest

MIB = 1 << 20
LIMITS = {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}, "pids": {"limit": 20},
          "cpu": {"quota": 50000, "period": 100000, "shares": 512}, "unified": {"memory.high": str(60 * MIB)}}
FILES = {"memory.max": str(64 * MIB), "memory.swap.max": "0", "pids.max": "20", "cpu.max": "50000 100000",
         "cpu.weight": "20", "memory.high": str(60 * MIB)}
BUNDLE = """set -u
b=$(mktemp -d)
mkdir -p $b/rootfs/bin $b/rootfs/proc $b/rootfs/sys $b/rootfs/dev
cp /opt/kelp/busybox $b/rootfs/bin/
for name in sh cat sleep tail; do ln -s busybox $b/rootfs/bin/$name; done
cat >$b/config.json <<'END'
%s
END
cd $b
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$b}
%s
"""


def config(command, resources=None, cgroups_path=None):
    caps = {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
    linux = {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup", "network")],
             "resources": resources or {}}
    if cgroups_path:
        linux["cgroupsPath"] = cgroups_path
    return {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "linux": linux,
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh", "-c", command], "env": ["PATH=/bin"], "cwd": "/",
                        "noNewPrivileges": True, "capabilities": caps},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                       {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
                       {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}]}


def run(rig, command, resources=None, script="kelp-oci run c1", mode="root", path="/kelp-test/c1"):
    return rig.run(BUNDLE % (json.dumps(config(command, resources, path)), script), mode)


@pytest.mark.parametrize("how", ["cgroupfs", "systemd"])
def test_limits_are_in_force(rig, controllers, how):
    limits, files = LIMITS, FILES
    if "cpuset" in controllers:
        limits, files = {**LIMITS, "cpu": {**LIMITS["cpu"], "cpus": "0"}}, {**FILES, "cpuset.cpus": "0"}
    show = "cd /sys/fs/cgroup; for f in " + " ".join(files) + "; do echo $f $(cat $f); done"
    if how == "cgroupfs":
        done = run(rig, show, limits, "kelp-oci run c1; echo left $(ls -d /sys/fs/cgroup/kelp-test/c1 2>/dev/null)")
    else:
        done = run(rig, show, limits, "kelp-oci --systemd-cgroup run c1; echo left $(find /sys/fs/cgroup -name '*pre-name*')",
                   path="machine.slice:pre:name")
    lines = dict(line.partition(" ")[::2] for line in done.out.splitlines())
    assert lines == {**files, "left": ""}, done


def test_out_of_memory(rig):
    done = run(rig, "exec tail /dev/zero", {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}})
    assert done.status == 137, done


def test_number_of_processes(rig):
    done = run(rig, "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all", {"pids": {"limit": 4}})
    assert "fork" in done.err and "all" not in done.out, done


def test_events_tell_of_the_oom_killer(rig):
    done = run(rig, "until [ -e /go ]; do sleep 0.1; done; tail /dev/zero; sleep 2",
               {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}},
               "kelp-oci run -d c1 2>/dev/null; timeout 240 kelp-oci events --interval 500ms c1 >events & "
               "wait_for 'grep -q stats events'; touch rootfs/go; wait; cat events; kelp-oci delete -f c1")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert {"type": "oom", "id": "c1"} in events, done
    assert any(event["type"] == "stats" and event["data"]["memory"]["usage"]["limit"] == 32 * MIB for event in events)


# What a failed or ended start must leave nothing of: its group, its state, its processes.
NOTHING_LEFT = ("; echo status $? left $(ls -d /sys/fs/cgroup/kelp-test/c1 /run/kelp-oci/c1 2>/dev/null)"
                " $(pgrep -l kelp:init)")


def test_smallest_container(rig):
    """One process and one megabyte: the runtime's own work in the group needs no more."""
    done = run(rig, "read p </sys/fs/cgroup/pids.max; read m </sys/fs/cgroup/memory.max; echo up $p $m",
               {"memory": {"limit": MIB, "swap": MIB}, "pids": {"limit": 1}}, "kelp-oci run c1" + NOTHING_LEFT)
    assert done.out.splitlines() == [f"up 1 {MIB}", "status 0 left"], done


@pytest.mark.parametrize("limit", [1, 65536, 262144])
def test_out_of_memory_during_create(rig, limit):
    """The kernel kills the first process wherever it stands. Before the program: one line that says so; and nothing is
    left."""
    done = run(rig, "echo up", {"memory": {"limit": limit, "swap": limit}}, "kelp-oci run c1" + NOTHING_LEFT)
    status = int(done.out.splitlines()[-1].split()[1])
    assert done.out.splitlines()[-1] == f"status {status} left", done
    assert status in (0, 137) or (status == 1 and "memory" in done.err and len(done.err.splitlines()) <= 2), done


def test_fork_bomb_during_create(rig):
    """A hook of the container multiplies itself: the limit stops it, the start fails, and it is gone with it."""
    bomb = ["sh", "-c", "b() { b | b & }; for i in 1 2 3 4; do b; done; sleep 1; b; exit 1"]
    whole = config("echo up", {"pids": {"limit": 20}}, "/kelp-test/c1")
    whole["hooks"] = {"createContainer": [{"path": "/bin/sh", "args": bomb, "env": ["PATH=/usr/bin:/bin"]}]}
    done = rig.run(BUNDLE % (json.dumps(whole), "timeout 240 kelp-oci run c1" + NOTHING_LEFT), "root")
    assert done.out.splitlines()[-1] == "status 1 left" and "up" not in done.out, done
    assert "createContainer" in done.err, done


def test_cpu_quota(rig):
    done = run(rig, "while :; do :; done", {"cpu": {"quota": 10000, "period": 100000}},
               "kelp-oci run -d c1; periods() { kelp-oci events --stats c1 | sed -n 's/.*throttledPeriods\":\\([0-9]*\\).*/\\1/p'; }; "
               "wait_for '[ $(periods) -gt 5 ]'; kelp-oci events --stats c1; kelp-oci delete -f c1")
    cpu = json.loads(done.out)["data"]["cpu"]
    assert cpu["throttling"]["throttledPeriods"] > 5, cpu


def test_update(rig):
    script = """kelp-oci run -d c1; g=/sys/fs/cgroup/kelp-test/c1
kelp-oci update --memory 100M --memory-swap 120M --pids-limit 33 --cpu-quota 20000 --cpu-share 2048 c1 || echo failed
cat $g/memory.max $g/memory.swap.max $g/pids.max $g/cpu.max $g/cpu.weight
kelp-oci update --cpu-period 50000 c1 && cat $g/cpu.max
echo '{"pids":{"limit":7},"unified":{"memory.high":"max"}}' | kelp-oci update -r - c1 && cat $g/pids.max $g/memory.high
kelp-oci pause c1; kelp-oci state c1 | grep -o paused; kelp-oci resume c1; kelp-oci state c1 | grep -o running
kelp-oci kill --all c1 KILL; while kelp-oci state c1 | grep -q running; do sleep 0.1; done
kelp-oci delete c1; ls -d $g"""
    done = run(rig, "exec sleep 100", LIMITS, script)
    assert done.out.split() == [str(100 * MIB), str(20 * MIB), "33", "20000", "100000", "79", "20000", "50000", "7", "max",
                                "paused", "running"], done


def test_without_a_group_of_its_own(rig):
    refused = run(rig, "true", LIMITS, mode="bare", path=None)
    assert refused.status == 1 and "linux.resources.memory.limit" in refused.err and "hint:" in refused.err, refused
    assert run(rig, "echo up", mode="bare", path=None).out == "up\n"


SCOPES = "systemctl --user list-units --all --plain --no-legend --type scope | grep -c -e pre- -e libpod || :"
PID = "$(kelp-oci state c1 | sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p')"


@pytest.mark.parametrize("mode", ["session", "terminal", "unit"])
def test_limits_of_a_user_by_his_own_systemd(rig, mode):
    """A scope of the user's manager, in the slice that was named, gone with the container. From an ssh session, which
    is not delegated, no process can be cloned into it: systemd moves it."""
    show = "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max /proc/self/cgroup"
    done = run(rig, show, LIMITS, "kelp-oci --systemd-cgroup run c1; wait_for '! systemctl --user is-active -q pre-name.scope'; " + SCOPES,
               mode=mode, path="user.slice:pre:name")
    assert done.out.split("\n")[:5] == [str(64 * MIB), "20", "50000 100000", "0::/", "0"] and done.err == "", done

    done = run(rig, "exec sleep 100", LIMITS, f"""kelp-oci --systemd-cgroup run -d c1
cut -d: -f3 /proc/{PID}/cgroup; systemctl --user show pre-name.scope -p Slice -p ActiveState
kelp-oci exec c1 cat /proc/self/cgroup; kelp-oci exec -d c1 sleep 200
wait_for 'pgrep -fx "sleep 200"'; cut -d: -f3 /proc/$(pgrep -fx 'sleep 200')/cgroup
kelp-oci exec c1 tail /dev/zero; echo ended $?
kelp-oci delete -f c1; wait_for '! systemctl --user is-active -q pre-name.scope'; {SCOPES}""", mode=mode, path="kelptest.slice:pre:name")
    out = done.out.split()
    assert out[0].endswith("/kelptest.slice/pre-name.scope/container") and out[4] == out[0], done
    assert set(out[1:3]) == {"Slice=kelptest.slice", "ActiveState=active"} and out[3] == "0::/", done
    assert out[5:] == ["ended", "137", "0"], done


def test_namespaces_that_are_joined_by_whom_systemd_moves(rig):
    """Where a helper joins namespaces for the first process, it is the helper that is moved."""
    done = run(rig, "readlink /proc/self/ns/net; cat /proc/self/cgroup; exec sleep 100", LIMITS, f"""unshare -Urn sleep 1000 & other=$!
wait_for '[ $(readlink /proc/$other/ns/net) != $(readlink /proc/self/ns/net) ]'
sed -i "s|\\"type\\": \\"network\\"|\\"type\\": \\"network\\", \\"path\\": \\"/proc/$other/ns/net\\"|; s|\\"namespaces\\": .|&{{\\"type\\": \\"user\\", \\"path\\": \\"/proc/$other/ns/user\\"}}, |" config.json
kelp-oci --systemd-cgroup run -d c1 >out; wait_for 'grep -q :: out'; cat out; readlink /proc/$other/ns/net
cut -d: -f3 /proc/{PID}/cgroup; kelp-oci delete -f c1; kill $other""", mode="session", path="user.slice:pre:name")
    out = done.out.split()
    assert out[0] == out[2] and out[1] == "0::/" and out[3].endswith("/pre-name.scope/container"), done


def test_a_group_that_no_unit_holds_is_out_of_reach_from_a_session(rig):
    """The way out that the message names, really taken."""
    done = run(rig, "exec sleep 100", None, """systemd-run -q --user --scope -p Delegate=yes kelp-oci run -d c1
kelp-oci exec c1 true; echo $?; systemd-run -q --user --scope kelp-oci exec c1 cat /proc/self/cgroup; kelp-oci delete -f c1""",
               mode="session", path=None)
    assert done.out.split() == ["255", "0::/"], done
    lines = done.err.splitlines()
    assert len(lines) == 2 and "Permission denied" in lines[0] and "is not delegated to this user" in lines[0], done
    assert "hint:" in lines[1] and "`systemd-run --user --scope`" in lines[1], done


def test_podman_with_its_own_cgroups(rig):
    """As users have it: podman's scopes of the user's manager, its limits, its freezer."""
    podman = "podman --runtime /opt/kelp/kelp-oci"
    script = f"""podman load -q -i /opt/kelp/busybox.tar >/dev/null; podman info -f '{{{{.Host.CgroupManager}}}}'
{podman} run --rm --network none --memory 64m --pids-limit 50 --cpus 0.5 busybox sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max cpu.max'
{podman} run --rm --network none --memory 32m --memory-swap 32m busybox tail /dev/zero; echo $?
{podman} run -d --name life --network none --memory 64m busybox sh -c 'trap "exit 7" TERM; while :; do sleep 0.1; done' >/dev/null
{podman} exec life cat /proc/self/cgroup; {podman} pause life; {podman} inspect -f '{{{{.State.Status}}}}' life; {podman} unpause life
{podman} update --memory 48m life >/dev/null; {podman} exec life cat /sys/fs/cgroup/memory.max
{podman} stop -t 60 life; {podman} inspect -f '{{{{.State.ExitCode}}}}' life; {podman} start life; {podman} rm -f -t 0 life
wait_for '[ $({SCOPES}) = 0 ]'; {SCOPES}"""
    done = rig.run(script, "session")
    assert done.out.split() == ["systemd", str(64 * MIB), "50", "50000", "100000", "137", "0::/", "life", "paused", "life",
                                str(48 * MIB), "life", "7", "life", "life", "0"], done
