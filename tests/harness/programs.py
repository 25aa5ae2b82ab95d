"""Where the programs under test are, and how they are run."""

import os
import pathlib
import pty
import re
import select
import shlex
import signal
import subprocess
import time

TOP = pathlib.Path(__file__).resolve().parent.parent.parent


def build_dir():
    """KELP_BUILD, else the newest build tree that has the programs."""
    given = os.environ.get("KELP_BUILD")
    if given:
        return pathlib.Path(given).resolve()
    trees = [p.parent.parent for p in TOP.glob("build*/src/kelp") if p.is_file()]
    if not trees:
        raise RuntimeError("no build tree with a kelp program: meson setup build && ninja -C build, or set KELP_BUILD")
    return max(trees, key=lambda p: (p / "src/kelp").stat().st_mtime)


def program(name):
    return str(build_dir() / "src" / name)


def payload(name):
    """A program of the tests' own."""
    return str(build_dir() / "tests/payload" / name)


# Lines on stderr that say what is being done, where there is no terminal for bars.
PROGRESS = ("Trying to pull ", "Copied blob ", "Copying blob ")


class Result:
    """What a finished program said."""

    def __init__(self, argv, code, out, err, seconds):
        self.argv, self.code, self.out, self.err, self.seconds = argv, code, out, err, seconds

    @property
    def lines(self):
        return self.out.splitlines()

    @property
    def text(self):
        return self.out.strip()

    def __str__(self):
        return (f"$ {shlex.join(map(str, self.argv))}\nexit {self.code} after {self.seconds:.2f} s\n"
                f"--- stdout\n{self.out}--- stderr\n{self.err}")

    __repr__ = __str__


class Kelp:
    """kelp with directories of its own: nothing of it is shared with another test or with the user's own store."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.home, self.data, self.cache = self.dir / "h", self.dir / "d", self.dir / "c"
        self.config, self.runtime_dir = self.dir / "f", self.dir / "r"
        self.temporary = self.dir / "t"
        for path in (self.home, self.data, self.cache, self.config, self.runtime_dir, self.temporary):
            path.mkdir(mode=0o700, exist_ok=True)
        self.env = {
            "HOME": str(self.home), "USER": os.environ.get("USER", "test"), "LANG": "C.UTF-8", "TERM": "xterm",
            "PATH": os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin",
            "XDG_DATA_HOME": str(self.data), "XDG_CACHE_HOME": str(self.cache),
            "XDG_CONFIG_HOME": str(self.config), "XDG_RUNTIME_DIR": str(self.runtime_dir), "TMPDIR": str(self.temporary),
        }
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "DBUS_SESSION_BUS_ADDRESS", "KELP_TEST_ROOT_AGENT"):
            if name in os.environ:
                self.env[name] = os.environ[name]
        # Another tool with the same command line, to test the tests (leaks and messages are kelp's own and fail there).
        self.path = os.environ.get("KELP_PROGRAM") or program("kelp")
        self.children = []  # Popen objects still owned by the test

    @property
    def store(self):
        return self.data / "kelp"

    @property
    def run_dir(self):
        return self.runtime_dir / "kelp"

    def argv(self, *args):
        return [self.path, *map(str, args)]

    def __call__(self, *args, code=0, timeout=60, stdin=None, env=None, cwd=None, program=None, pass_fds=()):
        """Runs to the end. code: the exit status that must come (None: any). stdin: text, or None for nothing."""
        argv = [program, *map(str, args)] if program else self.argv(*args)
        start = time.monotonic()
        child = subprocess.Popen(argv, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**self.env, **(env or {})},
                                 cwd=cwd or self.dir, pass_fds=pass_fds)
        try:
            out, err = child.communicate(stdin.encode() if isinstance(stdin, str) else stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            try:
                out, err = child.communicate(timeout=2)
            except subprocess.TimeoutExpired:
                out, err = b"", b"(a descendant still holds the output)"
            result = Result(argv, child.returncode, out.decode(errors="replace"), err.decode(errors="replace"), timeout)
            raise AssertionError(f"still running after {timeout} s:\n{result}") from None
        result = Result(argv, child.returncode, out.decode(errors="replace"), err.decode(errors="replace"),
                        time.monotonic() - start)
        if code is not None and child.returncode != code:
            raise AssertionError(f"exit status {child.returncode} where {code} was expected:\n{result}")
        return result

    def fails(self, *args, says=None, hint=None, code=125, **keywords):
        """Runs a command that must be refused with one clear line (and at most one hint)."""
        result = self(*args, code=code, **keywords)
        lines = [line for line in result.err.splitlines() if line]
        assert lines, f"nothing was said:\n{result}"
        errors = [line for line in lines if not line.startswith(("hint:", "kelp: warning:", *PROGRESS))]
        assert len(errors) == 1, f"one line was expected:\n{result}"
        if says:
            assert re.search(says, errors[0]), f"{says!r} is not in the message:\n{result}"
        if hint:
            assert any(re.search(hint, line) for line in lines if line.startswith("hint:")), f"no such hint:\n{result}"
        return result

    def start(self, *args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=None, path=None, **more):
        """Starts a command and returns its Popen; ended with the test. path: of what takes kelp's place."""
        child = subprocess.Popen([path or self.path, *map(str, args)], stdin=stdin, stdout=stdout, stderr=stderr,
                                 env={**self.env, **(env or {})}, cwd=self.dir, **more)
        self.children.append(child)
        return child

    def terminal(self, *args, size=(24, 80)):
        """Starts a command on a pseudo terminal of its own."""
        terminal = Terminal(self.argv(*args), self.env, self.dir, size)
        self.children.append(terminal)
        return terminal

    def end_children(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream:
                    stream.close()
        self.children = []


class Terminal:
    """A program on a pseudo terminal, in a session of its own."""

    stdin = stdout = stderr = None

    def __init__(self, argv, env, cwd, size):
        self.master, slave = pty.openpty()
        self.resize(*size)
        self.seen = ""
        self.child = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=cwd,
                                      start_new_session=True, preexec_fn=lambda: _take_terminal())
        os.close(slave)
        self.pid = self.child.pid

    def resize(self, rows, columns):
        import fcntl
        import struct
        import termios
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def expect(self, pattern, timeout=20):
        """Reads until the pattern is seen in what was not matched before; returns the match."""
        end = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.seen)
            if match:
                self.seen = self.seen[match.end():]
                return match
            left = end - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"{pattern!r} was not seen in {self.seen!r}")

    def _read(self, timeout):
        if not select.select([self.master], [], [], timeout)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: the last program closed the other end
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def poll(self):
        return self.child.poll()

    def kill(self):
        self.child.send_signal(signal.SIGKILL)

    def wait(self, timeout=20):
        end = time.monotonic() + timeout
        while self.child.poll() is None and time.monotonic() < end:
            self._read(0.05)
        code = self.child.wait(timeout=1)
        if self.master >= 0:
            while select.select([self.master], [], [], 0)[0] and self._read(0):
                pass
            os.close(self.master)
            self.master = -1
        return code


def _take_terminal():
    import fcntl
    import termios
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGQUIT):  # ignored where the tests run in a shell's background
        signal.signal(number, signal.SIG_DFL)
