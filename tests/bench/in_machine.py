#!/usr/bin/env python3
"""Measures starts with limits in the test machine, where systemd hands cgroups out: kelp beside podman, interleaved.

usage: in_machine.py [--rounds N]      (the kernel is that of tests/vm; tests/bench/run machine runs it with real-time priority)
Exit status 1: a goal was missed.
"""

import argparse
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP), str(TOP / "vm")]

import machine  # noqa: E402
from harness import images, needs, programs  # noqa: E402

LIMITS = "run --rm --network none --memory 64m --pids-limit 50 busybox true"
KEEPER = "kelp run -d --name keeper --network none busybox sleep 100000 >/dev/null"
# What is measured, its command, how many times faster it must be, what kelp has running meanwhile: podman's user
# namespace stays when its containers are gone, kelp's is held by a container.
ROWS = [("run --memory 64m --pids-limit 50, namespace there", LIMITS, 8, KEEPER),
        ("the same from idle", LIMITS, 5, ":"),
        ("without limits, from idle", "run --rm --network none busybox true", None, ":"),
        ("without a cgroup, from idle", "run --rm --network none --cgroups disabled busybox true", None, ":")]
# date is the only clock that the machine's shell has; its own start is measured and taken off.
LOOP = """now() {{ date +%s%N; }}
podman load -q -i /opt/kelp/busybox.tar >/dev/null; kelp load -q -i /opt/kelp/busybox.tar >/dev/null
{keeper}
for tool in kelp podman; do $tool {command}; done
for i in $(seq {rounds}); do for tool in kelp podman; do
  a=$(now); $tool {command} || exit 1; b=$(now); c=$(now); echo $tool $(( (b - a - (c - b)) / 1000 ))
done; done
kelp rm -f -a -t 0 >/dev/null
"""


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=10)
    given = options.parse_args()
    place = pathlib.Path(tempfile.mkdtemp(prefix="kt-bv", dir="/tmp"))
    missed = 0
    try:
        for name in ("kelp", "kelp-oci", "kelp-monitor", "kelp-image", "kelp-init"):
            subprocess.run(["strip", "-o", str(place / name), programs.program(name)], check=True)
        images.busybox_image().write_archive(place / "busybox.tar", "localhost/busybox:latest")
        with machine.Machine(machine.disk(needs.cache_dir()), place) as made:
            print(f"{made.run('uname -r', 'root').out.strip():50} {'kelp ms':>9} {'podman ms':>9} {'ratio':>7}")
            for what, command, times, keeper in ROWS:
                done = made.run(LOOP.format(command=command, rounds=given.rounds, keeper=keeper), "session", timeout=1800)
                if done.status != 0:
                    raise RuntimeError(f"{what}: {done}")
                samples = {"kelp": [], "podman": []}
                for line in done.out.splitlines():
                    tool, spent = line.split()
                    samples[tool].append(int(spent) / 1000)
                kelp, podman = (statistics.median(samples[tool]) for tool in ("kelp", "podman"))
                ok = times is None or podman >= times * kelp
                missed += not ok
                goal = "" if times is None else f"  {times} times faster  {'ok' if ok else 'MISSED'}"
                print(f"{what:50} {kelp:9.2f} {podman:9.2f} {podman / kelp:7.1f}{goal}", flush=True)
        return 1 if missed else 0
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
