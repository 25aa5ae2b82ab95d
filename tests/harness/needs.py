"""Named reasons to skip.

A test that cannot run on this host says which named need is missing. With CI=true only the names listed in
tests/expected-skips.txt may be missing: a skip that nobody expects is a failure, not a green run.
"""

import functools
import os
import pathlib
import shutil
import subprocess

import pytest

EXPECTED = pathlib.Path(__file__).parent.parent / "expected-skips.txt"


def expected_names():
    lines = (line.split("#")[0].strip() for line in EXPECTED.read_text().splitlines())
    return {line for line in lines if line}


def skip(name, detail=""):
    """Skips the running test for the named need."""
    pytest.skip(f"needs {name}" + (f": {detail}" if detail else ""))


def need(name):
    """Skips unless the host has the named thing."""
    ok, detail = probe(name)
    if not ok:
        skip(name, detail)


@functools.lru_cache(maxsize=None)
def probe(name):
    if name.startswith("program:"):
        program = name.split(":", 1)[1]
        return find_program(program) is not None, f"no {program} in PATH"
    return PROBES[name]()


def find_program(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _opens(path):
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        return True, ""
    except OSError as error:
        return False, f"{path}: {error.strerror}"


def _userns():
    done = subprocess.run(["unshare", "-Ur", "true"], capture_output=True, text=True)
    return done.returncode == 0, done.stderr.strip()


def _subids():
    user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            lines = open(path).read().splitlines()
        except OSError:
            return False, f"no {path}"
        if not any(line.split(":")[0] in (user, str(os.getuid())) for line in lines):
            return False, f"no range for {user} in {path}"
    return (find_program("newuidmap") is not None), "no newuidmap"


def cgroup2_mount():
    """(mount point, own path below it) of the cgroup v2 tree, or None."""
    own = None
    for line in open("/proc/self/cgroup"):
        if line.startswith("0::"):
            own = line.strip()[3:]
    for line in open("/proc/self/mountinfo"):
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2" and own is not None:
            return fields[4], own
    return None


def _cgroup_limits():
    """A cgroup of our own in which memory and pids can be limited: here, or by a systemd user manager."""
    if os.path.exists(f"/run/user/{os.getuid()}/systemd/private"):
        return True, ""
    found = cgroup2_mount()
    if found is None:
        return False, "no cgroup v2 tree"
    path = pathlib.Path(found[0] + found[1])
    try:
        controllers = (path / "cgroup.controllers").read_text().split()
    except OSError as error:
        return False, str(error)
    if not {"memory", "pids"} <= set(controllers):
        return False, "memory and pids are not among the cgroup v2 controllers"
    return os.access(path, os.W_OK), f"{path} is not delegated to this user"


def _root_agent():
    return bool(os.environ.get("KELP_TEST_ROOT_AGENT")), "run as root by contrib/check"


def uml_kernel():
    """The kernel of the test machine: KELP_UML_KERNEL, else Debian's user-mode-linux; None when there is none."""
    return os.environ.get("KELP_UML_KERNEL") or find_program("linux.uml")


def _user_mode_linux():
    """Only Debian and its children package it, for one architecture."""
    packaged = find_program("apt-get") is not None and os.uname().machine == "x86_64"
    return packaged or uml_kernel() is not None, "this distribution has no User Mode Linux; KELP_UML_KERNEL names one"


def _test_machine():
    """User Mode Linux, and the disk for it (see tests/vm/machine.py) or what makes one."""
    kernel = uml_kernel()
    if not kernel or not os.access(kernel, os.X_OK):
        return False, "no kernel: install user-mode-linux, or name one in KELP_UML_KERNEL"
    if any(cache_dir().glob("vm-*.ext4")):
        return True, ""
    missing = [name for name in ("mmdebstrap", "mke2fs", "newuidmap") if find_program(name) is None]
    return not missing, f"no {', '.join(missing)} to make its disk"


def cache_dir():
    """What is dear to make is kept between runs."""
    path = pathlib.Path(os.environ.get("KELP_TEST_CACHE") or
                        pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "kelp-tests")
    path.mkdir(parents=True, exist_ok=True)
    return path


PROBES = {
    "userns": _userns,
    "subids": _subids,
    "tun": lambda: _opens("/dev/net/tun"),
    "fuse": lambda: _opens("/dev/fuse"),
    "cgroup-limits": _cgroup_limits,
    "root-agent": _root_agent,
    "test-machine": _test_machine,
    "user-mode-linux": _user_mode_linux,
}
