#!/usr/bin/env python3
"""Measures kelp beside podman, bare crun and bwrap in one run: interleaved, medians, ratios.

usage: compare.py [--rounds N] [--containers N] [--only WORD]   (see tests/bench/run)
Whatever a command leaves running for a moment (clean-up) is waited for before the next one is timed.
Exit status 1: a goal was missed. A row that cannot be measured here is listed as skipped, with its reason.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent), str(pathlib.Path(__file__).resolve().parent)]

from harness import images, leaks, needs, programs  # noqa: E402
from harness.registry import free_port  # noqa: E402
import daily  # noqa: E402
import runtimes  # noqa: E402
from measure import Table, adopt_orphans, install, medians, timed  # noqa: E402

NONE = ("--network", "none")


class Contestant:
    """A tool with podman's command line and directories of its own."""

    def __init__(self, name, argv, env, directory):
        self.name, self.argv, self.env, self.dir = name, argv, env, directory

    def __call__(self, *args, check=True):
        done = subprocess.run([*self.argv, *args], env=self.env, cwd=self.dir, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True)
        if check and done.returncode != 0:
            raise RuntimeError(f"{self.name} {' '.join(args)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def time(self, *args):
        return timed([*self.argv, *args], self.env, self.dir)


class Bench:
    def __init__(self, place, run_place, rounds):
        self.rounds, self.place, self.run_place = rounds, place, run_place
        self.table = None
        self.archive = images.busybox_image().write_archive(place / "busybox.tar", "localhost/busybox:latest")
        self.layers = images.many_layers_image(20).write_archive(place / "layers.tar", "localhost/layers:latest")
        self.program = install(place / "bin")
        self.kelp, self.idle = self._kelp("k"), self._kelp("i")
        self.podman = self._podman()
        self.crun = self._bundle()
        for tool in (self.kelp, self.idle, self.podman):
            if tool:
                tool("load", "-q", "-i", str(self.archive))
                tool("load", "-q", "-i", str(self.layers))
        self.kelp("run", "-d", "--name", "holder", *NONE, "busybox", "sleep", "100000")

    def _kelp(self, name):
        directory = self.place / name
        directory.mkdir()
        made = programs.Kelp(directory)
        return Contestant("kelp", [self.program], made.env | self._runtime_dir(name), directory)

    def _runtime_dir(self, name):
        directory = self.run_place / name
        directory.mkdir(mode=0o700)
        return {"XDG_RUNTIME_DIR": str(directory)}

    def _podman(self):
        if needs.find_program("podman") is None:
            return None
        directory = self.place / "p"
        directory.mkdir()
        env = programs.Kelp(directory).env | self._runtime_dir("p")
        configuration = directory / "f/containers"
        configuration.mkdir()
        (configuration / "storage.conf").write_text('[storage]\ndriver = "overlay"\n')
        (configuration / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        for runtime in ("crun", "runc"):
            if needs.find_program(runtime) is None:
                continue
            tool = Contestant("podman", ["podman", "--runtime", runtime, "--cgroup-manager", "cgroupfs"], env, directory)
            tool("load", "-q", "-i", str(self.archive))
            try:
                tool("run", "--rm", *NONE, "busybox", "true")
            except RuntimeError as error:
                print(f"podman with {runtime} cannot run here: {error}")
                continue
            print(f"podman runs with {runtime}, storage driver {tool('info', '--format', '{{.Store.GraphDriverName}}')}")
            return tool
        return None

    def _bundle(self):
        """A bundle for bare crun: the same image unpacked, no terminal, all namespaces."""
        if needs.find_program("crun") is None:
            return None
        bundle = self.place / "bundle"
        (bundle / "rootfs").mkdir(parents=True)
        layer = bundle / "layer.tar"
        layer.write_bytes(images.busybox_layer().bytes())
        with tarfile.open(layer) as tar:
            members = tar.getmembers()
            for member in members:
                member.uid, member.gid = os.getuid(), os.getgid()
            tar.extractall(bundle / "rootfs", members)
        subprocess.run(["crun", "spec", "--rootless"], cwd=bundle, check=True)
        config = json.loads((bundle / "config.json").read_text())
        config["process"] |= {"terminal": False, "args": ["true"]}
        spaces = config["linux"]["namespaces"]
        for kind in ("network", "cgroup"):
            if not any(space["type"] == kind for space in spaces):
                spaces.append({"type": kind})
        (bundle / "config.json").write_text(json.dumps(config))
        root = self.run_place / "crun"
        argv = ["crun", "--root", str(root), "--cgroup-manager", "disabled", "run", "-b", str(bundle), "bench"]
        done = subprocess.run(argv, env=self.kelp.env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            print(f"bare crun cannot run here: {done.stderr.strip()}")
            return None
        return lambda: timed(argv, self.kelp.env, self.place)

    # --- the rows of the table ---

    def start(self):
        run = ("run", "--rm", *NONE, "busybox", "true")
        candidates = {"joined": lambda: self.kelp.time(*run), "idle": lambda: self.idle.time(*run)}
        if self.podman:
            candidates["podman"] = lambda: self.podman.time(*run)
        if self.crun:
            candidates["crun"] = self.crun
        rootfs = self.place / "bundle/rootfs"
        bwrap = ["bwrap", "--unshare-all", "--bind", str(rootfs), "/", "--proc", "/proc", "--dev", "/dev", "true"]
        if needs.find_program("bwrap") and self.crun:
            candidates["bwrap"] = lambda: timed(bwrap, self.kelp.env, self.place)
        candidates["floor"] = lambda: timed(
            ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts",
             "--cgroup", "true"], self.kelp.env, self.place)
        result = medians(self.rounds, **candidates)
        if self.podman:
            self.table.faster("run true, user namespace there / podman", result["joined"], result["podman"], 12)
            self.table.faster("run true, from idle / podman", result["idle"], result["podman"], 10)
        else:
            self.table.skip("run true / podman", "podman cannot run here")
        if self.crun:
            self.table.at_most("run true, from idle / bare crun run", result["idle"], result["crun"], 1.0)
            self.table.at_most("run true, namespace there / bare crun", result["joined"], result["crun"], 0.8)
        else:
            self.table.skip("run true / bare crun run", "crun cannot run here")
        if "bwrap" in result:
            self.table.fact("  for scale: bwrap --unshare-all", result["bwrap"])
        self.table.fact("  for scale: unshare of all, full id map", result["floor"])

    def variants(self):
        if not self.podman:
            return self.table.skip("variants of run / podman", "podman cannot run here")
        port = free_port()
        shared = self.place / "shared"
        shared.mkdir()
        limits, why = needs.probe("cgroup-limits")
        rows = [("-v", [*NONE, "-v", f"{shared}:/in"], "busybox"), ("-e", [*NONE, "-e", "A=b"], "busybox"),
                ("-t", [*NONE, "-t"], "busybox"), ("20 layers", [*NONE], "layers")]
        if needs.probe("tun")[0]:
            rows.append(("-p", ["--network", "slirp4netns", "-p", f"127.0.0.1:{port}:80"], "busybox"))
        if limits:
            rows.append(("--memory", [*NONE, "--memory", "64m"], "busybox"))
        else:
            self.table.skip("run --memory / podman", why)
        for what, options, image in rows:
            arguments = ("run", "--rm", *options, image, "true")
            result = medians(max(5, self.rounds // 2), kelp=lambda: self.kelp.time(*arguments),
                             podman=lambda: self.podman.time(*arguments))
            self.table.faster(f"run {what} / podman", result["kelp"], result["podman"], 8)

        def sixteen(tool):
            start = time.perf_counter()
            children = [subprocess.Popen([*tool.argv, "run", "--rm", *NONE, "busybox", "true"], env=tool.env, cwd=tool.dir,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                        for _ in range(16)]
            if any(child.wait() for child in children):
                raise RuntimeError(f"{tool.name}: one of sixteen failed")
            return (time.perf_counter() - start) * 1000
        result = medians(3, kelp=lambda: sixteen(self.kelp), podman=lambda: sixteen(self.podman))
        self.table.faster("run, 16 at once / podman", result["kelp"], result["podman"], 8)

    def network(self):
        if not needs.probe("tun")[0]:
            return self.table.skip("default network", needs.probe("tun")[1])
        result = medians(self.rounds, none=lambda: self.kelp.time("run", "--rm", *NONE, "busybox", "true"),
                         default=lambda: self.kelp.time("run", "--rm", "busybox", "true"))
        self.table.no_more_than("run, default network / none", result["default"], result["none"], 12)

    def commands(self):
        result = medians(self.rounds * 2, kelp=lambda: self.kelp.time("--version"),
                         true=lambda: timed(["/bin/true"], self.kelp.env, self.place))
        self.table.no_more_than("--version / true", result["kelp"], result["true"], 1.5)
        if not self.podman:
            return self.table.skip("exec, ps, stop, rm, create, inspect", "podman cannot run here")
        tools = {"kelp": self.kelp, "podman": self.podman}
        for tool in tools.values():
            tool("run", "-d", "--name", "up", *NONE, "busybox", "sleep", "100000")
        for what, arguments in (("exec true", ("exec", "up", "true")), ("ps", ("ps",)), ("inspect", ("inspect", "up"))):
            result = medians(self.rounds, **{name: (lambda t=tool: t.time(*arguments)) for name, tool in tools.items()})
            self.table.faster(f"{what} / podman", result["kelp"], result["podman"], 10)

        def create(tool):
            spent = tool.time("create", "--name", "made", *NONE, "busybox", "true")
            tool("rm", "made")
            return spent

        def stop(tool):
            tool("start", "up")
            return tool.time("stop", "-t", "0", "up")

        def remove(tool):
            tool("run", "-d", "--name", "gone", *NONE, "busybox", "sleep", "100000")
            return tool.time("rm", "-f", "-t", "0", "gone")

        for what, call in (("create", create), ("stop -t 0", stop), ("rm -f", remove)):
            result = medians(max(5, self.rounds // 2), **{name: (lambda t=tool: call(t)) for name, tool in tools.items()})
            self.table.faster(f"{what} / podman", result["kelp"], result["podman"], 10)

    def many(self, count):
        """Idle containers with default settings, all at once; private memory of their monitors."""
        start = time.perf_counter()
        for n in range(count):
            self.kelp("run", "-d", "--name", f"idle{n}", *NONE, "busybox", "sleep", "100000")
        spent = (time.perf_counter() - start) * 1000 / count
        private = []
        for entry in os.listdir("/proc"):
            try:
                if "kelp-monitor" in open(f"/proc/{entry}/comm").read():
                    text = open(f"/proc/{entry}/smaps_rollup").read()
                    private.append(sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")))
            except OSError:
                continue
        alive = len(self.kelp("ps", "-q").splitlines())
        self.table.row(f"{count} idle containers at once", alive, count, alive >= count, "all run")
        self.table.fact("  each started in", spent)
        if private:
            median = statistics.median(private)
            self.table.row("private memory of a monitor, K", median, 100, median < 100, "below 100")

    def stats(self, count=50):
        for n in range(count):
            self.kelp("run", "-d", "--name", f"use{n}", *NONE, "busybox", "sleep", "100000")
        result = medians(self.rounds, kelp=lambda: self.kelp.time("stats", "--no-stream"))
        self.table.row(f"stats --no-stream of {count}", result["kelp"], 50, result["kelp"] < 50, "below 50 ms")
        self.kelp("rm", "-f", "-t", "0", *[f"use{n}" for n in range(count)])

    def runtimes(self):
        """The runtime alone, without engine and monitor."""
        state = self.run_place / "oci"
        state.mkdir(mode=0o700)
        runtimes.rows(self.table, self.place, state, self.place / "bundle/rootfs", self.rounds, self.kelp.env)

    def daily(self):
        daily.rows(self.table, self.kelp, self.podman, self.place / "daily", self.rounds)

    def clean(self):
        self.kelp("rm", "-f", "-a", "-t", "0", check=False)
        if self.podman:
            self.podman("rm", "-f", "-a", "-t", "0", check=False)
            self.podman("system", "migrate", check=False)  # ends its pause process


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--containers", type=int, default=300)
    options.add_argument("--only", default="", help="start, runtimes, variants, network, commands, daily, stats or many")
    given = options.parse_args()
    if os.getuid() == 0:
        sys.exit("compare.py: run tests/bench/run, which becomes an ordinary user")
    adopt_orphans()
    place = pathlib.Path(tempfile.mkdtemp(prefix="kt-b", dir=os.environ.get("KELP_BENCH_DIR", "/tmp")))
    # Run directories are where a login has them; without a login, in the same place as all else.
    session = os.environ.get("XDG_RUNTIME_DIR")
    run_place = pathlib.Path(tempfile.mkdtemp(prefix="kt-b", dir=session if session and os.path.isdir(session) else place))
    bench = None
    try:
        bench = Bench(place, run_place, given.rounds)
        bench.table = Table()
        for name, call in (("start", bench.start), ("runtimes", bench.runtimes), ("variants", bench.variants),
                           ("network", bench.network), ("commands", bench.commands), ("daily", bench.daily), ("stats", bench.stats),
                           ("many", lambda: bench.many(given.containers))):
            if given.only in ("", name):
                call()
        print(f"{bench.table.missed} goals missed, {bench.table.skipped} rows skipped")
        return 1 if bench.table.missed else 0
    finally:
        if bench:
            bench.clean()
        for directory in (run_place, place):
            leaks.remove_tree(directory)
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
