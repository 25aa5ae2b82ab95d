#!/usr/bin/env python3
"""How fast output passes: one gigabyte through `kelp run` and `kelp logs`, beside `cat` through a pipe.

usage: streams.py [--megabytes N] [--rounds N]     (run it by tests/bench/run's way of becoming an ordinary user)
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import images, leaks, programs  # noqa: E402

NONE = ("--network", "none")
GOAL = 1.5


def piped(argv, env=None, cwd=None):
    """Seconds from the start until a reader at the other end of a pipe has everything, and the bytes it got."""
    start = time.perf_counter()
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env, cwd=cwd)
    counter = subprocess.run(["wc", "-c"], stdin=child.stdout, capture_output=True, text=True, check=True)
    child.stdout.close()
    if child.wait() != 0:
        raise RuntimeError(f"{argv}: exit {child.returncode}")
    return time.perf_counter() - start, int(counter.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    place = pathlib.Path(tempfile.mkdtemp(prefix="kt-b", dir="/tmp"))
    missed = 0
    try:
        directory = place / "k"
        directory.mkdir()
        kelp = programs.Kelp(directory)
        kelp("load", "-q", "-i", images.busybox_image().write_archive(place / "b.tar", "localhost/busybox:latest"))
        size = options.megabytes * 1_000_000
        text = place / "text"
        line = b"The quick brown fox jumps over the lazy dog, again and again and again.\n"
        text.write_bytes(line * (size // len(line)))
        size = text.stat().st_size
        text.chmod(0o644)
        volume = ("-v", f"{text}:/text:ro")
        kelp("run", "--name", "logged", *NONE, *volume, "busybox", "cat", "/text", timeout=600)
        candidates = {
            "cat": ["cat", str(text)],
            "run --log-driver none": kelp.argv("run", "--rm", "--log-driver", "none", *NONE, *volume, "busybox", "cat", "/text"),
            "run": kelp.argv("run", "--rm", *NONE, *volume, "busybox", "cat", "/text"),
            "logs": kelp.argv("logs", "logged"),
        }
        times = {name: [] for name in candidates}
        for _ in range(options.rounds):
            for name, argv in candidates.items():
                seconds, got = piped(argv, kelp.env, directory)
                if got != size:
                    raise RuntimeError(f"{name}: {got} bytes of {size}")
                times[name].append(seconds)
        base = statistics.median(times["cat"])
        print(f"{options.megabytes} MB{'':24} seconds   times cat   goal")
        for name, values in times.items():
            median = statistics.median(values)
            good = median <= GOAL * base
            missed += not good
            print(f"{name:30} {median:8.2f} {median / base:11.2f}   {GOAL}  {'ok' if good else 'MISSED'}")
        kelp("rm", "-f", "-a", "-t", "0")
    finally:
        leaks.remove_tree(place)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
