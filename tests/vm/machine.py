"""A machine with systemd, login sessions and cgroup v2 controllers: User Mode Linux, no KVM, no root.

    with Machine(disk(cache), programs) as machine:
        done = machine.run("kelp run …", mode="session")      # .status .out .err

Modes, each with one worker that runs all its jobs (guest/rig-agent):

    session  as ssh or login gives it: user bus, a scope that is not delegated
    login    the same, a new session for each job
    unit     a unit of the user manager with Delegate=yes
    terminal a scope of the user manager, without Delegate
    bare     cron, su: no session, no bus
    other    a session of a second user, to whom systemd delegates what Debian's default says; no linger
    root
    clean    no script: removes the tester's containers and says what is left of any
    group    without systemd: a cgroup that was given to the user (only where the machine was made with init="group")

One boot serves many jobs, also at the same time. Nothing here can hang: each wait has an end, a machine that once did not
answer is asked nothing more, and it dies with this process.
"""

import collections
import fcntl
import hashlib
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from harness import needs

HERE = pathlib.Path(__file__).parent
# Some forty times what an idle host needs: a busy one slows the machine down by 4 to 8 times.
BUILD_SECONDS = 1800
BOOT_SECONDS = 480
JOB_SECONDS = 600
SECURITY_MODULES = "lsm=landlock,yama,apparmor"  # as Debian's kernels for real machines have them
MODULES = "/usr/lib/uml/modules"  # of Debian's kernel; one without modules finds none of its own there

# What every script begins with. wait_for WORDS: until they, read as a shell reads them, succeed; how long something takes
# in a machine on a busy host is nobody's to say, so that nothing is ever waited for by the clock, nor by systemd's
# programs for the 25 s after which they would give up.
PREAMBLE = """#!/bin/bash
export PATH=/opt/kelp:$PATH SYSTEMD_BUS_TIMEOUT=300s
wait_for() {
  local end=$((SECONDS + 240))
  until eval "$1" >/dev/null 2>&1; do
    if [ $SECONDS -gt $end ]; then echo "never so: $1" >&2; return 1; fi
    sleep 0.1
  done
}
"""

Done = collections.namedtuple("Done", "status out err")


def disk(cache):
    """The disk of the machine, made on first use (minutes) and kept; a change of its recipe makes a new one."""
    recipe = b"".join((HERE / name).read_bytes() for name in ("build-image", "guest/customize", "guest/rig-init"))
    path = pathlib.Path(cache) / f"vm-{hashlib.sha256(recipe).hexdigest()[:12]}.ext4"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / "vm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            for old in path.parent.glob("vm-*"):
                if old.is_file():
                    old.unlink()
            subprocess.run([str(HERE / "build-image"), str(path)], check=True, timeout=BUILD_SECONDS)
    return path


def place_for_memory(needed):
    """Memory and changes of the machine are files: on a tmpfs where one has the room."""
    for path in ("/dev/shm", tempfile.gettempdir()):
        found = os.statvfs(path)
        if os.access(path, os.W_OK) and found.f_bavail * found.f_frsize > needed:
            return path
    return None


def sweep(place):
    """Directories of machines whose process was killed."""
    for old in pathlib.Path(place).glob("kt-vm-*"):
        try:
            owner = int((old / "owner").read_text())
            if old.stat().st_uid == os.getuid() and not os.path.exists(f"/proc/{owner}"):
                shutil.rmtree(old, ignore_errors=True)
        except (OSError, ValueError):
            pass


class Machine:
    """programs: a directory copied to /opt/kelp of the machine. init: "systemd"; "group": no systemd, a cgroup of the
    user's own; "plain": no systemd and no cgroups mounted. data_disk: size of an empty ext4 with a journal, /dev/ubdb."""

    def __init__(self, disk_path, programs=None, memory="1500M", cpus=1, init="systemd", options="", data_disk=None):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="kt-vm-", dir=place_for_memory(3 << 30)))
        (self.place / "owner").write_text(str(os.getpid()))
        sweep(self.place.parent)
        self.share = self.place / "share"
        (self.share / "jobs").mkdir(parents=True)
        shutil.copy(HERE / "guest/rig-agent", self.share)
        if programs:
            shutil.copytree(programs, self.share / "programs")
        self.numbers = itertools.count()
        self.command = [
            needs.uml_kernel(), f"mem={memory}", f"ncpus={cpus}", "seccomp=auto", f"ubd0={self.place}/cow,{disk_path}",
            "root=/dev/ubda", "rw", "init=/sbin/rig-init", f"rig_share={self.share}",
            f"rig_modules={MODULES}", SECURITY_MODULES, "con=null", "ssl=null", "con0=null,fd:1",
            f"umid=kelp{os.getpid()}-{id(self) & 0xffff}", f"uml_dir={self.place}/uml", "quiet",
        ]
        if init != "systemd":
            self.command.append(f"rig_{init}")
        if data_disk:
            subprocess.run([needs.find_program("mke2fs"), "-q", "-t", "ext4", self.place / "data", data_disk], check=True)
            self.command.append(f"ubd1={self.place}/data")
        self.command += options.split()
        self.console = open(self.place / "console", "w+b")
        self.broken = None  # why nothing more is asked of it
        self._boot()

    def _boot(self):
        namespace = [] if os.getuid() == 0 else ["--map-root-user"]
        # The pid namespace takes every process of the machine with it, whatever happens to this one.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *namespace, "--pid", "--fork", "--kill-child", *self.command],
            env={"TMPDIR": str(self.place), "PATH": os.environ["PATH"], "HOME": str(self.place)},
            stdin=subprocess.DEVNULL, stdout=self.console, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            self._wait_for(self.share / "up", BOOT_SECONDS, "boot")
        except BaseException:
            self.close()
            raise

    def _halt(self):
        """Off with it: what it has not written down by now is lost. rig-agent writes nothing down first."""
        if self.process.poll() is None:
            (self.share / "down").touch()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def reboot(self):
        """Ends it as a power cut would and boots it again with the same disk; call sync in it before, where that is not meant."""
        self._halt()
        for name in ("up", "down"):
            (self.share / name).unlink(missing_ok=True)
        self._boot()

    def _wait_for(self, path, seconds, what):
        if self.broken:
            raise RuntimeError(f"test machine: {what}: not tried, since {self.broken}")
        end = time.monotonic() + seconds
        look = 0
        while not path.exists():
            now, why = time.monotonic(), None
            if self.process.poll() is not None:
                why = "it ended"
            elif now > end:
                why = f"it took more than {seconds} s"
            elif now > look:  # a kernel that has crashed stays there
                why, look = "its kernel crashed" if "Kernel panic" in self._console() else None, now + 2
            if why:
                self.broken = f"{why} ({what})"
                raise RuntimeError(f"test machine: {what}: {why}\n{self._console()[-4000:]}")
            time.sleep(0.01)

    def _console(self):
        return (self.place / "console").read_text(errors="replace")

    def start(self, script, mode="session"):
        """Hands a job over and returns its directory, for finish()."""
        job = self.share / "jobs" / f"{next(self.numbers):04}"
        new = job.with_name("." + job.name)
        new.mkdir()
        (new / "script").write_text(PREAMBLE + script + "\n")
        (new / "mode").write_text(mode)
        new.rename(job)
        return job

    def finish(self, job, timeout=JOB_SECONDS):
        self._wait_for(job / "status", timeout, f"job {(job / 'script').read_text()[len(PREAMBLE):][:300]}")
        read = lambda name: (job / name).read_text(errors="replace") if (job / name).exists() else ""
        done = Done(int(read("status")), read("out"), read("err"))
        shutil.rmtree(job, ignore_errors=True)
        return done

    def run(self, script, mode="session", timeout=JOB_SECONDS):
        return self.finish(self.start(script, mode), timeout)

    def close(self):
        self._halt()
        self.console.close()
        shutil.rmtree(self.place, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
