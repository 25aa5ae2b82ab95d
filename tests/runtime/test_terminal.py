"""Terminals: the console socket, a run in the foreground, exec with a terminal, sizes."""

import array
import contextlib
import fcntl
import os
import pty
import select
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest


class ConsoleSocket:
    """What an engine puts behind --console-socket."""

    def __init__(self, path):
        self.path = str(path)
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(self.path)
        self.server.listen(1)
        self.server.settimeout(20)
        self.master, self.connection = -1, None
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            self.connection, _ = self.server.accept()
            _, ancillary, _, _ = self.connection.recvmsg(4096, socket.CMSG_SPACE(4))
            for _, _, content in ancillary:
                self.master = array.array("i", content[:4])[0]

    def receive(self):
        self.thread.join()
        assert self.master >= 0, "no terminal came"
        return self.master

    def close(self):
        for end in (self.server, self.connection):
            with contextlib.suppress(OSError, AttributeError):
                end.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        for end in (self.server, self.connection):
            with contextlib.suppress(AttributeError):
                end.close()
        if self.master >= 0:
            os.close(self.master)


@pytest.fixture
def console(oci):
    made = ConsoleSocket(oci.place / "c.sock")
    yield made
    made.close()


def read_until(fd, text, seconds=20):
    got = b""
    end = time.monotonic() + seconds
    while text not in got:
        ready, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
        assert ready, f"{text!r} did not come; got {got!r}"
        try:
            chunk = os.read(fd, 65536)
        except OSError:  # EIO: the last other end is closed
            chunk = b""
        if not chunk:
            break
        got += chunk
    assert text in got, got
    return got


def size_of(rows, columns):
    return struct.pack("HHHH", rows, columns, 0, 0)


def test_create_with_a_console_socket(oci, console):
    oci.process["terminal"] = True
    oci.process["consoleSize"] = {"height": 31, "width": 97}
    oci.process["args"] = ["/probe", "winsize", ";", "stat", "/dev/console", ";", "try", "tty", ";", "info", ";", "cat", "-"]
    oci.write_config()
    oci.started.append("c1")
    oci("create", "--console-socket", console.path, "--bundle", oci.bundle, "c1")
    master = console.receive()
    oci("start", "c1")
    first = read_until(master, b'"tty":1')
    assert b"31 97\r\n" in first and b'"type":"char"' in first and b"\r\nok\r\n" in first
    os.write(master, b"typed\n")
    assert b"typed\r\ntyped\r\n" in read_until(master, b"typed\r\ntyped")
    os.write(master, b"\x04")
    oci.wait_status("stopped")


def test_terminal_needs_a_socket(oci):
    oci.process["terminal"] = True
    oci.write_config()
    oci.started.append("c1")
    done = oci("create", "--bundle", oci.bundle, "c1", code=None)
    assert done.code != 0 and "console" in done.err, str(done)


def test_socket_without_a_terminal_is_refused(oci, console):
    oci.write_config()
    oci.started.append("c1")
    done = oci("create", "--console-socket", console.path, "--bundle", oci.bundle, "c1", code=None)
    assert done.code != 0 and "console" in done.err, str(done)


def test_run_in_the_foreground(oci):
    """The caller's terminal is relayed: its size, what is typed, the exit status; and it is set back afterwards."""
    oci.process["terminal"] = True
    oci.process["args"] = ["/probe", "winsize", ";", "wait"]
    oci.write_config()
    oci.started.append("c1")
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size_of(33, 101))
        before = termios.tcgetattr(slave)
        child = subprocess.Popen([*oci.base, "run", "--bundle", str(oci.bundle), "c1"], stdin=slave, stdout=slave,
                                 stderr=slave, env=oci.env, cwd=oci.bundle, start_new_session=True,
                                 preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        oci.processes.append(child)
        assert b"33 101" in read_until(master, b"ready")
        os.write(master, b"\x03")  # ^C is a byte to us: the terminal inside makes a signal of it
        assert child.wait(timeout=20) == 2
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def test_exec_with_a_terminal(oci, console):
    oci.create("wait")
    oci.start()
    oci.output("ready")
    oci("exec", "--tty", "--detach", "--console-socket", console.path, "c1", "/probe", "try", "tty", ";", "info", ";",
        "cat", "-")
    master = console.receive()
    assert b"ok\r\n" in read_until(master, b'"tty":1')
    os.write(master, b"\x04")


def test_exec_size_comes_from_the_process_file(kelp_oci):
    import json
    kelp_oci.create("wait")
    kelp_oci.start()
    kelp_oci.output("ready")
    process = {"cwd": "/", "args": ["/probe", "winsize", ";", "cat", "-"], "env": ["P=q"], "terminal": True,
               "consoleSize": {"height": 12, "width": 34}, "user": {"uid": 0, "gid": 0}}
    (kelp_oci.place / "process.json").write_text(json.dumps(process))
    made = ConsoleSocket(kelp_oci.place / "c.sock")
    try:
        kelp_oci("exec", "--detach", "--console-socket", made.path, "--process", kelp_oci.place / "process.json", "c1")
        master = made.receive()
        read_until(master, b"12 34\r\n")
        os.write(master, b"\x04")
    finally:
        made.close()


def test_terminal_belongs_to_the_user(oci, console):
    oci.process["terminal"] = True
    oci.process["user"] = {"uid": 7, "gid": 7}
    oci.process["args"] = ["/probe", "stat", "/dev/pts/0", ";", "cat", "-"]
    oci.write_config()
    oci.started.append("c1")
    oci("create", "--console-socket", console.path, "--bundle", oci.bundle, "c1")
    master = console.receive()
    oci("start", "c1")
    assert b'"uid":7' in read_until(master, b'"minor"')
    os.write(master, b"\x04")
    oci.wait_status("stopped")
