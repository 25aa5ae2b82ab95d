"""podman beside kelp: the same command lines through both, and what may differ."""

import os
import pathlib
import re
import signal
import subprocess

from . import needs, programs

DIFFERENCES = pathlib.Path(__file__).parent.parent / "e2e/podman_differences.txt"


class Podman(programs.Kelp):
    """podman as a user without systemd has it, with directories of its own."""

    def __init__(self, directory):
        super().__init__(directory)
        configuration = self.config / "containers"
        configuration.mkdir()
        (configuration / "storage.conf").write_text('[storage]\ndriver = "overlay"\n')
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
        name, rest = line.split("|", 1)
        path, reason = rest.rsplit("|", 1)  # a command line may hold the separator
        name, path, reason = name.strip(), path.strip().replace("\\t", "\t"), reason.strip()
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


def compare_trees(area, mine, peers, free=()):
    """Paths that one of the two lacks or gives another type, without those that the file of differences explains.
    free: paths whose members are data (labels, environments) and not keys."""
    skip = tuple(free) + tuple(path for path in allowed(area))
    differences = []
    for path in sorted(set(mine) | set(peers)):
        if any(path == one or path.startswith((one + ".", one + "[")) for one in skip):
            continue
        left, right = mine.get(path), peers.get(path)
        # What is empty in one of them has no members there: only keys at the same depth count.
        parent = path.rpartition("[]")[0] if path.endswith("[]") else path.rpartition(".")[0]
        if (left is None or right is None) and (mine.get(parent) == "null" or peers.get(parent) == "null"
                                                 or "[]" in path and (parent not in mine or parent not in peers)):
            continue
        if path.endswith("[]") and (left is None or right is None):
            continue
        if left != right and "null" not in (left, right):
            differences.append(f"{path}: kelp {left or 'lacks it'}, podman {right or 'lacks it'}")
    return differences


def said(errors):
    """Whether the program complained; its log lines on how the host is set up do not count."""
    return any(line and not line.startswith("time=") for line in errors.splitlines())


def plain(text):
    """Output without what differs from run to run."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "<id>", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "<short>", text)
    return text
