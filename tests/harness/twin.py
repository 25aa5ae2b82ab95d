"""podman beside kelp: the same command lines through both, and what may differ."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import threading

from . import needs, programs

DIFFERENCES = pathlib.Path(__file__).parent.parent / "e2e/podman_differences.txt"
LIVES = pathlib.Path(__file__).parent.parent / "e2e/lives"


class Podman(programs.Kelp):
    """podman as a user without systemd has it, with directories of its own."""

    def __init__(self, directory):
        super().__init__(directory)
        configuration = self.config / "containers"
        configuration.mkdir()
        (configuration / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\nrunroot = "{self.runtime_dir}/containers"\n'
            f'graphroot = "{self.data}/containers/storage"\n')
        (configuration / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self.runtime = "runc"

    def argv(self, *args):
        return ["podman", "--runtime", self.runtime, "--cgroup-manager", "cgroupfs", "--events-backend", "file",
                *map(str, args)]

    def works(self, archive):
        """The first runtime that can run a container here."""
        self("load", "-q", "-i", archive)
        for self.runtime in ("crun", "runc"):
            if needs.find_program(self.runtime) and self("run", "--rm", "--network", "none", "busybox", "true",
                                                         code=None).code == 0:
                return True
        return False

    def end(self):
        self("rm", "-f", "-a", "-t", "0", code=None)
        self("system", "reset", "--force", code=None, timeout=120)
        self.end_pause()

    def end_pause(self):
        """The process that keeps podman's user namespace: kelp has none, so tests take it for something left."""
        for pause in self.runtime_dir.rglob("pause.pid"):
            try:
                os.kill(int(pause.read_text()), signal.SIGKILL)
                pause.unlink()
            except (OSError, ValueError):
                pass


def allowed(area):
    """{path: reason} of one area in the file of differences."""
    found = {}
    for line in DIFFERENCES.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, rest = line.split(" | ", 1)
        path, reason = rest.rsplit(" | ", 1)
        name, path, reason = name.strip(), path.strip().replace("\\|", "|"), reason.strip()  # \| in a command line
        assert reason, f"{path}: a difference needs a reason"
        if name == area:
            found[path] = reason
    return found


def key_tree(value, path=""):
    """Every path below a JSON value with its type: lists count by their first member, null fits everything."""
    if isinstance(value, dict):
        tree = {path or ".": "object"}
        for key, member in value.items():
            tree.update(key_tree(member, f"{path}.{key}"))
        return tree
    if isinstance(value, list):
        tree = {path or ".": "list"}
        if value:
            tree.update(key_tree(value[0], f"{path}[]"))
        return tree
    kinds = {bool: "bool", int: "number", float: "number", str: "text", type(None): "null"}
    return {path: kinds[type(value)]}


def compare_trees(area, mine, peers, free=(), used=None):
    """Paths that one of the two lacks or gives another type, without those that the file of differences explains.
    free: paths whose members are data (labels, environments) and not keys. used: gets what was explained."""
    known = allowed(area)
    differences = []
    for path in sorted(set(mine) | set(peers)):
        if any(path == one or path.startswith((one + ".", one + "[")) for one in free):
            continue
        explained = [one for one in known if path == one or path.startswith((one + ".", one + "["))]
        left, right = mine.get(path), peers.get(path)
        # What is empty in one of them has no members there: only keys at the same depth count.
        parent = path.rpartition("[]")[0] if path.endswith("[]") else path.rpartition(".")[0]
        if (left is None or right is None) and (mine.get(parent) == "null" or peers.get(parent) == "null"
                                                 or "[]" in path and (parent not in mine or parent not in peers)):
            continue
        if path.endswith("[]") and (left is None or right is None):
            continue
        if left == right or "null" in (left, right):
            continue
        if explained:
            if used is not None:
                used.update(explained)
        else:
            differences.append(f"{path}: kelp {left or 'lacks it'}, podman {right or 'lacks it'}")
    return differences


@dataclasses.dataclass
class Line:
    """A command line of a life: a shell line that calls podman (or docker), and what is compared."""

    text: str
    fails: bool = False  # "? ": podman's exit status is not 0
    area: str = ""       # "keys AREA: ": the line prints JSON, of which the keys and types are compared
    free: tuple = ()     # "keys AREA -.Labels: ": below these paths stand data, not keys

    @property
    def commands(self):
        """The words after each call of podman or docker, without its own options."""
        return [words.split() for words in re.findall(r"(?:podman|docker)\s+((?:[\w-]+\s*)+)", self.text)]


def life(name):
    """The lines of a file of tests/e2e/lives: a comment begins with #, what is indented continues a line."""
    lines = []
    for raw in (LIVES / f"{name}.txt").read_text().splitlines():
        if raw.startswith(" ") and lines:
            lines[-1].text += "\n" + raw.removeprefix("    ")
        elif raw.startswith("keys "):
            head, text = raw.split(": ", 1)
            _, area, *free = head.split()
            lines.append(Line(text, area=area, free=tuple(path[1:] for path in free)))
        elif raw.strip() and not raw.startswith("#"):
            lines.append(Line(raw.removeprefix("? "), fails=raw.startswith("? ")))
    return lines


def life_names():
    return sorted(path.stem for path in LIVES.glob("*.txt"))


class Stage:
    """Where one tool plays a life: a directory, and a PATH on which it is called podman and docker."""

    def __init__(self, tool, directory, variables):
        self.tool, self.work = tool, directory / "w"
        programs_dir = directory / "b"
        for path in (self.work, programs_dir):
            path.mkdir(parents=True)
        for name in ("podman", "docker"):
            if len(tool.argv()) == 1:
                (programs_dir / name).symlink_to(tool.argv()[0])
            else:
                (programs_dir / name).write_text(
                    f'#!/bin/sh\nexec {shlex.join([needs.find_program(tool.argv()[0]), *tool.argv()[1:]])} "$@"\n')
                (programs_dir / name).chmod(0o755)
        self.env = {"PATH": f"{programs_dir}:{tool.env['PATH']}", "N": "--network none", **variables}

    def __call__(self, text):
        return self.tool("-o", "pipefail", "-c", text, program="/bin/bash", code=None, timeout=120, env=self.env, cwd=self.work)

    def play(self, lines):
        return [self(line.text) for line in lines]


def play_both(stages, lines):
    """Both tools play the lines at the same time; a list of results each."""
    results = [None] * len(stages)

    def play(n):
        try:
            results[n] = stages[n].play(lines)
        except AssertionError as error:  # a line that does not end
            results[n] = error
    threads = [threading.Thread(target=play, args=(n,)) for n in range(len(stages))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, AssertionError):
            raise result
    return results


def trees(result):
    """The key tree of what a line printed: one document, or one per line; of a list all members together."""
    try:
        value = json.loads(result.out)
    except ValueError:
        try:
            value = [json.loads(line) for line in result.lines]
        except ValueError:
            return {"not JSON": str(result)}
    tree = {}
    for member in value if isinstance(value, list) else [value]:
        for path, kind in key_tree(member).items():
            if tree.get(path, "null") == "null":
                tree[path] = kind
    return tree


def said(errors):
    """Whether the program complained; its log lines on how the host is set up do not count."""
    return any(line and not line.startswith("time=") for line in errors.splitlines())


def plain(text):
    """Output without what differs from run to run: identifiers, times, and the width of columns that hold such."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "<id>", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "<short>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|[+-]\d\d:?\d\d))?( UTC)?( m=\S+)?", "<time>", text)
    text = re.sub(r"(Less than a|About a|\d+) (second|minute)s?\b", "<moment>", text)
    return re.sub(r"[ \t]{2,}|\t", "  ", text)
