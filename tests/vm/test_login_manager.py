"""A user whom logind knows, with linger and without: what is said when a container starts, and what doctor sees."""

import json
import shlex

import pytest

START = "kelp run -d --network none"
SESSION = "env XDG_SESSION_CLASS=user XDG_SESSION_TYPE=tty su -l other -c "
CRON = "setpriv --reuid other --regid other --init-groups env -i HOME=/home/other USER=other "


def login(script, front=SESSION):
    """For root: a session of the user without linger, which ends with the script."""
    words = shlex.quote("export PATH=/opt/kelp:$PATH; " + script)
    return front + (words if front == SESSION else f"bash -c {words}")


LOGOUT = "loginctl terminate-user other; while systemctl is-active -q user@1001 || [ -e /run/user/1001 ]; do sleep 0.2; done; "


@pytest.fixture
def other(run):
    """A user without linger, and what Debian delegates; gone afterwards."""
    run("loginctl disable-linger other; " + login("kelp load -q -i /opt/kelp/busybox.tar"), "root")
    yield
    run(login("kelp rm -f -a -t 0") + "; loginctl disable-linger other; " + LOGOUT, "root")


def test_without_linger_a_detached_container_is_said_to_end_at_logout(run, other):
    said = run(login(f"{START} --name c busybox sleep 1000"), "root")
    assert said.err == "kelp: warning: container c ends when you log out; to let it live: sudo loginctl enable-linger other\n"
    assert run(login("kelp run --rm --network none busybox echo in front"), "root").err == ""
    # And so it is.
    out = run(login("kelp inspect -f '{{.State.Status}}' c") + "; " + LOGOUT +
              login("kelp inspect -f '{{.State.Status}}' c"), "root").out.split()
    assert out == ["running", "exited"]
    # The command that was named, really run.
    assert run("loginctl enable-linger other", "root").err == ""
    said = run(login("kelp start c"), "root")
    assert said.err == "" and said.out == "c\n"
    assert run("sleep 11; " + login("kelp exec c echo lives"), "root").out == "lives\n"  # logind waits 10 s


@pytest.mark.parametrize("mode", ["session", "unit", "bare", "login"])
def test_with_linger_nothing_is_said(run, mode):
    assert run(f"{START} --name c busybox sleep 1000", mode).err == ""


def test_doctor_in_a_session(run, other, controllers):
    """Exit status, bus, linger and controllers, in JSON and as text, beside what the kernel's files say."""
    everything = {"cpu", "cpuset", "io", "memory", "pids"}
    for user, uid, front in (("tester", 1000, None), ("other", 1001, SESSION)):
        script = "kelp doctor --format json; s=$?; cat /sys/fs/cgroup/user.slice/user-%d.slice/user@%d.service/cgroup.controllers " \
            ">&2; exit $s" % (uid, uid)
        done = run(login(script, front), "root") if front else run(script, "session")
        answer = json.loads(done.out)
        found = {finding["Name"]: finding for finding in answer["Findings"]}
        unknown = sorted(everything - set(controllers))
        missing = sorted(everything - set(done.err.split()) - set(unknown))
        assert found["user bus"]["Verdict"] == "ok" and f"/user@{uid}.service" in found["user bus"]["Text"]
        assert found["cgroups"]["Verdict"] == "ok" and "systemd at /sys/fs/cgroup/user.slice/" in found["cgroups"]["Text"]
        assert found["linger"]["Verdict"] == ("ok" if user == "tester" else "warning")
        assert found["linger"]["Fix"] == ("" if user == "tester" else "sudo loginctl enable-linger other")
        assert found["controllers"]["Verdict"] == ("warning" if missing or unknown else "ok")
        if missing:
            assert f"not delegated: {' '.join(missing)};" in found["controllers"]["Text"]
        if unknown:
            assert f"not in this kernel: {' '.join(unknown)};" in found["controllers"]["Text"]
        if missing:
            assert "Delegate=cpu cpuset io memory pids" in found["controllers"]["Fix"]
        text = run(login("kelp doctor", front), "root") if front else run("kelp doctor")
        assert ("✓ linger " in text.out) == (user == "tester") and "✓ user bus " in text.out
        assert "✓ overlay " in text.out and answer["Level"] == "full"


def test_doctor_under_cron_without_linger(run, other):
    """No session, no manager, no bus: containers run without limits, and one command would change that."""
    run(LOGOUT, "root")
    done = run(login("kelp doctor", CRON), "root").out
    assert "! user bus " in done and "→ sudo loginctl enable-linger other, then log in again" in done and "! cgroups " in done
    assert run(login("kelp run --rm --network none busybox echo ran", CRON), "root").out == "ran\n"
    refused = run(login("kelp run --rm --network none --memory 64m busybox true", CRON), "root", status=125)
    assert "--memory cannot be enforced" in refused.err and "hint: sudo loginctl enable-linger " in refused.err
