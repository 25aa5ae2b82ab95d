"""Health checks: the monitor probes, `healthcheck run` asks, ps and inspect show."""

import json
import os
import time

from harness import images, programs, waiting
from harness.waiting import until

NONE = ("--network", "none")
SLEEP = ("busybox", "sleep", "1000")


def health(kelp, name="c"):
    return json.loads(kelp("inspect", name).out)[0]["State"]["Health"]


def status(kelp, name="c"):
    return kelp("inspect", "--format", "{{.State.Health.Status}}", name).text


def run(kelp, *options):
    return kelp("run", "-d", "--name", "c", *NONE, *options, *SLEEP)


def test_it_becomes_healthy(kelp):
    run(kelp, "--health-cmd", "echo fine", "--health-interval", "100ms")
    until("healthy", lambda: status(kelp) == "healthy")
    seen = health(kelp)
    assert seen["FailingStreak"] == 0
    assert seen["Log"][0]["ExitCode"] == 0 and seen["Log"][0]["Output"] == "fine\n"
    assert seen["Log"][0]["Start"] < seen["Log"][0]["End"]
    assert "(healthy)" in kelp("ps").out
    assert kelp("ps", "-q", "--filter", "health=healthy").text and not kelp("ps", "-q", "--filter", "health=unhealthy").text
    assert kelp("wait", "--condition", "healthy", "c").text == "-1"


def test_a_new_life_begins_with_starting(kelp, place):
    """Whoever sees it running reads neither nothing nor the health of the life before, which `wait` would believe: looked
    at while the monitor stands still in front of each of the system calls around its start."""
    programs_dir = place / "programs"
    programs_dir.mkdir()
    for name in ("kelp", "kelp-oci", "kelp-image"):
        (programs_dir / name).symlink_to(programs.program(name))
    monitor, fifo = programs_dir / "kelp-monitor", place / "fifo"
    run(kelp, "--health-cmd", "true", "--health-interval", "disable")

    def held(starter):
        """A descriptor that holds the monitor; -1: it makes fewer calls before it rests."""
        since = None
        while True:
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads from it
                since = since or (starter.poll() is not None and waiting.Limit(1))
                if since and since.over():
                    return -1
            time.sleep(0.002)

    def look(n):
        """Status and health of the next life, the monitor held in front of its n-th call; "" where it rests before."""
        if "running" in kelp("inspect", "--format", "{{.State.Status}}", "c").text:
            kelp("healthcheck", "run", "c")
            assert status(kelp) == "healthy"
            kelp("kill", "c")
            kelp("wait", "c")
        monitor.unlink(missing_ok=True)
        monitor.write_text(f'#!/bin/sh\nexec {programs.payload("kill_at")} /dev/null {n} {programs.program("kelp-monitor")} "$@"\n')
        monitor.chmod(0o755)
        os.mkfifo(fifo)
        starter = kelp.start("start", "c", env={"KELP_LIBEXEC": str(programs_dir), "KILL_AT_HOLD": str(fifo)})
        holding, seen = held(starter), ""
        if holding >= 0:
            seen = kelp("inspect", "--format", "{{.State.Status}}/{{.State.Health.Status}}", "c").text
            os.close(holding)
        fifo.unlink()  # nothing is held there any more
        assert starter.wait(60) == 0, starter.stderr.read()
        return seen

    low, high = 0, 32
    while (seen := look(high)) and not seen.startswith("running"):
        low, high = high, high + 32
    while high - low > 1:
        middle = (low + high) // 2
        seen = look(middle)
        low, high = (low, middle) if not seen or seen.startswith("running") else (middle, high)
    # One life differs from the next by a call or two.
    seen = [look(high - 4 + more) for more in range(20)]
    running = {one for one in seen if one.startswith("running")}
    assert running == {"running/starting"} and sum(one.startswith("running") for one in seen) >= 5, seen


def test_it_becomes_unhealthy_after_the_retries(kelp):
    run(kelp, "--health-cmd", "echo bad; exit 3", "--health-interval", "100ms", "--health-retries", "2")
    until("unhealthy", lambda: status(kelp) == "unhealthy")
    seen = health(kelp)
    assert seen["FailingStreak"] >= 2 and {probe["ExitCode"] for probe in seen["Log"]} == {3}
    kelp("exec", "c", "true")  # nothing else happens by default
    statuses = kelp("events", "--stream=false", "--filter", "event=health_status", "--format", "{{.HealthStatus}}").lines
    assert statuses[:2] == ["starting", "unhealthy"]


def test_failures_of_the_start_period_do_not_count(kelp):
    run(kelp, "--health-cmd", "false", "--health-interval", "100ms", "--health-retries", "1", "--health-start-period", "1h")
    until("three probes", lambda: len(health(kelp)["Log"]) >= 3)
    assert status(kelp) == "starting" and health(kelp)["FailingStreak"] == 0


def test_a_probe_that_hangs_is_ended(kelp):
    run(kelp, "--health-cmd", "echo slow; sleep 77", "--health-interval", "100ms", "--health-timeout", "300ms",
        "--health-retries", "1")
    until("unhealthy", lambda: status(kelp) == "unhealthy")
    assert "timed out" in health(kelp)["Log"][0]["Output"] and "slow" in health(kelp)["Log"][0]["Output"]


def test_asked_for_only(kelp):
    run(kelp, "--health-cmd", "test -e /ready", "--health-interval", "disable", "--health-retries", "1")
    assert status(kelp) == "starting"
    assert kelp("healthcheck", "run", "c", code=1).text == "unhealthy" and status(kelp) == "unhealthy"
    kelp("exec", "c", "touch", "/ready")
    assert kelp("healthcheck", "run", "c").text == "" and status(kelp) == "healthy"
    assert [probe["ExitCode"] for probe in health(kelp)["Log"]] == [1, 0]


def test_a_program_that_is_missing(kelp):
    run(kelp, "--health-cmd", '["/missing"]', "--health-interval", "disable", "--health-retries", "1")
    assert kelp("healthcheck", "run", "c", code=1).text == "unhealthy"
    assert health(kelp)["Log"][0]["ExitCode"] == 127 and "/missing" in health(kelp)["Log"][0]["Output"]


def test_refusals(kelp):
    kelp("run", "-d", "--name", "plain", *NONE, *SLEEP)
    kelp.fails("healthcheck", "run", "plain", says="no defined healthcheck")
    kelp.fails("healthcheck", "run", "nobody", says="no such container")
    kelp("create", "--name", "c", *NONE, "--health-cmd", "true", *SLEEP)
    kelp.fails("healthcheck", "run", "c", says="not running")
    kelp.fails("run", *NONE, "--no-healthcheck", "--health-cmd", "true", *SLEEP, says="exclude")
    kelp.fails("run", *NONE, "--health-startup-interval", "1s", *SLEEP, says="health-startup-cmd")
    kelp.fails("run", *NONE, "--health-on-failure", "cry", *SLEEP, says="cry")


def test_bad_health_kills(kelp):
    run(kelp, "--health-cmd", "false", "--health-interval", "100ms", "--health-retries", "1", "--health-on-failure", "kill")
    assert kelp("wait", "c").text == "137"


def test_bad_health_stops(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "--restart", "always", "--health-cmd", "test ! -e /bad", "--health-interval",
         "100ms", "--health-retries", "1", "--health-on-failure", "stop", "busybox", "sh", "-c",
         "trap 'exit 9' TERM; while :; do sleep 0.05; done")
    until("healthy", lambda: status(kelp) == "healthy")
    kelp("exec", "c", "touch", "/bad")
    until("stopped", lambda: kelp("inspect", "--format", "{{.State.Status}}{{.State.ExitCode}}", "c").text == "exited9")


def test_bad_health_restarts_without_a_policy(kelp):
    run(kelp, "--health-cmd", "test -e /again", "--health-interval", "200ms", "--health-retries", "1",
        "--health-on-failure", "restart", "--stop-timeout", "0")
    until("restarted", lambda: int(kelp("inspect", "--format", "{{.RestartCount}}", "c").text) >= 1)
    until("exec works", lambda: kelp("exec", "c", "touch", "/again", code=None).code == 0)
    until("healthy", lambda: status(kelp) == "healthy")


def test_start_up_check(kelp):
    run(kelp, "--health-cmd", "exit 5", "--health-interval", "1h", "--health-startup-cmd", "test -e /up",
        "--health-startup-interval", "100ms", "--health-startup-success", "2")
    until("some failures", lambda: len(health(kelp)["Log"]) >= 2)
    assert status(kelp) == "starting"
    kelp("exec", "c", "touch", "/up")
    until("started", lambda: status(kelp) == "healthy")
    assert [probe["ExitCode"] for probe in health(kelp)["Log"]][-2:] == [0, 0]
    assert kelp("healthcheck", "run", "c", code=1).text == "unhealthy"  # the real check by now
    assert health(kelp)["Log"][-1]["ExitCode"] == 5


def test_start_up_check_that_never_succeeds(kelp):
    run(kelp, "--health-cmd", "true", "--health-startup-cmd", "false", "--health-startup-interval", "100ms",
        "--health-startup-retries", "2")
    until("restarted", lambda: int(kelp("inspect", "--format", "{{.RestartCount}}", "c").text) >= 1)


def test_log_options(kelp, place):
    (place / "logs").mkdir()
    run(kelp, "--health-cmd", "echo 0123456789", "--health-interval", "50ms", "--health-max-log-count", "2",
        "--health-max-log-size", "4", "--health-log-destination", place / "logs")
    until("three probes", lambda: len(kelp("events", "--stream=false", "--filter", "event=health_status").lines) >= 3)
    seen = health(kelp)
    assert [probe["Output"] for probe in seen["Log"]] == ["0123", "0123"]
    copy, = (place / "logs").iterdir()
    assert len(json.loads(copy.read_text())["Log"]) == 2


def test_the_image_knows(kelp, place):
    image = images.busybox_image(config={
        "Healthcheck": {"Test": ["CMD", "sh", "-c", "exit $CODE"], "Interval": 100_000_000, "Retries": 1}})
    kelp("load", "-q", "-i", image.write_archive(place / "h.tar", "localhost/checked:latest"))
    start = ("run", "-d", *NONE, "--rm")
    kelp(*start, "--name", "good", "-e", "CODE=0", "checked", "sleep", "1000")
    kelp(*start, "--name", "bad", "-e", "CODE=1", "checked", "sleep", "1000")
    kelp(*start, "--name", "patient", "-e", "CODE=1", "--health-retries", "100000", "checked", "sleep", "1000")
    kelp(*start, "--name", "off", "--no-healthcheck", "checked", "sleep", "1000")
    until("good", lambda: status(kelp, "good") == "healthy")
    until("bad", lambda: status(kelp, "bad") == "unhealthy")
    until("patient", lambda: health(kelp, "patient")["FailingStreak"] > 1)
    assert status(kelp, "patient") == "starting" and status(kelp, "off") == ""
    config = json.loads(kelp("inspect", "patient").out)[0]["Config"]["Healthcheck"]
    assert config["Retries"] == 100000 and config["Interval"] == 100_000_000
