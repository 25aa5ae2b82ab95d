"""stats, update, top and the freezer, where the kernel counts and limits."""

import json

START = "kelp run -d --network none"
GROUP = "/sys/fs/cgroup/$(kelp inspect -f '{{.State.CgroupPath}}' %s)"


def test_stats_of_what_runs(run):
    run(f"{START} --name idle --memory 64m busybox sleep 1000; "
        f"{START} --name busy busybox sh -c 'while :; do :; done'; kelp create --name not busybox true; "
        "percent() { kelp stats --no-stream --format '{{.CPUPerc}}' $1 | cut -d. -f1; }; "
        "wait_for '[ $(percent idle) -lt 9 ] && [ $(percent busy) -gt 11 ]'")
    objects = {row["name"]: row for row in json.loads(run("kelp stats --no-stream --format json").out)}
    assert set(objects) == {"idle", "busy"}
    idle, busy = objects["idle"], objects["busy"]
    assert list(idle)[:10] == ["id", "name", "cpu_time", "cpu_percent", "avg_cpu", "mem_usage", "mem_percent", "net_io",
                               "block_io", "pids"]
    assert idle["mem_usage"].endswith(" / 67.11MB") and idle["pids"] == "1" and idle["net_io"] == "0B / 0B"
    assert float(busy["cpu_percent"].rstrip("%")) > 10 > float(idle["cpu_percent"].rstrip("%"))
    if run("[ ! -e /proc/pressure ] || echo yes", "root").out:
        assert set(idle["pressure"]) == {"cpu", "memory", "io"} and busy["pressure"]["cpu"]["some"]["total"] >= 0
    table = run("kelp stats --no-stream").out.splitlines()
    assert table[0].split("  ")[0] == "ID" and "MEM USAGE / LIMIT" in table[0] and len(table) == 3
    assert len(run("kelp stats --no-stream -a").out.splitlines()) == 4
    assert run("kelp stats --no-stream --format '{{.Name}} {{.PIDs}} {{.MemLimit}}' idle").out == f"idle 1 {64 << 20}\n"
    # The second sample is of the time since the first: the freezer stops the clock of a busy container.
    out = run("kelp pause busy >/dev/null; timeout 240 kelp stats -i 2 --format '{{.CPUPerc}}' busy | head -n 2; "
              "kelp unpause busy").out.split()
    assert float(out[0].rstrip("%")) > 10 and out[1] == "0.00%"


def test_stats_end_with_the_containers_they_are_about(run):
    out = run(f"{START} --name short busybox sh -c 'until [ -e /go ]; do sleep 0.1; done' >/dev/null; "
              "timeout 240 kelp stats -i 1 --format '{{.PIDs}}' short >stats & wait_for 'grep -q 1 stats'; "
              "kelp exec short touch /go; wait $! && cat stats; rm stats").out
    assert int(out.split()[0]) >= 1 and out.split()[-1] == "0"


def test_stats_count_what_went_to_disks_and_networks(run):
    """2 MB past the page cache, and a line that comes in by a published port."""
    run("mkdir -p io; kelp run -d --name c -v ~/io:/io -p 127.0.0.1:18080:80 busybox sh -c 'dd if=/dev/zero of=/io/b bs=64k count=32 "
        "oflag=direct; dd if=/io/b of=/dev/null bs=64k iflag=direct; nc -l -p 80; echo done; sleep 1000'")
    out = run("wait_for 'echo hello >/dev/tcp/127.0.0.1/18080; kelp logs c | grep done'; kelp stats --no-stream --format '{{.BlockInput}} {{.BlockOutput}} {{.NetInput}} "
              "{{.NetOutput}} {{.BlockIO}}' c; rm -f io/b").out.split()
    read, written, received, sent = map(int, out[:4])
    assert read >= 2 << 20 and written >= 2 << 20 and received >= 40 and sent >= 40
    assert out[4].endswith("MB") and out[6].endswith("MB")


def test_stats_beside_podman(run):
    keys = "python3 -c 'import sys, re; print(re.findall(r\"\\\"(\\w+)\\\":\", sys.stdin.read())[:10])'"
    run("podman load -q -i /opt/kelp/busybox.tar; podman run -d --name p --network none busybox sleep 1000")
    run(f"{START} --name k busybox sleep 1000")
    try:
        assert run(f"kelp stats --no-stream --format json k | {keys}").out == \
            run(f"podman stats --no-stream --format json p | {keys}").out
        ours, theirs = (run(f"{tool} stats --no-stream").out.splitlines()[0] for tool in ("kelp", "podman"))
        assert ours.split() == theirs.split()
    finally:
        run("podman rm -f -t 0 p")


def test_update_changes_the_limits_of_a_running_container(run):
    group = GROUP % "u"
    show = f"cat {group}/memory.max {group}/cpu.max {group}/pids.max {group}/cpu.weight; "
    out = run(f"{START} --name u --memory 32m --cpus 1 busybox sleep 1000 >/dev/null; "
              f"kelp update --memory 48m --pids-limit 33 u >/dev/null; {show}"
              f"kelp update --cpu-quota 20000 --cpu-shares 2048 u >/dev/null; {show}"
              f"kelp update --cpus 0.5 --pids-limit -1 u >/dev/null; {show}"
              "kelp inspect -f '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpuQuota}}' u; "
              f"kelp restart -t 0 u >/dev/null; {show}").out.splitlines()
    memory, weight = str(48 << 20), "79"
    assert out == [memory, "100000 100000", "33", "100", memory, "20000 100000", "33", weight,
                   memory, "50000 100000", "max", weight, f"{48 << 20} 500000000 0",
                   memory, "50000 100000", "max", weight]


def test_update_of_a_limit_that_binds(run):
    run(f"{START} --name m --memory 64m busybox sleep 1000; kelp update --memory 16m --memory-swap 16m m")
    run("kelp exec m tail /dev/zero", status=137)


def test_update_of_restart_policy_environment_and_health(run):
    out = run(f"{START} --name w busybox sh -c 'echo ran; until [ -e /go ]; do sleep 0.1; done; exit 3' >/dev/null; "
              "kelp update --restart on-failure:2 w >/dev/null; kelp exec w touch /go; "
              "wait_for '[ $(kelp logs w | wc -l) = 3 ] && [ $(kelp inspect -f \"{{.State.Status}}\" w) = exited ]'; "
              "kelp inspect -f '{{.HostConfig.RestartPolicy.Name}} {{.State.ExitCode}}' w").out
    assert out == "on-failure 3\n"
    out = run(f"{START} --name h -e A=1 -e B=2 busybox sleep 1000 >/dev/null; "
              "kelp update --env A=7 --unsetenv B --health-cmd 'test $A = 7' --health-interval 1s h >/dev/null; "
              "kelp exec h sh -c 'echo $A-$B'; wait_for 'kelp inspect -f {{.State.Health.Status}} h | grep -x healthy'; "
              "kelp inspect -f '{{.State.Health.Status}}' h").out.split()
    assert out == ["7-", "healthy"]


def test_update_refuses_what_cannot_be(run):
    run(f"{START} --name x --rm --memory 32m busybox sleep 1000; kelp create --name y --cgroups disabled busybox true")
    for words, says in (("--restart always x", "--rm"), ("--memory-swap 16m x", "memory"), ("--memory 32m y", "--cgroups"),
                        ("--memory-swappiness 3 x", "cgroup v2")):
        assert says in run(f"kelp update {words}", status=125).err
    assert run(f"cat {GROUP % 'x'}/memory.max").out == f"{32 << 20}\n"


def test_top_lists_the_processes(run):
    out = run(f"{START} --name t busybox sh -c 'sleep 4711; :' >/dev/null; kelp top t pid args").out
    assert "sleep 4711" in out and len(out.splitlines()) == 3
