#!/usr/bin/env python3
"""How long TAB takes: `kelp __complete` with many containers and images.

usage: completion.py [--containers N] [--images N] [--rounds N]
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

GOAL = 5.0
CASES = [("rm", ""), ("start", "c4"), ("stop", ""), ("run", "--rm", ""), ("run", "--"), ("inspect", ""), ("vol",)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--containers", type=int, default=500)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    place = pathlib.Path(tempfile.mkdtemp(prefix="kt-b", dir="/tmp"))
    missed = 0
    try:
        kelp = programs.Kelp(place)
        kelp("load", "-q", "-i", images.busybox_image().write_archive(place / "b.tar", "localhost/busybox:latest"))
        for i in range(options.images):
            kelp("tag", "busybox", f"registry.example/some/image-{i}:v{i}")
        for i in range(options.containers):
            kelp("create", "--name", f"c{i}", "busybox", "true")
        print(f"{options.containers} containers, {options.images} images{'':10} median ms   goal")
        for words in CASES:
            argv = kelp.argv("__complete", "--", *words)
            times = []
            for _ in range(options.rounds):
                start = time.perf_counter()
                subprocess.run(argv, env=kelp.env, stdout=subprocess.DEVNULL, check=True)
                times.append((time.perf_counter() - start) * 1000)
            median = statistics.median(times)
            good = median < GOAL
            missed += not good
            print(f"kelp {' '.join(words) + '<TAB>':36} {median:9.2f}   {GOAL}  {'ok' if good else 'MISSED'}")
    finally:
        leaks.remove_tree(place)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
