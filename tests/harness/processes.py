"""Processes that a test left behind.

The test process is a subreaper: whatever a program under test leaves behind, daemonised or not, becomes a descendant
of this process. So "what is left" is exactly the descendants that nobody registered, whatever runs beside us.
"""

import ctypes
import os
import time

from . import waiting

_PR_SET_CHILD_SUBREAPER = 36
_expected = set()


def become_subreaper():
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def expect(pid):
    """Registers a process of the harness itself (a registry), which may outlive a test."""
    _expected.add(pid)


def forget(pid):
    _expected.discard(pid)


def _children_table():
    table = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = open(f"/proc/{entry}/stat").read()
        except OSError:
            continue
        name = stat[stat.index("(") + 1:stat.rindex(")")]
        state, parent = stat[stat.rindex(")") + 2:].split()[:2]
        table.setdefault(int(parent), []).append((int(entry), state, name))
    return table


def descendants(of=None, expected=True):
    """[(pid, state, name)] below a process (this one when not given), zombies too; registered subtrees left out."""
    table = _children_table()
    found, queue = [], [of or os.getpid()]
    while queue:
        for child in table.get(queue.pop(), []):
            if expected and child[0] in _expected:
                continue
            found.append(child)
            queue.append(child[0])
    return found


def reap_orphans(keep=()):
    """Takes the exit status of adopted processes, so that they do not stay as zombies. keep: pids owned by a Popen."""
    for pid, state, _ in descendants():
        if state == "Z" and pid not in keep:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass  # a zombie of a living descendant: that one's business


def describe(pid):
    try:
        command = open(f"/proc/{pid}/cmdline").read().replace("\0", " ").strip()
        space = os.readlink(f"/proc/{pid}/ns/user")
    except OSError:
        command, space = "", "?"
    return f"{pid} {command or '[no command line]'} {space}"


def wait_gone(seconds, keep=()):
    """Waits until no unregistered descendant lives; returns those that do."""
    limit = waiting.Limit(seconds)
    while True:
        reap_orphans(keep)
        left = [p for p in descendants() if p[1] != "Z" and p[0] not in keep]
        if not left or limit.over():
            return left
        time.sleep(0.01)


def kill_all(keep=()):
    """Kills every unregistered descendant, so that one test's leak does not fail the next one."""
    for _ in range(50):
        left = [p for p in descendants() if p[1] != "Z" and p[0] not in keep]
        if not left:
            break
        for pid, _, _ in left:
            try:
                os.kill(pid, 9)
            except (ProcessLookupError, PermissionError):
                pass
        time.sleep(0.01)
        reap_orphans(keep)
    reap_orphans(keep)
