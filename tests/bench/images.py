#!/usr/bin/env python3
"""Measures how images are moved: kelp beside podman and skopeo, against one registry on the loopback, in one run.

usage: images.py [--rounds N] [--only WORD] [--scale PERCENT]   (tests/bench/run images …)

Each round pulls into fresh stores, the tools one after the other, so that whatever else the machine does hits all of
them. skopeo copies to a directory: it downloads and checks, and unpacks nothing. Wall, processor time and peak memory
are those of the command with all its children (the disk is synced afterwards, outside of the clock, for everybody).
Exit status 1: a goal was missed. What cannot be measured here is listed as skipped, with its reason.
"""

import argparse
import io
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import cost as harness_cost, images, leaks, needs, programs, registry  # noqa: E402

PLAIN = "--tls-verify=false"


def measure(argv, env, cwd):
    """Runs a command that must succeed; its cost."""
    cost = harness_cost.measure(argv, env, cwd)
    if cost.code != 0:
        raise RuntimeError(f"{' '.join(map(str, argv))}: exit {cost.code}: {cost.out[-500:]}")
    return cost


class Tool:
    """A tool with directories of its own below `place`, emptied before each pull."""

    def __init__(self, name, place):
        self.name, self.dir = name, place / name
        self.env = {"HOME": str(self.dir / "h"), "LANG": "C.UTF-8", "XDG_RUNTIME_DIR": str(self.dir / "r"),
                    "XDG_DATA_HOME": str(self.dir / "d"), "XDG_CACHE_HOME": str(self.dir / "c"),
                    "XDG_CONFIG_HOME": str(self.dir / "f"), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}

    def fresh(self):
        if self.dir.exists():
            if self.name == "podman":
                subprocess.run(["podman", "unshare", "rm", "-rf", str(self.dir / "d")], env=self.env, capture_output=True)
            leaks.remove_tree(self.dir)
        for name in ("h", "r", "d", "c", "f"):
            (self.dir / name).mkdir(parents=True, mode=0o700)
        (self.dir / "h/policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
        os.sync()

    def argv(self, *args):
        if self.name == "kelp":
            return [programs.program("kelp"), *args]
        if self.name == "skopeo":
            return ["skopeo", "--insecure-policy", *args]
        return ["podman", "--cgroup-manager=cgroupfs", "--log-level=error", *args]

    def __call__(self, *args):
        return measure(self.argv(*args), self.env, self.dir)

    def pull(self, name):
        if self.name == "skopeo":
            return self("copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"dir:{self.dir}/d/copy")
        return self("pull", "-q", PLAIN, name)


# What is pulled


def _noise(generator, size):
    """Bytes that compress to about a half, like programs do, in every compressor: nothing comes twice."""
    return b"".join(generator.randbytes(64) + b"\0" * 32 + b"abcdefghijklmnopqrstuvwxyz012345"
                    for _ in range(max(1, size // 128)))


def many_files(count):
    generator = random.Random(1)
    block = _noise(generator, 1 << 16)
    layer, buffer = None, io.BytesIO()
    layer = tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT)
    for directory in range(count // 60):
        info = tarfile.TarInfo(f"usr/lib/d{directory}")
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        layer.addfile(info)
        for number in range(59):
            info = tarfile.TarInfo(f"usr/lib/d{directory}/f{number}")
            info.size, info.mode = generator.choice((0, 200, 900, 2500, 6000)), 0o644
            at = generator.randrange(0, len(block) - info.size)
            layer.addfile(info, io.BytesIO(block[at:at + info.size]))
    layer.close()
    return [buffer.getvalue()]


def big_file(size):
    generator = random.Random(2)
    layer = images.LayerTar().directory("d")
    layer.file("d/big", (_noise(generator, 8 << 20) * (size // (8 << 20) + 1))[:size])
    return [layer.bytes()]


def ten_layers(files, size):
    layers = []
    for number in range(10):
        generator = random.Random(100 + number)
        block = _noise(generator, size)
        layer = images.LayerTar().directory(f"l{number}")
        for n in range(files):
            layer.file(f"l{number}/f{n}", block[n * 1000:n * 1000 + size // files])
        layers.append(layer.bytes())
    return layers


# The table


class Bench:
    def __init__(self, options):
        self.options, self.rows, self.missed, self.skipped = options, [], [], []

    def wanted(self, name):
        return not self.options.only or self.options.only in name

    def goal(self, row, text, value, limit):
        good = value <= limit
        self.rows.append(f"    {'ok    ' if good else 'MISSED'} {text}")
        if not good:
            self.missed.append(f"{row}: {text}")

    def compare(self, name, costs, goals):
        """costs: tool → list of Cost; goals: [(figure, factor)], kelp's figure ≤ factor × podman's."""
        self.rows.append(name)
        median = {tool: {figure: statistics.median(getattr(cost, figure) for cost in list_)
                         for figure in ("wall", "cpu", "memory")} for tool, list_ in costs.items()}
        for tool, figures in median.items():
            self.rows.append(f"    {tool:8} {figures['wall'] * 1000:9.1f} ms wall  {figures['cpu'] * 1000:9.1f} ms cpu  "
                             f"{figures['memory']:7.1f} MiB")
        for figure, factor in goals:
            ours, theirs = median["kelp"][figure], median["podman"][figure]
            self.goal(name, f"{figure}: {ours / theirs:.3f} of podman's, at most {factor}", ours / theirs, factor)
        return median

    def print(self):
        print("\n".join(self.rows))
        for line in self.skipped:
            print(f"skipped: {line}")
        for line in self.missed:
            print(f"missed: {line}", file=sys.stderr)
        return 1 if self.missed else 0


def push_to(server, image, name, place, compression):
    layout = image.write_layout(place / "layout", "x")
    try:
        return server.push(f"oci:{layout}:x", name)
    finally:
        leaks.remove_tree(layout)


def bench_pulls(bench, server, tools, place):
    scale = bench.options.scale / 100
    kinds = {"many": lambda: many_files(int(62_000 * scale)), "big": lambda: big_file(int((256 << 20) * scale)),
             "ten": lambda: ten_layers(40, int((16 << 20) * scale))}
    for kind, make in kinds.items():
        for compression in ("gzip", "zstd"):
            row = f"pull {kind} {compression}"
            if not bench.wanted(row):
                continue
            if compression == "zstd" and needs.find_program("zstd") is None:
                bench.skipped.append(f"{row}: no zstd")
                continue
            name = push_to(server, images.Image(make(), {"Cmd": ["/x"]}, compression=compression), f"{kind}-{compression}:1",
                           place, compression)
            costs, use = {tool.name: [] for tool in tools}, {}
            for _ in range(bench.options.rounds):
                for tool in tools:
                    tool.fresh()
                    costs[tool.name].append(tool.pull(name))
                    use[tool.name] = disk_use(tool)
            wall = 1 / 3 if kind == "big" else 1 / 2
            median = bench.compare(row, costs, [("wall", wall), ("cpu", 0.4)] if kind != "ten" else [])
            bench.rows.append("    disk   " + ", ".join(f"{tool} {size:.1f} MiB" for tool, size in use.items()))
            bench.goal(row, f"memory: {median['kelp']['memory']:.1f} MiB, below 64", median["kelp"]["memory"], 64)


def bare_upload(server, name, blobs, manifest, kelp):
    """Cost of sending an image with curl: the blobs at once, then the manifest. What the registry needs to take and check
    it, however good the client is; where the blobs go was asked before, outside of the clock."""
    uploads = []
    for file in blobs:
        request = urllib.request.Request(f"http://{server.address}/v2/{name}/blobs/uploads/", method="POST")
        with urllib.request.urlopen(request) as answer:
            place = answer.headers["Location"]
        uploads += ["-T", file, f"{place}{'&' if '?' in place else '?'}digest=sha256:{file.name}"]
    parts = measure(["curl", "-sS", "-f", "-Z", *uploads], kelp.env, kelp.dir)
    kind = json.loads(manifest.read_text())["mediaType"]
    last = measure(["curl", "-sS", "-f", "-X", "PUT", "-H", f"Content-Type: {kind}", "--data-binary", f"@{manifest}",
                    f"http://{server.address}/v2/{name}/manifests/1"], kelp.env, kelp.dir)
    return harness_cost.Cost(0, parts.wall + last.wall, parts.cpu + last.cpu, max(parts.memory, last.memory), "")


def bench_out(bench, server, second, tools, place):
    """Of an unchanged image: push to an empty registry, push to one that has it, save."""
    pair = [tool for tool in tools if tool.name != "skopeo"]
    kelp = pair[0]
    if not any(bench.wanted(row) for row in ("push unchanged", "push again", "save unchanged")):
        return
    if needs.find_program("curl") is None:
        bench.skipped.append("push and save unchanged: no curl")
        return
    name = push_to(server, images.Image(big_file(int((128 << 20) * bench.options.scale / 100)), {"Cmd": ["/x"]}), "out:1", place,
                   "gzip")
    pushes, again, saves, bare = ({tool.name: [] for tool in pair} for _ in range(4))
    for tool in pair:
        tool.fresh()
        tool.pull(name)
    manifest, *blobs = kelp_blobs(kelp)
    for round_ in range(bench.options.rounds):
        for tool in pair:
            target = place / f"{tool.name}.tar"
            saves[tool.name].append(tool("save", "-q", "--format", "oci-archive", "-o", str(target), name))
            target.unlink()
            # Blobs that the registry has from the other tool must not be found: a repository's own, and deleted files.
            leaks.remove_tree(second.dir / "data")
            os.sync()
            pushes[tool.name].append(tool("push", "-q", PLAIN, name, f"{second.address}/p{round_}-{tool.name}:1"))
            again[tool.name].append(tool("push", "-q", PLAIN, name, f"{second.address}/p{round_}-{tool.name}:2"))
        leaks.remove_tree(second.dir / "data")
        os.sync()
        bare.setdefault("curl", []).append(bare_upload(second, f"p{round_}-curl", blobs, manifest, kelp))
    # The registry hashes and stores what comes; no client makes that faster. A tenth of podman's time is the goal where
    # curl alone is within it; else what the client adds to curl's must be.
    bare = {"curl": bare["curl"]}
    median = bench.compare("push unchanged", {**pushes, **bare}, [("cpu", 0.1)])
    floor = median["curl"]["wall"] / median["podman"]["wall"]
    ours = median["kelp"]["wall"] / median["podman"]["wall"]
    if floor <= 0.1:
        bench.goal("push unchanged", f"wall: {ours:.3f} of podman's, at most 0.1 (curl: {floor:.3f})", ours, 0.1)
    else:
        bench.rows.append(f"    floor  wall: curl alone takes {floor:.3f} of podman's, kelp {ours:.3f}: 0.1 cannot be had here")
        bench.goal("push unchanged", f"wall beyond curl's: {max(0, ours - floor):.3f} of podman's, at most 0.1", ours - floor, 0.1)
    # Nothing is sent by either: both ask for what is there, and podman remembers which blobs its layers came from.
    bench.compare("push again (the registry has it)", again, [("wall", 1), ("cpu", 1)])
    bench.compare("save unchanged", saves, [("wall", 0.1)])


def bench_durability(bench, server, tools, place):
    """What a pull pays for being on the disk when it has ended: beside one whose fsync, fdatasync and syncfs do nothing."""
    library = next(iter(pathlib.Path("/usr/lib").glob("*/libeatmydata.so*")), None)
    kelp = next(tool for tool in tools if tool.name == "kelp")
    for kind, make in (("many", lambda: many_files(int(20_000 * bench.options.scale / 100))),
                       ("big", lambda: big_file(int((128 << 20) * bench.options.scale / 100)))):
        row = f"durability {kind}"
        if not bench.wanted(row):
            continue
        if library is None:
            bench.skipped.append(f"{row}: no libeatmydata")
            continue
        name = push_to(server, images.Image(make(), {"Cmd": ["/x"]}), f"durable-{kind}:1", place, "gzip")
        walls = {"synced": [], "unsynced": []}
        for _ in range(max(3, bench.options.rounds)):
            for way, costs in walls.items():
                kelp.fresh()
                env = {**kelp.env, "LD_PRELOAD": str(library)} if way == "unsynced" else kelp.env
                costs.append(measure(kelp.argv("pull", "-q", PLAIN, name), env, kelp.dir).wall * 1000)
        with_, without = (statistics.median(walls[way]) for way in ("synced", "unsynced"))
        bench.rows.append(row)
        bench.rows.append(f"    kelp     {with_:9.1f} ms wall synced  {without:9.1f} ms without  ({with_ - without:+.1f} ms)")


def kelp_blobs(kelp):
    """Files of the one image in kelp's store: its manifest, layers and configuration."""
    directory = kelp.dir / "d/kelp/blobs/sha256"
    (entry,) = json.loads((kelp.dir / "d/kelp/index.json").read_text())["manifests"]
    manifest = directory / entry["digest"].partition(":")[2]
    parts = json.loads(manifest.read_text())
    return [manifest, *(directory / part["digest"].partition(":")[2] for part in (*parts["layers"], parts["config"]))]


def disk_use(tool):
    """MiB on the disk below the tool's data directory; podman's is read as root of its user namespace."""
    command = ["du", "-sk", str(tool.dir / "d")]
    if tool.name == "podman":
        command = ["podman", "unshare", *command]
    return int(subprocess.run(command, env=tool.env, capture_output=True, text=True, check=True).stdout.split()[0]) / 1024


def bench_listing(bench, tools, place):
    row = "images with 200 images"
    if not bench.wanted(row):
        return
    kelp = next(tool for tool in tools if tool.name == "kelp")
    kelp.fresh()
    for number in range(200):
        layer = images.LayerTar().file("n", str(number))
        archive = images.Image([layer], {"Cmd": ["/x"], "Labels": {"n": str(number)}}).write_archive(
            place / f"i{number}.tar", f"localhost/image-{number}:1")
        kelp("load", "-q", "-i", str(archive))
        archive.unlink()
    costs = [kelp("images") for _ in range(30)]
    walls = [cost.wall * 1000 for cost in costs]
    bench.rows.append(row)
    bench.rows.append(f"    kelp     {statistics.median(walls):9.2f} ms wall  "
                      f"{statistics.median(cost.cpu for cost in costs) * 1000:9.2f} ms cpu")
    bench.goal(row, f"median {statistics.median(walls):.2f} ms, below 5", statistics.median(walls), 5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="only rows with this word in their name")
    parser.add_argument("--scale", type=int, default=100, help="percent of the sizes")
    bench = Bench(parser.parse_args())
    for program in ("podman", "skopeo", "docker-registry"):
        if needs.find_program(program) is None:
            print(f"skipped: everything: no {program} in PATH")
            return 0
    place = pathlib.Path(tempfile.mkdtemp(prefix="kt-bench-", dir=os.environ.get("KELP_BENCH_DIR") or os.environ.get("TMPDIR")))
    tools = [Tool(name, place) for name in ("kelp", "podman", "skopeo")]
    bench_listing(bench, tools, place)
    # From here on without real time: whoever waits for the disk, as kelp does and podman does not, waits for the kernel's
    # own threads, and they would find both processors taken.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    server = registry.Registry(place / "registry")
    second = registry.Registry(place / "second")
    try:
        bench_pulls(bench, server, tools, place)
        bench_out(bench, server, second, tools, place)
        bench_durability(bench, server, tools, place)
    finally:
        server.stop()
        second.stop()
        for tool in tools:
            if tool.dir.exists():
                tool.fresh()
        leaks.remove_tree(place)
    return bench.print()


if __name__ == "__main__":
    sys.exit(main())
