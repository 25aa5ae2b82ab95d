"""`kelp logs`: parts, times, names, several containers, drivers, rotation."""

import os
import re
import time

import pytest

NONE = ("--network", "none")


def made(kelp, command, name="c", *options):
    kelp("run", "--name", name, *options, *NONE, "busybox", "sh", "-c", command, code=None)


@pytest.mark.parametrize("driver", ["k8s-file", "json-file"])
def test_streams_and_tails(kelp, driver):
    made(kelp, 'seq 1 5; echo oops >&2; printf "no end"', "c", "--log-driver", driver)
    result = kelp("logs", "c")
    assert result.out == "1\n2\n3\n4\n5\nno end" and result.err == "oops\n"
    assert kelp("logs", "--tail", "2", "c").out.endswith("no end")
    assert kelp("logs", "--tail", "1", "c").out == "no end"
    assert kelp("logs", "--tail", "0", "c").out == "" and kelp("logs", "--tail", "all", "c").out == result.out
    assert kelp("logs", "--tail", "-1", "c").out == result.out
    stamped = kelp("logs", "-t", "c").lines[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\S* 1", stamped)
    made(kelp, "echo two", "d", "--log-driver", driver)
    assert kelp("logs", "--names", "d", "c").lines[0] == "d two"  # of one alone nobody asks
    assert "\x1b[" in kelp("logs", "--color", "c").out
    assert "\x1b[" not in kelp("logs", "--color", "c", env={**kelp.env, "NO_COLOR": "1"}).out


def test_times(kelp):
    made(kelp, "echo one; sleep 1.2; echo two")
    second = kelp("logs", "-t", "c").lines[1].split()[0]
    assert kelp("logs", "--since", second, "c").out == "two\n"
    assert kelp("logs", "--since", "1h", "c").out == "one\ntwo\n"
    assert kelp("logs", "--until", "1h", "c").out == "one\ntwo\n"  # ahead
    first = kelp("logs", "-t", "c").lines[0].split()[0]
    assert kelp("logs", "--until", first, "c").out == "one\n"


def test_several_containers(kelp):
    for name in ("a", "b"):
        made(kelp, f"echo from {name}", name)
    ids = {name: kelp("inspect", "--format", "{{.Id}}", name).text[:12] for name in ("a", "b")}
    assert kelp("logs", "a", "b").lines == [f"{ids['a']} from a", f"{ids['b']} from b"]
    assert kelp("logs", "-n", "a", "b").lines == ["a from a", "b from b"]
    assert kelp("logs", "--latest").text == "from b"
    kelp.fails("logs", "a", "missing", says="no such container")


def test_following_several(kelp):
    for name in ("a", "b"):
        kelp("run", "-d", "--name", name, *NONE, "busybox", "sh", "-c",
             f"echo early {name}; while [ ! -e /go ]; do sleep 0.05; done; echo late {name}")
    child = kelp.start("logs", "-f", "-n", "a", "b")
    time.sleep(0.5)
    for name in ("a", "b"):
        kelp("exec", name, "touch", "/go", code=None)  # the container may end, and touch with it, before touch has ended
    lines = child.stdout.read().decode().splitlines()
    assert sorted(lines) == ["a early a", "a late a", "b early b", "b late b"] and child.wait(20) == 0


def test_drivers_that_keep_nothing(kelp):
    for driver in ("none", "passthrough"):
        made(kelp, "echo x", driver, "--log-driver", driver)
        kelp.fails("logs", driver, says="keeps no log")


def test_rotation_keeps_the_end(kelp):
    made(kelp, "seq 1 20000", "c", "--log-opt", "max-size=100k")
    directory = kelp.store / "containers" / kelp("inspect", "--format", "{{.Id}}", "c").text
    assert (directory / "ctr.log").stat().st_size < 200_000 and (directory / "ctr.log.1").exists()
    lines = kelp("logs", "c").lines
    assert lines[-1] == "20000" and lines == [str(n) for n in range(int(lines[0]), 20001)]


@pytest.mark.parametrize("driver", ["k8s-file", "json-file"])
def test_as_many_files_as_are_wanted(kelp, driver):
    options = ("--log-driver", driver, "--log-opt", "max-size=10k")
    made(kelp, "seq 1 2000", "all", *options, "--log-opt", "max-file=50")
    made(kelp, "seq 1 2000", "three", *options, "--log-opt", "max-file=3")
    made(kelp, "seq 1 2000", "one", *options, "--log-opt", "max-file=1")
    whole = [str(n) for n in range(1, 2001)]
    assert kelp("logs", "all").lines == whole
    for tail in (1, 399, 1200, 1999, 2000, 3000):
        assert kelp("logs", "--tail", str(tail), "all").lines == whole[-tail:], tail
    assert [line.split()[-1] for line in kelp("logs", "-t", "all").lines] == whole
    counts = {}
    for name in ("three", "one"):
        lines = kelp("logs", name).lines
        directory = kelp.store / "containers" / kelp("inspect", "--format", "{{.Id}}", name).text
        assert len(list(directory.glob("ctr.log*"))) == {"three": 3, "one": 1}[name]
        assert lines == whole[-len(lines):]
        counts[name] = len(lines)
    assert 0 < counts["one"] < 1000 < counts["three"] * 3 < 6000
    kelp.fails("create", "--log-opt", "max-file=0", *NONE, "busybox", "true", says="max-file")
    kelp.fails("create", "--log-opt", "max-size=some", *NONE, "busybox", "true", says="max-size")


def test_a_log_is_followed_over_its_files(kelp):
    kelp("run", "-d", "--name", "c", "--log-opt", "max-size=4k", "--log-opt", "max-file=100", *NONE, "busybox", "sh", "-c",
         "for n in 1 2 3 4 5 6; do seq 1 500; sleep 0.1; done")
    assert kelp("logs", "-f", "c").lines == [str(n) for n in range(1, 501)] * 6


def test_a_path_of_ones_own(kelp, place):
    made(kelp, "echo there", "c", "--log-opt", f"path={place}/own.log")
    assert "there" in (place / "own.log").read_text() and kelp("logs", "c").text == "there"


def test_long_lines_come_back_whole(kelp):
    made(kelp, "head -c 300000 /dev/zero | tr '\\0' x; echo; echo end")
    assert kelp("logs", "c").out == "x" * 300000 + "\nend\n"
    assert kelp("logs", "-t", "c").out.count("\n") == 2


def test_a_line_that_a_crash_cut(kelp):
    made(kelp, "echo whole")
    log = kelp.store / "containers" / kelp("inspect", "--format", "{{.Id}}", "c").text / "ctr.log"
    with log.open("a") as file:
        file.write("2026-01-01T00:00:00.000")
    assert kelp("logs", "c").out == "whole\n" == kelp("logs", "--tail", "5", "c").out


def test_no_journal_is_said_before_anything_is_made(kelp):
    """With one: tests/vm/test_journal.py."""
    if os.path.exists("/run/systemd/journal/socket"):
        pytest.skip("needs no-journal: here is one")
    kelp.fails("run", "--log-driver", "journald", *NONE, "busybox", "true", says="/run/systemd/journal/socket",
               hint="k8s-file")
    assert kelp("ps", "-aq").text == ""
