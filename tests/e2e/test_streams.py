"""Pipes between a container and whoever reads it: nothing is lost, turned around or held open, at any speed."""

import hashlib
import signal
import subprocess
import threading

import pytest

from harness.waiting import until

NONE = ("--network", "none")
# Lines of different length on both streams, 1.6 MB each.
MUCH = ("i=0; while [ $i -lt 40 ]; do cat /text; cat /text >&2; i=$((i+1)); done")


@pytest.fixture
def text(place):
    path = place / "text"
    path.write_text("".join(f"{n} " + "x" * (n % 150) + "\n" for n in range(500)))
    path.chmod(0o644)
    return path


def digest(data):
    return hashlib.sha256(data).hexdigest()


def read_all(child):
    """Both streams to their ends."""
    found = {}
    threads = [threading.Thread(target=lambda s=s, n=n: found.__setitem__(n, s.read()))
               for n, s in (("out", child.stdout), ("err", child.stderr))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return found["out"], found["err"]


@pytest.mark.parametrize("driver", ["k8s-file", "json-file", "none"])
def test_all_of_it_arrives_and_is_logged(kelp, text, driver):
    whole = text.read_bytes() * 40
    child = kelp.start("run", "--name", "c", "--log-driver", driver, *NONE, "-v", f"{text}:/text:ro", "busybox", "sh", "-c", MUCH)
    out, err = read_all(child)
    assert child.wait(timeout=60) == 0
    assert (len(out), len(err)) == (len(whole), len(whole)) and digest(out) == digest(err) == digest(whole)
    if driver != "none":
        logs = kelp.start("logs", "c")
        out, err = read_all(logs)
        assert digest(out) == digest(err) == digest(whole)


def test_both_streams_in_one_pipe_keep_their_lines(kelp, text):
    child = subprocess.run(kelp.argv("run", "--rm", *NONE, "-v", f"{text}:/text:ro", "busybox", "sh", "-c", MUCH),
                           env=kelp.env, cwd=kelp.dir, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    assert child.returncode == 0 and len(child.stdout) == 2 * 40 * text.stat().st_size


@pytest.mark.parametrize("driver", ["k8s-file", "none"])
def test_a_slow_reader_holds_the_container_back(kelp, driver):
    child = kelp.start("run", "--name", "c", "--log-driver", driver, *NONE, "busybox", "sh", "-c",
                       "dd if=/dev/zero bs=1M count=8 2>/dev/null; touch /done; sleep 1000")
    until("it runs", lambda: kelp("exec", "c", "true", code=None).code == 0)
    first = child.stdout.read(1 << 16)
    assert kelp("exec", "c", "test", "-e", "/done", code=1).out == ""  # 8 MB are more than all pipes hold
    rest = child.stdout.read((8 << 20) - len(first))
    assert len(first) + len(rest) == 8 << 20
    until("it goes on", lambda: kelp("exec", "c", "test", "-e", "/done", code=None).code == 0)
    kelp("kill", "c")
    assert child.wait(timeout=20) == 137 and child.stdout.read() == b""


@pytest.mark.parametrize("driver", ["k8s-file", "none"])
def test_a_reader_that_leaves(kelp, driver):
    """What it does not take goes to the log alone, and the container does not notice."""
    child = kelp.start("run", "--name", "c", "--log-driver", driver, *NONE, "busybox", "sh", "-c",
                       "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 7")
    assert child.stdout.readline() == b"line 0\n"
    child.stdout.close()
    child.stdout = None
    child.wait(timeout=60)
    assert kelp("wait", "c").text == "7"
    if driver != "none":
        assert kelp("logs", "c").lines == [f"line {n}" for n in range(20000)]


def test_a_killed_command_line_lets_go_of_its_pipes(kelp):
    """Its reader sees the end though the container goes on, and logs what it writes."""
    child = kelp.start("run", "--name", "c", *NONE, "busybox", "sh", "-c",
                       "echo one; until [ -e /go ]; do sleep 0.05; done; echo two; sleep 1000")
    assert child.stdout.readline() == b"one\n"
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=20)
    assert child.stdout.read() == b""
    kelp("exec", "c", "touch", "/go")
    until("it is logged", lambda: kelp("logs", "c").lines == ["one", "two"])


def test_another_one_attaches_to_what_goes_through_a_pipe(kelp):
    child = kelp.start("run", "-i", "--name", "c", *NONE, "busybox", "cat", stdin=subprocess.PIPE)
    until("it runs", lambda: kelp("exec", "c", "true", code=None).code == 0)
    other = kelp.start("attach", "--no-stdin", "c")
    seen = []
    threading.Thread(target=lambda: seen.extend(other.stdout), daemon=True).start()

    def both():
        child.stdin.write(b"to both\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"to both\n"
        return seen
    until("the other one is there", both)
    child.stdin.close()
    child.stdin = None
    assert child.wait(timeout=20) == 0 and other.wait(timeout=20) == 0


def test_a_container_that_closes_its_input_is_not_ended_by_what_is_typed(kelp):
    child = kelp.start("run", "-i", "--name", "c", *NONE, "busybox", "sh", "-c",
                       "exec <&-; echo closed; until [ -e /go ]; do sleep 0.05; done; echo alive; exit 5", stdin=subprocess.PIPE)
    assert child.stdout.readline() == b"closed\n"
    child.stdin.write(b"nobody reads this\n" * 10000)
    child.stdin.close()
    child.stdin = None
    kelp("exec", "c", "touch", "/go")
    assert child.stdout.read() == b"alive\n" and child.wait(timeout=20) == 5


def test_standard_output_can_be_opened_again_by_any_user(kelp):
    child = kelp.start("run", "--rm", "--user", "7", *NONE, "busybox", "sh", "-c", "echo fine >/dev/stdout; echo too >/dev/stderr")
    out, err = read_all(child)
    assert (child.wait(timeout=20), out, err) == (0, b"fine\n", b"too\n")
