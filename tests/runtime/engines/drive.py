#!/usr/bin/env python3
"""Drives another engine with a given OCI runtime through what people do with containers.

usage: drive.py podman|buildah|containerd RUNTIME PLACE ARCHIVE     (tests/runtime/test_engines.py calls it)

PLACE is an empty directory for all that the engine keeps; ARCHIVE an image localhost/busybox:latest. It runs in a pure
cgroup v2 view (../conformance/in-v2), containerd as root, the others as the test user. Prints one JSON object: name of
a check → "" or what went wrong. The last check, `nothing_left`, counts processes, mounts, control groups and state of
the runtime after all containers are gone.
"""

import json
import os
import pathlib
import pty
import select
import subprocess
import sys
import time
import traceback

IMAGE = "localhost/busybox:latest"
WAIT = 60  # seconds; for what takes tenths of one on an idle machine


class Failed(Exception):
    pass


def until(condition, what):
    end = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"waited in vain: {what}")
        time.sleep(0.05)


class Engine:
    def __init__(self, runtime, place, archive):
        self.runtime, self.place, self.archive = runtime, place, archive
        self.env = {"PATH": os.environ["PATH"], "HOME": str(place / "home"), "LANG": "C.UTF-8", "TERM": "xterm",
                    "XDG_RUNTIME_DIR": str(place / "run"), "TMPDIR": str(place / "tmp")}
        for name in ("home", "run", "tmp"):
            (place / name).mkdir(mode=0o700)
        self.prefix = []

    def prepare(self):
        pass

    def finish(self):
        pass

    def __call__(self, *words, code=0, stdin=None):
        argv = [*self.prefix, *map(str, words)]
        done = subprocess.run(argv, capture_output=True, text=True, input=stdin, env=self.env, timeout=2 * WAIT,
                              cwd=self.place, **({"stdin": subprocess.DEVNULL} if stdin is None else {}))
        if code is not None and done.returncode != code:
            raise Failed(f"$ {' '.join(argv)}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def expect(self, wanted, *words, **more):
        out = self(*words, **more)
        if wanted not in out:
            raise Failed(f"$ {' '.join(map(str, words))}\nno {wanted!r} in {out!r}")

    def on_terminal(self, *words, send="", wanted="", code=0):
        """Runs it on a terminal; types `send` when `ready` was seen; the exit status and what was shown are checked."""
        argv = [*self.prefix, *map(str, words)]
        pid, master = pty.fork()
        if pid == 0:
            os.chdir(self.place)
            os.execvpe(argv[0], argv, self.env)
        seen, end = b"", time.monotonic() + WAIT
        while time.monotonic() < end:
            ready, _, _ = select.select([master], [], [], 0.2)
            if not ready:
                continue
            try:
                data = os.read(master, 4096)
            except OSError:
                break
            if not data:
                break
            seen += data
            if send and b"ready" in seen:
                os.write(master, send.encode())
                send = ""
        else:
            os.kill(pid, 9)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(master)
        text = seen.decode(errors="replace")
        if status != code or wanted not in text:
            raise Failed(f"$ {' '.join(argv)} (on a terminal)\nexit {status}, wanted {code} and {wanted!r} in {text!r}")


# ---- podman ----------------------------------------------------------------------------------------------------------

class Podman(Engine):
    def prepare(self):
        settings = self.place / "home/.config/containers"
        settings.mkdir(parents=True)
        (settings / "storage.conf").write_text('[storage]\ndriver = "overlay"\n')
        (settings / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        # Hosts whose controllers belong to v1 have none to limit processes with, and podman asks for that by default.
        (settings / "containers.conf").write_text(
            '[containers]\npids_limit = 0\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n')
        self.prefix = ["podman", "--runtime", self.runtime]
        self("load", "-q", "-i", self.archive)

    def finish(self):
        self("rm", "-f", "-a", "-t", "0", code=None)
        self("system", "migrate", code=None)  # ends the process that holds the user namespace

    def status(self, name):
        return self("inspect", "--format", "{{.State.Status}}", name).strip()

    def check_run(self):
        self.expect("hello", "run", "--rm", "--network=none", IMAGE, "echo", "hello")
        self("run", "--rm", "--network=none", IMAGE, "sh", "-c", "exit 3", code=3)
        self("run", "--rm", "--network=none", IMAGE, "/no/such/program", code=127)
        self("run", "--rm", "--network=none", IMAGE, "/etc", code=126)

    def check_options(self):
        self.expect("1000:1001", "run", "--rm", "--network=none", "--user", "1000:1001", IMAGE, "sh", "-c",
                    "echo $(id -u):$(id -g)")
        self("run", "--rm", "--network=none", "--read-only", IMAGE, "touch", "/x", code=1)
        self.expect("kept", "run", "--rm", "--network=none", "-v", f"{self.place}:/host", "--tmpfs", "/t:size=1m", IMAGE,
                    "sh", "-c", "touch /t/x /host/made && echo kept")
        if not (self.place / "made").exists():
            raise Failed("the file in the volume is not on the host")
        self.expect("0000000000000000", "run", "--rm", "--network=none", "--cap-drop", "all", IMAGE, "grep", "CapEff",
                    "/proc/self/status")
        self.expect("name-of-it", "run", "--rm", "--network=none", "--hostname", "name-of-it", IMAGE, "hostname")
        self.expect(str(os.getuid()), "run", "--rm", "--network=none", "--userns", "keep-id", IMAGE, "id", "-u")

    def check_stdin(self):
        self.expect("a line", "run", "--rm", "-i", "--network=none", IMAGE, "cat", stdin="a line\n")

    def check_terminal(self):
        self.on_terminal("run", "--rm", "-it", "--network=none", IMAGE, "sh", "-c",
                         "tty; echo ready; read x; echo got-$x; exit 4", send="words\n", wanted="got-words", code=4)

    def check_exec(self):
        self("run", "-d", "--name", "exec", "--network=none", IMAGE, "sleep", "1000")
        self.expect("inside", "exec", "exec", "echo", "inside")
        self("exec", "exec", "sh", "-c", "exit 5", code=5)
        self.on_terminal("exec", "-it", "exec", "sh", "-c", "tty; echo ready; read x; echo got-$x", send="more\n",
                         wanted="got-more")
        self("rm", "-f", "-t", "0", "exec")

    def check_attach(self):
        self("run", "-d", "-i", "--name", "attach", "--network=none", IMAGE, "sh", "-c",
             "while read x; do echo got-$x; done; exit 6")
        attached = subprocess.Popen([*self.prefix, "attach", "attach"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                    text=True, env=self.env)
        attached.stdin.write("this\n")
        attached.stdin.flush()
        line = attached.stdout.readline()
        attached.stdin.close()
        attached.stdout.close()
        attached.wait(WAIT)
        if line != "got-this\n":
            raise Failed(f"attached, but heard {line!r}")
        self("rm", "-f", "-t", "0", "attach")

    def check_pause_and_restart(self):
        self("run", "-d", "--name", "life", "--network=none", IMAGE, "sh", "-c",
             "trap 'exit 7' TERM; while :; do sleep 0.1; done")
        self("pause", "life")
        if self.status("life") != "paused":
            raise Failed("not paused: " + self.status("life"))
        self("unpause", "life")
        self("restart", "-t", "20", "life")
        if self.status("life") != "running":
            raise Failed("not running again: " + self.status("life"))
        self("stop", "-t", "20", "life")
        self.expect("exited 7", "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "life")
        self("start", "life")
        self("kill", "-s", "KILL", "life")
        self.expect("137", "wait", "life")
        self("rm", "life")

    def check_shared_namespaces(self):
        self("run", "-d", "--name", "one", "--network=none", "--ipc", "shareable", IMAGE, "sleep", "1000")
        self.expect("sleep 1000", "run", "--rm", "--network", "container:one", "--pid", "container:one", "--ipc",
                    "container:one", IMAGE, "ps")
        self("rm", "-f", "-t", "0", "one")

    def check_logs_and_top(self):
        self("run", "-d", "--name", "talker", "--network=none", IMAGE, "sh", "-c", "echo to-the-log; sleep 1000")
        until(lambda: "to-the-log" in self("logs", "talker"), "a line in the log")
        self.expect("sleep 1000", "top", "talker", "args")
        self("rm", "-f", "-t", "0", "talker")


# ---- buildah ---------------------------------------------------------------------------------------------------------

class Buildah(Engine):
    def prepare(self):
        Podman.prepare(self)
        self.prefix = ["buildah"]

    def finish(self):
        self("rm", "-a", code=None)
        self.prefix = ["podman", "--runtime", self.runtime]
        self("system", "migrate", code=None)

    def check_build(self):
        context = self.place / "context"
        context.mkdir()
        (context / "Containerfile").write_text(
            f"FROM {IMAGE}\nRUN echo made-by-run >/made\nRUN test \"$(cat /made)\" = made-by-run && mkdir /more\n"
            "USER 1000\nRUN test \"$(id -u)\" = 1000\n")
        self("bud", "--isolation", "oci", "--runtime", self.runtime, "--network=none", "-t", "built", context)
        (context / "Containerfile").write_text(f"FROM {IMAGE}\nRUN exit 9\n")
        done = subprocess.run([*self.prefix, "bud", "--isolation", "oci", "--runtime", self.runtime, "--network=none",
                               str(context)], capture_output=True, text=True, env=self.env, timeout=2 * WAIT)
        if done.returncode == 0 or "9" not in done.stderr:
            raise Failed(f"a failing RUN: exit {done.returncode}: {done.stderr}")

    def check_run(self):
        name = self("from", IMAGE).strip()
        run = ["run", "--isolation", "oci", "--runtime", self.runtime, "--network=none"]
        self.expect("inside", *run, name, "echo", "inside")
        self(*run, name, "sh", "-c", "exit 3", code=3)
        self.on_terminal(*run, "--terminal", name, "sh", "-c", "tty; echo ready; read x; echo got-$x", send="words\n",
                         wanted="got-words")
        self("rm", name)


# ---- containerd ------------------------------------------------------------------------------------------------------

class Containerd(Engine):
    def prepare(self):
        config = self.place / "config.toml"
        config.write_text(f'version = 2\nroot = "{self.place}/root"\nstate = "{self.place}/state"\n'
                          'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                          f'[grpc]\naddress = "{self.place}/c.sock"\n')
        self.log = open(self.place / "log", "w")
        self.daemon = subprocess.Popen(["containerd", "--config", str(config)], stdout=self.log, stderr=self.log,
                                       env=self.env)
        self.prefix = ["ctr", "--address", str(self.place / "c.sock")]
        until(lambda: subprocess.run([*self.prefix, "version"], env=self.env, capture_output=True).returncode == 0,
              "the daemon's socket")
        # The archive has no base name: it is given one.
        self("images", "import", "--base-name", "localhost/busybox", "--snapshotter", "native", self.archive)
        self.image = self("images", "ls", "-q").split()[0]

    def finish(self):
        for name in self("tasks", "ls", "-q", code=None).split():
            self("tasks", "kill", "-s", "KILL", name, code=None)
            self("tasks", "rm", "-f", name, code=None)
        for name in self("containers", "ls", "-q", code=None).split():
            self("containers", "rm", name, code=None)
        self.daemon.terminate()
        self.daemon.wait(WAIT)
        self.log.close()

    def words(self, *options):
        return ["run", "--snapshotter", "native", "--runtime", "io.containerd.runc.v2", "--runc-binary", self.runtime,
                "--runc-root", str(self.place / "oci"), *options, self.image]

    def task(self, name):
        lines = [line.split() for line in self("tasks", "ls").splitlines()[1:]]
        return next((line[2] for line in lines if line[0] == name), "none")

    def check_run(self):
        self.expect("hello", *self.words("--rm"), "run1", "echo", "hello")
        self(*self.words("--rm"), "run2", "sh", "-c", "exit 3", code=3)

    def check_terminal(self):
        self.on_terminal(*self.words("--rm", "-t"), "tty", "sh", "-c", "tty; echo ready; read x; echo got-$x",
                         send="words\n", wanted="got-words")

    def check_exec(self):
        self(*self.words("-d"), "exec", "sleep", "1000")
        self.expect("inside", "tasks", "exec", "--exec-id", "e1", "exec", "echo", "inside")
        self("tasks", "exec", "--exec-id", "e2", "exec", "sh", "-c", "exit 5", code=5)
        self.on_terminal("tasks", "exec", "-t", "--exec-id", "e3", "exec", "sh", "-c", "tty; echo ready; read x; echo got-$x",
                         send="more\n", wanted="got-more")
        self.expect("PID", "tasks", "ps", "exec")
        self.remove("exec")

    def remove(self, name):
        self("tasks", "kill", "-s", "KILL", name)
        until(lambda: self.task(name) == "STOPPED", "the end of " + name)
        self("tasks", "rm", name, code=None)  # its status is that of the killed program
        if self.task(name) != "none":
            raise Failed("the task is still there")
        self("containers", "rm", name)

    def check_pause_and_restart(self):
        self(*self.words("-d"), "life", "sleep", "1000")
        self("tasks", "pause", "life")
        if self.task("life") != "PAUSED":
            raise Failed("not paused: " + self.task("life"))
        self("tasks", "resume", "life")
        if self.task("life") != "RUNNING":
            raise Failed("not resumed: " + self.task("life"))
        self("tasks", "kill", "-s", "KILL", "life")
        until(lambda: self.task("life") == "STOPPED", "the end of the task")
        self("tasks", "rm", "life", code=None)
        self("tasks", "start", "-d", "life")
        if self.task("life") != "RUNNING":
            raise Failed("not running again: " + self.task("life"))
        self.remove("life")

    def check_attach(self):
        self(*self.words("-d"), "attach", "sh", "-c", "sleep 1000")
        attached = subprocess.Popen([*self.prefix, "tasks", "attach", "attach"], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env)
        time.sleep(0.5)
        self("tasks", "kill", "-s", "KILL", "attach")
        attached.communicate(timeout=WAIT)
        if attached.returncode != 137:
            raise Failed(f"attached, and ended with {attached.returncode}")
        self("tasks", "rm", "attach", code=None)
        self("containers", "rm", "attach")


# ---- what is left ----------------------------------------------------------------------------------------------------

def processes_below():
    """Processes that this one has made or been given: it is their subreaper."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = open(f"/proc/{entry}/stat").read()
            except OSError:
                continue
            fields = text[text.rindex(")") + 2:].split()
            if fields[0] != "Z":
                parents.setdefault(int(fields[1]), []).append((int(entry), text[text.index("(") + 1:text.rindex(")")]))
    found, queue = [], [os.getpid()]
    while queue:
        for child in parents.get(queue.pop(), []):
            found.append(child)
            queue.append(child[0])
    return found


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        pass


def groups_below():
    own = next(line.strip()[3:] for line in open("/proc/self/cgroup") if line.startswith("0::"))
    top = pathlib.Path("/sys/fs/cgroup" + own).parent
    return {str(path.relative_to(top)) for path in top.rglob("*") if path.is_dir()} if top.name.startswith("kelp-test") else set()


def mounts_below(place):
    return [line.split()[4] for line in open("/proc/self/mountinfo") if str(place) in line.split()[4]]


def nothing_left(engine, groups_before):
    def left():
        reap()
        return processes_below()
    end = time.monotonic() + WAIT
    while left() and time.monotonic() < end:
        time.sleep(0.1)
    wrong = [f"process {pid} {name}" for pid, name in left()]
    wrong += [f"mount {point}" for point in mounts_below(engine.place)
              if not point.endswith(("/storage/overlay", "/containers/storage/overlay"))]
    wrong += [f"control group {name}" for name in sorted(groups_below() - groups_before)
              if any((pathlib.Path("/sys/fs/cgroup") / name).glob("cgroup.procs"))]
    for state in (engine.place / "run/kelp-oci", engine.place / "run/crun", engine.place / "oci"):
        if state.is_dir():
            wrong += [f"state {path}" for path in state.rglob("*") if not path.is_dir()]
    if wrong:
        raise Failed("\n".join(wrong))


ENGINES = {"podman": Podman, "buildah": Buildah, "containerd": Containerd}


def checks_of(name):
    return [word.removeprefix("check_") for word in vars(ENGINES[name]) if word.startswith("check_")] + ["nothing_left"]


def verdict_of(function, *arguments):
    try:
        function(*arguments)
        return ""
    except Failed as error:
        return str(error)
    except Exception:  # a time-out of a command, a broken answer: the next checks run all the same
        return traceback.format_exc()


def main(name, runtime, place, archive):
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    engine = ENGINES[name](runtime, pathlib.Path(place), archive)
    groups = groups_below()
    verdicts = {"prepare": verdict_of(engine.prepare)}
    for check in checks_of(name)[:-1] if not verdicts["prepare"] else []:
        verdicts[check] = verdict_of(getattr(engine, "check_" + check))
    verdicts["finish"] = verdict_of(engine.finish)
    verdicts["nothing_left"] = verdict_of(nothing_left, engine, groups)
    print(json.dumps(verdicts))


if __name__ == "__main__":
    main(*sys.argv[1:])
