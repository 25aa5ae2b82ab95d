"""Effects of options that the other files do not use."""

import base64
import json
import os
import shutil

import pytest

from harness import needs
from harness.waiting import until

NONE = ("--network", "none")


def test_out(kelp, place):
    assert kelp("--out", place / "out", "run", "--rm", *NONE, "busybox", "echo", "hello").out == ""
    assert (place / "out").read_text() == "hello\n"
    kelp.fails("--out", "/nowhere/out", "ps", says="/nowhere/out")


def test_events_backend_none(kelp):
    kelp("--events-backend", "none", "run", "--rm", *NONE, "busybox", "true")
    assert kelp("events", "--stream=false", "--filter", "type=container").lines == []
    kelp("--events-backend", "file", "run", "--rm", *NONE, "busybox", "true")
    assert kelp("events", "--stream=false", "--filter", "type=container").lines != []
    kelp.fails("--events-backend", "journald", "ps", says="file, none")


def test_storage_driver(kelp):
    root = "awk '$2 == \"/\" {print $3}' /proc/mounts"
    driver = kelp("--storage-driver", "overlay", "run", "--rm", *NONE, "busybox", "sh", "-c", root).text
    assert "overlay" in driver
    assert "overlay" not in kelp("--storage-driver", "vfs", "run", "--rm", *NONE, "busybox", "sh", "-c", root).text
    kelp.fails("--storage-driver", "zfs", "ps", says="overlay, vfs")


def test_storage_option(kelp, place):
    needs.need("fuse")
    needs.need("program:fuse-overlayfs")
    program = shutil.which("fuse-overlayfs")
    mounted = kelp("--storage-opt", f"overlay.mount_program={program}", "run", "--rm", *NONE, "busybox", "sh", "-c",
                   "awk '$2 == \"/\" {print $3}' /proc/mounts").text
    assert mounted == "fuse.fuse-overlayfs"
    kelp.fails("--storage-opt", "overlay.mount_program=/nothing", "run", "--rm", "busybox", "true", says="/nothing")
    kelp.fails("--storage-opt", "size=3", "run", "--rm", "busybox", "true", says="mount_program")


def test_conmon(kelp, place):
    from harness import programs
    wrapper = place / "monitor"
    wrapper.write_text(f"#!/bin/sh\necho used > {place}/used\nexec {programs.program('kelp-monitor')} \"$@\"\n")
    wrapper.chmod(0o755)
    place.chmod(0o777)
    kelp("--conmon", wrapper, "run", "--rm", *NONE, "busybox", "true")
    assert (place / "used").exists()


def test_module(kelp, place):
    (place / "module.toml").write_text('[network]\ndefault = "none"\n')
    links = kelp("--module", place / "module.toml", "run", "--rm", "busybox", "ls", "/sys/class/net").lines
    assert links == ["lo"]
    kelp.fails("--module", place / "nothing", "run", "--rm", "busybox", "true", says="nothing")


def test_tmpdir_is_runroot(kelp, place):
    kelp("--tmpdir", place / "run", "run", "-d", "--name", "c", *NONE, "busybox", "sleep", "1000")
    assert (place / "run").is_dir()
    assert kelp("--runroot", place / "run", "ps", "-q").lines != []
    kelp("--tmpdir", place / "run", "rm", "-f", "-t", "0", "c")


def test_config_names_docker_credentials(bare_kelp, password_registry, busybox_layout, place):
    name = password_registry.push(f"oci:{busybox_layout}:latest", "config:1")
    (place / "docker").mkdir()
    entry = {"auth": base64.b64encode(b"someone:secret").decode()}
    (place / "docker/config.json").write_text(json.dumps({"auths": {password_registry.address: entry}}))
    bare_kelp("pull", "-q", "--tls-verify=false", name, code=125)
    bare_kelp("--config", place / "docker", "pull", "-q", "--tls-verify=false", name)


def test_commit_config(kelp, place):
    (place / "config.json").write_text(json.dumps({"Cmd": ["echo", "from config"], "Env": ["MORE=1"], "User": "5"}))
    kelp("run", "--name", "c", *NONE, "busybox", "true")
    kelp("commit", "-q", "--config", place / "config.json", "c", "changed")
    assert kelp("run", "--rm", *NONE, "changed").text == "from config"
    assert kelp("run", "--rm", *NONE, "changed", "sh", "-c", "echo $MORE; id -u").lines == ["1", "5"]
    kelp.fails("commit", "--config", place / "nothing", "c", "x", says="nothing")


def test_update_health(kelp, place):
    kelp("create", "--name", "c", "--health-cmd", "true", *NONE, "busybox", "sleep", "1000")
    log = place / "log"
    log.mkdir()
    kelp("update", "--health-on-failure", "stop", "--health-startup-cmd", "false", "--health-startup-interval", "9s",
         "--health-startup-retries", "7", "--health-startup-success", "2", "--health-startup-timeout", "4s",
         "--health-log-destination", log, "--health-max-log-count", "3", "--health-max-log-size", "77", "c")
    config = json.loads(kelp("inspect", "c").out)[0]["Config"]
    assert config["HealthcheckOnFailureAction"] == "stop" and config["HealthLogDestination"] == str(log)
    assert config["HealthMaxLogCount"] == 3 and config["HealthMaxLogSize"] == 77
    start = config["StartupHealthCheck"]
    assert (start["Interval"], start["Timeout"], start["Successes"], start["Retries"]) == (9_000_000_000, 4_000_000_000, 2, 7)


def test_update_health_of_a_running_one(kelp):
    kelp("run", "-d", "--name", "c", "--health-cmd", "true", "--health-interval", "1h", *NONE, "busybox", "sleep", "1000")
    kelp("update", "--health-cmd", "false", "--health-retries", "1", "--health-on-failure", "kill", "c")
    kelp("healthcheck", "run", "c", code=1)
    until("killed", lambda: kelp("inspect", "-f", "{{.State.Status}}", "c").text == "exited")


@pytest.fixture
def three_descriptors(place):
    """Open files under the numbers 20, 21 and 22."""
    numbers = []
    for number in (20, 21, 22):
        path = place / f"fd{number}"
        path.write_text(f"{number}\n")
        fd = os.open(path, os.O_RDONLY)
        os.dup2(fd, number)
        os.close(fd)
        numbers.append(number)
    yield numbers
    for number in numbers:
        os.close(number)


def test_run_preserve_fd(kelp, three_descriptors):
    script = "cat <&20; cat <&21; cat <&22; ls /proc/self/fd | grep -c '^2[0-2]$'"
    result = kelp("run", "--rm", "--preserve-fd", "20,22", *NONE, "busybox", "sh", "-c", script, pass_fds=three_descriptors)
    assert result.lines[:2] == ["20", "22"]
    kelp.fails("run", "--rm", "--preserve-fd", "29", *NONE, "busybox", "true", says="29")


def test_exec_no_session(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "1000")
    assert kelp("exec", "--no-session", "c", "echo", "hello").text == "hello"
    assert kelp("inspect", "-f", "{{.ExecIDs}}", "c").text == "[]"
    kelp.fails("exec", "--no-session=false", "c", "true", says="no record")


def test_subuidname(kelp):
    needs.need("subids")
    me = kelp("unshare", "sh", "-c", "cat /proc/self/uid_map").lines
    mapped = kelp("run", "--rm", "--subuidname", os.environ.get("USER") or __import__("pwd").getpwuid(os.getuid()).pw_name, *NONE,
                  "busybox", "cat", "/proc/self/uid_map").text.split()
    count = me[1].split()[2]
    assert mapped[0] == "0" and mapped[2] == count  # root is the first subordinate id, not the caller
    kelp.fails("run", "--rm", "--subuidname", "somebody-else", "busybox", "true", says="somebody-else", hint="--subuidname")
    kelp.fails("run", "--rm", "--subgidname", "somebody-else", "--userns", "host", "busybox", "true", says="exclude")


def test_completion_prints_the_scripts(bare_kelp, place):
    from harness import programs
    for shell, name in (("bash", "kelp.bash"), ("zsh", "_kelp"), ("fish", "kelp.fish")):
        assert bare_kelp("completion", shell).out == (programs.TOP / "completions" / name).read_text()
    bare_kelp("completion", "-f", place / "script", "--no-desc", "fish")
    assert "--no-desc" in (place / "script").read_text()
    bare_kelp.fails("completion", "tcsh", says="bash, zsh and fish")
    assert "\t" not in bare_kelp("__complete", "--no-desc", "--", "ru").out


def test_hardened(kelp):
    needs.need("subids")
    script = ("id -u; id -g; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /x 2>/dev/null || echo read-only; "
              "touch /tmp/x && echo tmp; ls /sys/class/net; awk '{print $2}' /proc/self/uid_map | head -1")
    lines = kelp("run", "--rm", "--hardened", "busybox", "sh", "-c", script).lines
    assert lines[:2] == ["1000", "1000"]
    assert lines[2].split()[1].strip("0") == "" and lines[3].split()[1] == "1" and lines[4].split()[1] == "2"
    assert lines[5:8] == ["read-only", "tmp", "lo"] and lines[8] != "0"
    # Each part can be overridden.
    assert kelp("run", "--rm", "--hardened", "--user", "7", "busybox", "id", "-u").text == "7"
    assert kelp("run", "--rm", "--hardened", "--read-only=false", "--tmpfs", "/t", "--user", "0", "busybox", "touch", "/x").code == 0
    assert kelp("run", "--rm", "--hardened", "--cap-add", "CHOWN", "--user", "0", "busybox", "grep", "CapEff", "/proc/self/status"
                ).text.split()[1].strip("0") == "1"
    kelp.fails("run", "--rm", "--hardened", "-p", "8080:80", "busybox", "true", says="no network", hint="--network")
    kelp.fails("run", "--rm", "--hardened", "--privileged", "busybox", "true", says="exclude")
    kelp("create", "--hardened", "--name", "c", "busybox", "id", "-u")
    assert kelp("start", "-a", "c").text == "1000"
