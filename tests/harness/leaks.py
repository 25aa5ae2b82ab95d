"""What must not be there after a test: processes, mounts, sockets, and files beyond those that are meant to stay."""

import glob
import os
import pathlib
import stat
import time

from . import processes, waiting


def mounts_below(directory):
    """Mount points on the host at or below a directory; others, elsewhere, are of other tests and users."""
    points = (line.split()[4] for line in open("/proc/self/mountinfo"))
    return [point for point in points if (point + "/").startswith(f"{directory}/")]


def own_temporary_files():
    """Entries of the shared temporary directories that this user has and that name kelp. Others are of another worker or
    of a tool of the tests; where kelp follows TMPDIR, it is in the test's own directory, which must be empty."""
    found = set()
    for directory in ("/tmp", "/var/tmp", "/dev/shm"):
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            try:
                if "kelp" in entry.name and entry.stat(follow_symlinks=False).st_uid == os.getuid():
                    found.add(entry.path)
            except OSError:
                pass
    return found


def own_cgroups():
    """Control groups of kelp that this user has."""
    found = set()
    for path in glob.glob("/sys/fs/cgroup/**/*kelp*", recursive=True):
        try:
            if os.path.isdir(path) and os.stat(path).st_uid == os.getuid() and "/kelp-test-" not in path:  # the root agent's
                found.add(path)
        except OSError:
            pass
    return found


def _is_empty_directory(path):
    return os.path.isdir(path) and not os.path.islink(path) and pathlib.Path(path).name.startswith(".") and not os.listdir(path)


def store_leftovers(kelp):
    """Paths in kelp's directories that no finished container, image or volume accounts for."""
    found = []
    store, run = kelp.store, kelp.run_dir
    for pattern in ("containers/*", "names/*", "trash/*", "layers/.tmp-*", "blobs/sha256/.*", "volumes/.*", "*.new*",
                    "containers/.*", "index.json.*"):
        found += [path for path in glob.glob(str(store / pattern)) if not _is_empty_directory(path)]
    for path in run.glob("*") if run.is_dir() else []:
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:  # just being removed
            continue
        if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
            found.append(str(path))
        elif stat.S_ISDIR(mode) and (len(path.name) >= 12 and all(c in "0123456789abcdef" for c in path.name)):
            found.append(str(path))
        elif path.name == "oci":
            found += [str(p) for p in path.iterdir()]
    return found


def lasting_leftovers(kelp, accepted=(), seconds=5.0):
    """Those that are still there after the time in which a monitor, which tells the exit first, clears up. Paths with
    one of the accepted parts do not count."""
    limit = waiting.Limit(seconds)
    while True:
        found = [path for path in store_leftovers(kelp) if not any(part in path for part in accepted)]
        if not found or limit.over():
            return found
        time.sleep(0.01)


class Baseline:
    """Taken before a test; check() after it."""

    def __init__(self):
        self.files, self.groups = own_temporary_files(), own_cgroups()

    def check(self, kelps, seconds=5.0):
        """Returns what is left, as lines; "" when all is clean. Everything must be gone within the given time."""
        keep = {child.pid for kelp in kelps for child in kelp.children}
        limit = waiting.Limit(seconds)
        left = processes.wait_gone(seconds, keep)
        lines = [f"process {processes.describe(pid)} ({name}, {state})" for pid, state, name in left]
        while True:
            rest = [f"mount {path}" for kelp in kelps for path in mounts_below(kelp.dir.parent)]
            rest += [f"file {path}" for path in sorted(own_temporary_files() - self.files)]
            rest += [f"control group {path}" for path in sorted(own_cgroups() - self.groups)]
            for kelp in kelps:
                rest += [f"temporary file {path}" for path in kelp.temporary.iterdir()]
                rest += [f"left in the store: {path}" for path in store_leftovers(kelp)]
            if not rest or limit.over():
                return "\n".join(lines + rest)
            time.sleep(0.02)


def remove_tree(path):
    """Removes a test's directories, those of subordinate ids too: the user may not delete them, root of his own
    user namespace may."""
    import subprocess
    path = pathlib.Path(path)
    subprocess.run(["unshare", "--user", "--map-root-user", "--map-auto", "sh", "-c",
                    'chmod -R u+rwx "$0" 2>/dev/null; rm -rf "$0"', str(path)], capture_output=True)
    if path.exists():
        subprocess.run(["sh", "-c", 'chmod -R u+rwx "$0"; rm -rf "$0"', str(path)], capture_output=True)
