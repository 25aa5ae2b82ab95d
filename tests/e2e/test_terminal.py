"""The terminal's life: modes given back, sizes, detach keys, job control, and no lost output."""

import os
import signal
import termios
import time

from harness.waiting import until

NONE = ("--network", "none")


def modes(terminal):
    return termios.tcgetattr(terminal.master)


def is_raw(terminal):
    return not modes(terminal)[3] & (termios.ICANON | termios.ECHO)


def interactive(kelp, *options):
    terminal = kelp.terminal("run", "-it", "--name", "c", *options, *NONE, "busybox", "sh")
    terminal.expect(r"/ # ")
    until("raw", lambda: is_raw(terminal))
    return terminal


def test_modes_come_back_after_the_end(kelp):
    terminal = kelp.terminal("run", "-it", "--rm", *NONE, "busybox", "sh")
    terminal.expect("/ # ")
    terminal.type("exit 4\n")
    until("ended", lambda: terminal.poll() is not None)
    assert not is_raw(terminal) and terminal.wait() == 4


def test_modes_come_back_after_signals(kelp):
    for number in (signal.SIGTERM, signal.SIGHUP):
        terminal = interactive(kelp)
        terminal.child.send_signal(number)
        until("ended", lambda: terminal.poll() is not None)
        assert not is_raw(terminal)
        terminal.wait()
        kelp("rm", "-f", "-t", "0", "c")


def test_modes_come_back_when_the_monitor_dies(kelp):
    terminal = interactive(kelp)
    os.kill(int(kelp("inspect", "--format", "{{.State.ConmonPid}}", "c").text), signal.SIGKILL)
    until("ended", lambda: terminal.poll() is not None)
    assert not is_raw(terminal)
    terminal.wait()


def test_modes_come_back_after_the_detach_keys(kelp):
    terminal = interactive(kelp, "--detach-keys", "ctrl-x,q")
    terminal.type("\x18q")
    until("ended", lambda: terminal.poll() is not None)
    assert not is_raw(terminal) and terminal.wait() == 0
    assert kelp("inspect", "--format", "{{.State.Status}}", "c").text == "running"
    again = kelp.terminal("exec", "-it", "--detach-keys", "ctrl-a", "c", "sh")
    again.expect("/ # ")
    again.type("\x01")
    until("ended", lambda: again.poll() is not None)
    assert not is_raw(again) and again.wait() == 0


def test_sizes(kelp):
    terminal = interactive(kelp)
    terminal.type("stty size\n")
    terminal.expect("24 80")
    terminal.resize(50, 132)
    until("resized", lambda: (terminal.type("stty size\n"), "50 132" in terminal.seen or terminal._read(0.3) and "50 132" in terminal.seen)[1])
    terminal.type("exit\n")
    terminal.wait()


def stopped(pid):
    return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "T"


def test_job_control(kelp):
    """A stop of the command line gives the terminal back, the container goes on, and the terminal is raw after fg."""
    terminal = interactive(kelp)
    os.kill(terminal.pid, signal.SIGTSTP)
    until("stopped", lambda: stopped(terminal.pid))
    assert not is_raw(terminal)
    kelp("exec", "c", "true")
    os.kill(terminal.pid, signal.SIGCONT)
    until("raw again", lambda: is_raw(terminal))
    terminal.type("echo a''live\n")
    terminal.expect("alive")
    terminal.type("exit\n")
    assert terminal.wait() == 0


def test_a_stop_nobody_announced(kelp):
    terminal = interactive(kelp)
    os.kill(terminal.pid, signal.SIGSTOP)
    until("stopped", lambda: stopped(terminal.pid))
    shell = modes(terminal)
    shell[3] |= termios.ICANON | termios.ECHO
    termios.tcsetattr(terminal.master, termios.TCSANOW, shell)  # as a shell does
    os.kill(terminal.pid, signal.SIGCONT)
    until("raw again", lambda: is_raw(terminal))
    terminal.type("exit\n")
    terminal.wait()


def test_stopping_a_plain_run(kelp):
    child = kelp.start("run", "--name", "c", *NONE, "busybox", "sh", "-c",
                       "while [ ! -e /go ]; do sleep 0.05; done; echo done")
    until("it runs", lambda: kelp("ps", "-q").text)
    child.send_signal(signal.SIGTSTP)
    until("stopped", lambda: stopped(child.pid))
    kelp("exec", "c", "touch", "/go")
    kelp("wait", "c")
    child.send_signal(signal.SIGCONT)
    assert child.stdout.read() == b"done\n" and child.wait(20) == 0


def test_the_last_line_is_never_lost(kelp):
    for turn in range(20):
        result = kelp("run", "--rm", *NONE, "busybox", "sh", "-c", f"seq 1 2000; echo -n last{turn}")
        assert result.out.endswith(f"2000\nlast{turn}"), turn
        terminal = kelp.terminal("run", "--rm", "-t", *NONE, "busybox", "sh", "-c", f"echo one; echo -n last{turn}")
        terminal.expect(f"last{turn}")
        assert terminal.wait() == 0


def test_much_output_through_a_slow_reader(kelp):
    child = kelp.start("run", "--rm", *NONE, "busybox", "sh", "-c", "yes 0123456789abcdef | head -c 20000000")
    time.sleep(1)  # nobody reads meanwhile
    total = 0
    while piece := child.stdout.read(1 << 20):
        total += len(piece)
    assert total == 20_000_000 and child.wait(20) == 0


TABLE = r"ID +NAME +CPU % +[^\n]*AVG CPU %\r\n[0-9a-f]{12} +c +\d+\.\d\d%"


def test_stats_are_drawn_over_the_last_ones(kelp):
    """The whole table, again and again from the top of the screen, to the end of what it is about; or one below the other."""
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "1000")
    terminal = kelp.terminal("stats", "-i", "1", "c", size=(24, 200))
    for _ in range(3):
        terminal.expect(r"^\x1b\[H\x1b\[2J" + TABLE)
        terminal.expect(r"\r\n")
    below = kelp.terminal("stats", "-i", "1", "--no-reset", "c", size=(24, 200))
    for _ in range(2):
        below.expect("^" + TABLE)
        below.expect(r"\r\n")
    kelp("stop", "-t", "0", "c")
    assert terminal.wait() == below.wait() == 0


def test_stats_of_all_follow_who_comes_and_goes(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "1000")
    terminal = kelp.terminal("stats", "-i", "1", size=(24, 200))
    terminal.expect(TABLE)
    kelp("run", "-d", "--name", "d", *NONE, "busybox", "sleep", "1000")
    terminal.expect(r"[0-9a-f]{12} +d +\d")
    kelp("rm", "-f", "-t", "0", "d")
    terminal.expect(r"\x1b\[2J" + TABLE + r"[^\n]*\r\n(?![0-9a-f])")
    terminal.type("\x03")
    assert terminal.wait() in (-signal.SIGINT, 130)
