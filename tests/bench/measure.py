"""What the benchmarks share: a clock, interleaved rounds, and the table with its goals."""

import ctypes
import os
import pathlib
import statistics
import subprocess
import time

from harness import programs

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    """What a measured command leaves behind becomes our child, so that settle() can wait for its end."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def install(place):
    """Puts the programs into a directory as contrib/quickstart does; returns the path of kelp there. (The linker writes
    a file in no order; one that was copied lies in the page cache in larger pieces: a start takes 4 % less.)"""
    place.mkdir()
    for name in ("kelp", "kelp-oci", "kelp-monitor", "kelp-image", "kelp-init"):
        subprocess.run(["strip", "-o", str(place / name), programs.program(name)], check=True)
    return str(place / "kelp")


def _children():
    return set(pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def settle(staying, patience=0.3):
    """Until nothing but `staying` is left of what ran: the clean-up of one tool must not fall into another's time."""
    until = time.monotonic() + patience
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            return
        if _children() <= staying or time.monotonic() > until:
            return
        time.sleep(0.001)


def timed(argv, env, directory, **more):
    """Milliseconds from the start of the program to its end."""
    staying = _children()
    start = time.perf_counter()
    code = subprocess.Popen(argv, env=env, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, **more).wait()
    spent = (time.perf_counter() - start) * 1000
    if code != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit {code}")
    settle(staying)
    return spent


def medians(rounds, **candidates):
    """Calls each candidate (a function that gives milliseconds) in turn, round after round; medians by name."""
    samples = {name: [] for name in candidates}
    for call in candidates.values():
        call()  # caches are warm for all
    for _ in range(rounds):
        for name, call in candidates.items():
            samples[name].append(call())
    return {name: statistics.median(values) for name, values in samples.items()}


class Table:
    """The rows: what was measured, and whether the goal was met."""

    def __init__(self):
        self.missed = self.skipped = 0
        print(f"{'':42} {'kelp ms':>9} {'peer ms':>9} {'ratio':>7}  goal")

    def row(self, what, mine, peer, ok, goal, ratio=None):
        self.missed += not ok
        ratio = ratio if ratio is not None else (peer / mine if mine else 0)
        print(f"{what:42} {mine:9.2f} {peer:9.2f} {ratio:7.2f}  {goal}  {'ok' if ok else 'MISSED'}", flush=True)

    def faster(self, what, mine, peer, times):
        self.row(what, mine, peer, peer >= times * mine, f"{times} times faster")

    def at_most(self, what, mine, peer, factor):
        self.row(what, mine, peer, mine <= factor * peer, f"at most {factor} x", mine / peer)

    def no_more_than(self, what, mine, base, extra):
        self.row(what, mine, base, mine - base <= extra, f"at most {extra} ms more ({mine - base:+.2f})", mine / base)

    def skip(self, what, why):
        self.skipped += 1
        print(f"{what:42} skipped: {why}", flush=True)

    def fact(self, what, value):
        print(f"{what:42} {value:9.2f}", flush=True)
