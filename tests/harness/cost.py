"""What a command costs: wall time, processor time and peak memory, with all its children.

A small interpreter stands between: the kernel counts the memory of who forks into what is forked, and a test may hold
hundreds of megabytes. It spawns without a copy of itself: that copy took a millisecond, a fifth of the shortest command.
"""

import json
import os
import subprocess
import sys

_LAUNCHER = """
import json, os, resource, sys, time
report = int(sys.argv.pop(1))
start = time.monotonic()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_CLOSE, report)])
_, status = os.waitpid(pid, 0)
wall = time.monotonic() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
os.write(report, json.dumps([os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime,
                        usage.ru_maxrss / 1024]).encode())
"""


class Cost:
    """wall and cpu in seconds, memory in MiB (never below the launcher's own few), code and out (both streams)."""

    def __init__(self, code, wall, cpu, memory, out):
        self.code, self.wall, self.cpu, self.memory, self.out = code, wall, cpu, memory, out


def measure(argv, env, cwd=None):
    read, write = os.pipe()
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", _LAUNCHER, str(write), *map(str, argv)], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(write,))
    os.close(write)
    with os.fdopen(read) as answer:
        out = child.stdout.read().decode(errors="replace")
        child.stdout.close()
        text = answer.read()
    child.wait()
    return Cost(*json.loads(text), out)
