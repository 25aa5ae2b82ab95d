"""stats, update, top and the freezer, where the kernel counts and limits."""

import json

START = "kelp run -d --network none"
GROUP = "/sys/fs/cgroup/$(kelp inspect -f '{{.State.CgroupPath}}' %s)"


def test_stats_of_what_runs(run):
    run(f"{START} --name idle --memory 64m busybox sleep 1000; "
        f"{START} --name busy busybox sh -c 'while :; do :; done'; sleep 2; kelp create --name not busybox true")
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
    out = run("kelp pause busy >/dev/null; timeout 20 kelp stats -i 2 --format '{{.CPUPerc}}' busy | head -n 2; "
              "kelp unpause busy").out.split()
    assert float(out[0].rstrip("%")) > 10 and out[1] == "0.00%"


def test_stats_end_with_the_containers_they_are_about(run):
    out = run(f"{START} --name short busybox sleep 4 >/dev/null; timeout 60 kelp stats -i 1 --format '{{{{.PIDs}}}}' short").out
    assert out.split()[0] == "1" and out.split()[-1] == "0"


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
    out = run(f"{START} --name w -e A=1 busybox sh -c 'sleep 1; exit 3' >/dev/null; kelp update --restart on-failure:2 w >/dev/null;"
              "sleep 1; kelp wait w; sleep 8; kelp inspect -f '{{.HostConfig.RestartPolicy.Name}}' w").out.split()
    assert out[-1] == "on-failure"
    out = run(f"{START} --name h -e A=1 -e B=2 busybox sleep 1000 >/dev/null; "
              "kelp update --env A=7 --unsetenv B --health-cmd 'test $A = 7' --health-interval 1s h >/dev/null; "
              "kelp exec h sh -c 'echo $A-$B'; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1; "
              "[ \"$(kelp inspect -f '{{.State.Health.Status}}' h)\" != healthy ] || break; done; "
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
