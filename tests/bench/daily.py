"""What is typed all day, with more than a toy's amount of it: kelp beside podman."""

import os
import shutil
import statistics
import subprocess
import time

from measure import medians

NONE = ("--network", "none")
LINE = b"The quick brown fox jumps over the lazy dog, again and again and again.\n"
COMPLETED = [("rm", ""), ("start", "c4"), ("start", "4c"), ("stop", ""), ("run", "--rm", ""), ("run", "--"), ("inspect", ""), ("vol",)]


def text_of(path, size):
    path.write_bytes(LINE * (size // len(LINE)))
    path.chmod(0o644)
    return path


def containers(table, tools, rounds, count=100):
    """Lists and completion with many containers."""
    for tool in tools.values():
        for n in range(count):
            tool("create", "--name", f"many{n}", *NONE, "busybox", "true")
    for what, arguments in ((f"ps -a, {count} containers", ("ps", "-a")), ("inspect among them", ("inspect", "many7")),
                            ("rm <TAB> among them", ("__complete", "rm", ""))):
        result = medians(max(5, rounds // 2), **{name: (lambda t=tool: t.time(*arguments)) for name, tool in tools.items()})
        table.faster(f"{what} / podman", result["kelp"], result["podman"], 10)
    for tool in tools.values():
        tool("rm", *[f"many{n}" for n in range(count)])


def logs(table, tools, place, rounds=3, megabytes=100):
    text = text_of(place / "log", megabytes * 1_000_000)
    for tool in tools.values():
        tool("run", "--name", "talked", "--log-driver", "k8s-file", *NONE, "-v", f"{text}:/text:ro", "busybox", "cat", "/text")
    result = medians(rounds, **{name: (lambda t=tool: t.time("logs", "talked")) for name, tool in tools.items()})
    table.faster(f"logs of {megabytes} MB / podman", result["kelp"], result["podman"], 3)
    for tool in tools.values():
        tool("rm", "talked")
    text.unlink()


def copies(table, tools, place, rounds=3, count=20_000):
    """A tree of many small files into a running container, and back."""
    tree = place / "tree"
    for n in range(count):
        if n % 100 == 0:
            (tree / f"d{n // 100}").mkdir(parents=True)
        (tree / f"d{n // 100}/f{n}").write_bytes(LINE)
    for tool in tools.values():
        tool("run", "-d", "--name", "box", *NONE, "busybox", "sleep", "100000")

    def into(tool):
        spent = tool.time("cp", str(tree), "box:/in")
        tool("exec", "box", "rm", "-r", "/in")
        return spent

    def out_of(tool):
        target = place / f"out-{tool.name}"
        spent = tool.time("cp", "box:/kept", str(target))
        shutil.rmtree(target)
        return spent

    result = medians(rounds, **{name: (lambda t=tool: into(t)) for name, tool in tools.items()})
    table.faster(f"cp of {count} files in / podman", result["kelp"], result["podman"], 3)
    for tool in tools.values():
        tool("cp", str(tree), "box:/kept")
    result = medians(rounds, **{name: (lambda t=tool: out_of(t)) for name, tool in tools.items()})
    table.faster(f"cp of {count} files out / podman", result["kelp"], result["podman"], 3)
    for tool in tools.values():
        tool("rm", "-f", "-t", "0", "box")
    shutil.rmtree(tree)


def completion(table, kelp, rounds, count=500, tags=200):
    for n in range(tags):
        kelp("tag", "busybox", f"registry.example/some/image-{n}:v{n}")
    for n in range(count):
        kelp("create", "--name", f"c{n}", *NONE, "busybox", "true")
    result = medians(rounds * 2, **{" ".join(words): (lambda w=words: kelp.time("__complete", "--", *w)) for words in COMPLETED})
    for words, spent in result.items():
        table.row(f"kelp {words}<TAB>, {count} containers", spent, 5, spent < 5, "below 5 ms")
    kelp("rm", *[f"c{n}" for n in range(count)])
    for n in range(tags):
        kelp("untag", "busybox", f"registry.example/some/image-{n}:v{n}")


def probes(table, kelp, rounds):
    """A health check asked for by hand, which is a probe and a command around it, beside one exec (a tenth is noise)."""
    kelp("run", "-d", "--name", "probed", *NONE, "--health-cmd", "true", "--health-interval", "disable", "busybox", "sleep", "1000")
    result = medians(max(9, rounds), probe=lambda: kelp.time("healthcheck", "run", "probed"),
                     exec=lambda: kelp.time("exec", "probed", "true"))
    table.at_most("healthcheck run / exec true", result["probe"], result["exec"], 1.1)
    kelp("rm", "-f", "-t", "0", "probed")


def piped(argv, env, cwd):
    """Milliseconds from the start until a reader at the other end of a pipe has everything, and the bytes that it got."""
    start = time.perf_counter()
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env, cwd=cwd) as child:
        counted = subprocess.run(["wc", "-c"], stdin=child.stdout, capture_output=True, text=True, check=True)
    if child.returncode != 0:
        raise RuntimeError(f"{argv}: exit {child.returncode}")
    return (time.perf_counter() - start) * 1000, int(counted.stdout)


def streams(table, kelp, place, rounds=3, megabytes=1000, goal=1.5):
    """How fast output passes, beside cat through a pipe. A log is a file that is 1.6 times as long as the output (its lines
    bear stream and time), and to write that alone takes several times as long as cat: `run` with a log is measured beside a
    cat that has a cp of such a log, on the same file system and to a new file as the log is one, at its side."""
    text = text_of(place / "text", megabytes * 1_000_000)
    size = text.stat().st_size
    run = (*NONE, "-v", f"{text}:/text:ro", "busybox", "cat", "/text")
    kelp("run", "--name", "logged", *run)
    copy = kelp.dir / "copy"
    log = max(kelp.dir.rglob("ctr.log"), key=lambda path: path.stat().st_size)
    candidates = {"cat": ["cat", str(text)], "cat beside cp": ["sh", "-c", f"cp '{log}' '{copy}' & cat '{text}'; wait"],
                  "run --log-driver none": [*kelp.argv, "run", "--rm", "--log-driver", "none", *run],
                  "run": [*kelp.argv, "run", "--rm", *run], "logs": [*kelp.argv, "logs", "logged"]}
    spent = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, argv in candidates.items():
            copy.unlink(missing_ok=True)
            os.sync()  # what the one before has written must not go to the disk at the next one's cost
            took, got = piped(argv, kelp.env, kelp.dir)
            if got != size:
                raise RuntimeError(f"{name}: {got} bytes of {size}")
            spent[name].append(took)
    median = {name: statistics.median(values) for name, values in spent.items()}
    for name, beside in (("run --log-driver none", "cat"), ("logs", "cat"), ("run", "cat beside cp")):
        table.at_most(f"{name}, {megabytes} MB / {beside}", median[name], median[beside], goal)
    kelp("rm", "logged")
    text.unlink()
    copy.unlink(missing_ok=True)


def rows(table, kelp, podman, place, rounds):
    place.mkdir()
    streams(table, kelp, place)
    completion(table, kelp, rounds)
    probes(table, kelp, rounds)
    if podman is None:
        return table.skip("ps, inspect, logs, cp of much", "podman cannot run here")
    tools = {"kelp": kelp, "podman": podman}
    containers(table, tools, rounds)
    logs(table, tools, place)
    copies(table, tools, place)
