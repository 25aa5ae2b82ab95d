"""A machine with systemd, a login session and cgroup v2 controllers: User Mode Linux, no KVM, no root.

    with Machine(share, programs) as machine:
        done = machine.run("kelp run …", mode="session")      # .status .out .err

Modes: "session" (as ssh or login gives it: user bus, a scope that is not delegated), "unit" (a unit of the user manager
with Delegate=yes), "bare" (cron, su: no session, no bus), "root". One boot serves many jobs, also at the same time.
Nothing here can hang: each wait has an end, and the machine dies with this process.
"""

import collections
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).parent
# A busy host slows the machine down by 4 to 8 times.
BOOT_SECONDS = 120
JOB_SECONDS = 180

Done = collections.namedtuple("Done", "status out err")


def kernel():
    """The kernel to boot: KELP_UML_KERNEL, else Debian's user-mode-linux; None when there is none."""
    named = os.environ.get("KELP_UML_KERNEL")
    if named:
        return named
    return shutil.which("linux.uml") or shutil.which("linux")


def disk(cache):
    """The disk of the machine, made on first use (minutes) and kept; a change of its recipe makes a new one."""
    recipe = b"".join(path.read_bytes() for path in [HERE / "build-image", *sorted((HERE / "guest").iterdir())])
    import hashlib
    path = pathlib.Path(cache) / f"vm-{hashlib.sha256(recipe).hexdigest()[:12]}.ext4"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob("vm-*.ext4"):
            old.unlink()
        subprocess.run([str(HERE / "build-image"), str(path)], check=True, timeout=1200)
    return path


class Machine:
    """programs: a directory copied to /opt/kelp of the machine. plain: no systemd and no cgroups mounted."""

    def __init__(self, disk_path, programs=None, memory="1500M", cpus=1, plain=False, options=""):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="kt-vm-", dir="/dev/shm"))
        self.share = self.place / "share"
        (self.share / "jobs").mkdir(parents=True)
        if programs:
            shutil.copytree(programs, self.share / "programs")
        self.numbers = itertools.count()
        command = [
            kernel(), f"mem={memory}", f"ncpus={cpus}", "seccomp=auto", f"ubd0={self.place}/cow,{disk_path}",
            "root=/dev/ubda", "rw", "init=/sbin/rig-init", f"rig_share={self.share}", "con=null", "ssl=null",
            "con0=null,fd:1", f"umid=kelp{os.getpid()}-{id(self) & 0xffff}", f"uml_dir={self.place}/uml", "quiet",
        ]
        if plain:
            command.append("rig_plain")
        command += options.split()
        self.console = open(self.place / "console", "w+b")
        namespace = [] if os.getuid() == 0 else ["--map-root-user"]
        # The pid namespace takes every process of the machine with it, whatever happens to this one.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *namespace, "--pid", "--fork", "--kill-child", *command],
            env={"TMPDIR": str(self.place), "PATH": os.environ["PATH"], "HOME": str(self.place)},
            stdin=subprocess.DEVNULL, stdout=self.console, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            self._wait_for(self.share / "up", BOOT_SECONDS, "boot")
        except BaseException:
            self.close()
            raise

    def _wait_for(self, path, seconds, what):
        end = time.monotonic() + seconds
        while not path.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                text = (self.place / "console").read_text(errors="replace")[-4000:]
                why = "ended" if self.process.poll() is not None else f"took more than {seconds} s"
                raise RuntimeError(f"test machine: {what}: {why}\n{text}")
            time.sleep(0.01)

    def start(self, script, mode="session"):
        """Hands a job over and returns its directory, for finish()."""
        job = self.share / "jobs" / f"{next(self.numbers):04}"
        new = job.with_name("." + job.name)
        new.mkdir()
        (new / "script").write_text("#!/bin/bash\nexport PATH=/opt/kelp:$PATH\n" + script + "\n")
        (new / "mode").write_text(mode)
        new.rename(job)
        return job

    def finish(self, job, timeout=JOB_SECONDS):
        self._wait_for(job / "status", timeout, f"job {(job / 'script').read_text()[:300]}")
        read = lambda name: (job / name).read_text(errors="replace") if (job / name).exists() else ""
        done = Done(int(read("status")), read("out"), read("err"))
        shutil.rmtree(job, ignore_errors=True)
        return done

    def run(self, script, mode="session", timeout=JOB_SECONDS):
        return self.finish(self.start(script, mode), timeout)

    def close(self):
        if self.process.poll() is None:
            (self.share / "down").touch()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.console.close()
        shutil.rmtree(self.place, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
