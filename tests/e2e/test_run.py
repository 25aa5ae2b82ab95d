"""kelp run and kelp create: what each option does inside."""

import json
import os
import pathlib
import signal
import subprocess

import pytest

from harness import images, needs, programs
from harness.waiting import until

NONE = ("--network", "none")


def run(kelp, *options_and_command, options=(), **more):
    return kelp("run", "--rm", *NONE, *options, "busybox", *options_and_command, **more)


# --- exit status -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("code", [0, 1, 2, 42, 125, 126, 127, 200, 255])
def test_the_exit_status_is_the_containers(kelp, code):
    run(kelp, "sh", "-c", f"exit {code}", code=code)


def test_death_by_signal_is_128_and_its_number(kelp):
    run(kelp, "sh", "-c", "sh -c 'kill -9 $$'; exit $?", code=137)


def test_a_command_that_is_not_there_is_127(kelp):
    result = run(kelp, "no-such-command", code=127)
    assert "no-such-command" in result.err


def test_a_command_that_cannot_be_invoked_is_126(kelp):
    result = run(kelp, "/etc/passwd", code=126)
    assert "/etc/passwd" in result.err


@pytest.mark.parametrize("options, code", (
    (("--ulimit", "nofile=99999999:99999999"), 126), (("-v", "/etc/passwd:/etc"), 126), (("--user", "70000"), 126),
    (("--sysctl", "net.ipv4.nothing=1"), 127), (("--network", "ns:/etc/passwd"), 126), (("--ipc", "ns:/missing"), 125)))
def test_what_the_runtime_cannot_start_is_126_or_127(kelp, options, code):
    for background in ((), ("-d",)):
        kelp.fails("run", "--rm", *background, *(() if "--network" in options else NONE), *options, "busybox", "true", code=code)


def test_an_empty_command_is_not_found(kelp):
    run(kelp, "", code=127)
    kelp("create", "--name", "c", *NONE, "busybox", "")
    for words in (("start",), ("start", "-a"), ("restart",), ("init",)):  # 126 and 127 are of run alone
        kelp.fails(*words, "c", says="not found")


# --- streams ---------------------------------------------------------------------------------------------------------

def test_stdout_and_stderr_stay_apart(kelp):
    result = run(kelp, "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")


def test_stdin_reaches_the_container_and_its_end_closes_it(kelp):
    assert run(kelp, "cat", options=["-i"], stdin="line 1\nline 2\n").out == "line 1\nline 2\n"


def test_without_i_stdin_is_empty(kelp):
    assert run(kelp, "cat", stdin="never read").out == ""


def test_a_megabyte_passes_unchanged(kelp):
    data = bytes(range(256)) * 4096
    done = subprocess.run(kelp.argv("run", "--rm", "-i", *NONE, "busybox", "cat"), input=data, capture_output=True,
                          env=kelp.env, timeout=60)
    assert done.stdout == data


def test_a_reader_that_goes_away_ends_nothing_badly(kelp):
    done = subprocess.run(["sh", "-c", '"$0" run --rm --network none busybox yes | head -n 1', kelp.path],
                          capture_output=True, text=True, env=kelp.env, timeout=60)
    assert done.stdout == "y\n"


# --- process ---------------------------------------------------------------------------------------------------------

def test_environment(kelp, place):
    file = place / "env"
    file.write_text("# comment\nFROM_FILE=a b\nINHERITED\n")
    out = run(kelp, "env", options=["-e", "GIVEN=x=y", "-e", "FROM_CALLER", "--env-file", file],
              env={"FROM_CALLER": "caller", "INHERITED": "yes", "NOT_PASSED": "no"}).out
    for line in ("GIVEN=x=y", "FROM_CALLER=caller", "FROM_FILE=a b", "INHERITED=yes", "container=podman", "HOME=/root",
                 "PATH=/usr/sbin:/usr/bin:/sbin:/bin"):
        if not line.startswith("container="):
            assert line in out.splitlines()
    assert "NOT_PASSED" not in out and "container=" in out


def test_workdir(kelp):
    assert run(kelp, "pwd", options=["-w", "/home/app"]).text == "/home/app"
    assert "/not/there" in run(kelp, "pwd", options=["-w", "/not/there"], code=126).err


def test_the_workdir_of_an_image_is_made(bare_kelp, place):
    bare_kelp("load", "-q", "-i", images.busybox_image(config={"WorkingDir": "/made/here"}).write_archive(
        place / "i.tar", "localhost/wd:1"))
    assert bare_kelp("run", "--rm", *NONE, "wd:1", "pwd").text == "/made/here"


@pytest.mark.parametrize("user,expected", [
    ("app", [1000, 1000, 2000]),
    ("1000", [1000, 1000, 2000]),
    ("1000:1", [1000, 1]),
    ("app:extra", [1000, 2000]),
    ("4242", [4242, 0]),
])
def test_user(kelp, user, expected):
    needs.need("subids")
    out = [int(word) for word in run(kelp, "sh", "-c", "id -u; id -g; id -G", options=["-u", user]).out.split()]
    assert [*out[:2], *sorted(set(out[2:]) - {out[1]})] == expected


def test_the_primary_group_is_among_the_others(kelp):
    needs.need("subids")
    def groups(*options):
        return run(kelp, "grep", "Groups:", "/proc/self/status", options=options).out.split()[1:]
    assert groups() == []
    assert groups("-u", "app") == ["1000", "2000"]
    assert groups("-u", "5:6") == ["6"]
    assert groups("-u", "5:6", "--group-add", "33") == ["6", "33"]


def test_ids_that_the_image_does_not_know_have_names(kelp):
    needs.need("subids")
    out = run(kelp, "sh", "-c", "grep :5: /etc/passwd; grep :77: /etc/group", options=["-u", "5:77"]).lines
    assert out == ["5:*:5:77:container user:/:/bin/sh", "77:x:77:5"]


def test_ipc_of_the_host(kelp):
    assert run(kelp, "readlink", "/proc/self/ns/ipc", options=["--ipc", "host"]).text == os.readlink("/proc/self/ns/ipc")


def test_home_follows_the_user(kelp):
    needs.need("subids")
    assert run(kelp, "sh", "-c", "echo $HOME", options=["-u", "app"]).text == "/home/app"


def test_entrypoint(kelp):
    assert run(kelp, "two", options=["--entrypoint", "echo"]).text == "two"
    assert run(kelp, "three", options=["--entrypoint", '["echo", "one two"]']).text == "one two three"


def test_hostname(kelp):
    assert run(kelp, "hostname", options=["--hostname", "kelp-host"]).text == "kelp-host"


def test_default_hostname_is_the_short_id(kelp):
    kelp("create", "--name", "named", *NONE, "busybox", "hostname")
    container = json.loads(kelp("inspect", "named").out)[0]["Id"]
    assert kelp("start", "-a", "named").text == container[:12]


def test_init_reaps(kelp):
    out = run(kelp, "sh", "-c", "cat /proc/1/comm; ps -o pid,comm", options=["--init"]).lines
    assert out[0] != "sh"


def test_ulimit(kelp):
    assert run(kelp, "sh", "-c", "ulimit -n; ulimit -Hn", options=["--ulimit", "nofile=512:1024"]).lines == ["512", "1024"]


def test_sysctl(kelp):
    assert run(kelp, "cat", "/proc/sys/kernel/msgmax", options=["--sysctl", "kernel.msgmax=9000"]).text == "9000"


def test_shm_size(kelp):
    line = run(kelp, "df", "-k", "/dev/shm", options=["--shm-size", "8m"]).lines[-1]
    assert line.split()[1] == "8192"


# --- isolation -------------------------------------------------------------------------------------------------------

def test_it_is_alone(kelp):
    out = run(kelp, "sh", "-c", "echo $$; ls /proc | grep -c '^[0-9]'; ls /sys/class/net").lines
    assert out[0] == "1" and int(out[1]) <= 4 and out[2:] == ["lo"]


def test_namespaces_are_its_own(kelp):
    inside = run(kelp, "sh", "-c", "for n in mnt pid net ipc uts user cgroup; do readlink /proc/self/ns/$n; done").lines
    host = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup")]
    assert len(inside) == 7 and not set(inside) & set(host)


def _capabilities(kelp, *options):
    out = run(kelp, "grep", "CapEff", "/proc/self/status", options=options).out
    return int(out.split()[1], 16)


def test_capabilities(kelp):
    default = _capabilities(kelp)
    # chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service sys_chroot setfcap, as the peer has
    assert default == sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31))
    assert _capabilities(kelp, "--cap-drop", "all") == 0
    assert _capabilities(kelp, "--cap-drop", "all", "--cap-add", "NET_ADMIN") == 1 << 12
    assert _capabilities(kelp, "--cap-add", "cap_sys_admin") == default | 1 << 21
    assert _capabilities(kelp, "--privileged") > default


def test_an_ordinary_user_has_no_capabilities(kelp):
    needs.need("subids")
    assert _capabilities(kelp, "-u", "app") == 0


def test_seccomp_and_no_new_privileges(kelp):
    def status(*options):
        out = run(kelp, "grep", "-E", "^(Seccomp|NoNewPrivs):", "/proc/self/status", options=options).out
        return dict(line.split(":\t") for line in out.splitlines())
    assert status() == {"Seccomp": "2", "NoNewPrivs": "0"}
    assert status("--security-opt", "seccomp=unconfined")["Seccomp"] == "0"
    assert status("--security-opt", "no-new-privileges")["NoNewPrivs"] == "1"
    assert status("--privileged")["Seccomp"] == "0"


def test_masked_and_read_only_paths(kelp):
    assert run(kelp, "sh", "-c", "cat /proc/kcore | wc -c; cat /proc/keys | wc -c; ls /sys/firmware | wc -l").lines == \
        ["0", "0", "0"]
    run(kelp, "sh", "-c", "echo x > /proc/sysrq-trigger", code=1)
    run(kelp, "sh", "-c", "echo x > /proc/sys/kernel/domainname", code=1)


def test_devices(kelp):
    out = run(kelp, "sh", "-c", "ls /dev").out.split()
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd", "stdin", "stdout",
            "stderr"} <= set(out)
    assert not {"sda", "vda", "mem", "kmsg"} & set(out)


def test_device_option(kelp):
    needs.need("fuse")
    assert run(kelp, "sh", "-c", "test -c /dev/fuse && echo there", options=["--device", "/dev/fuse"]).text == "there"
    assert run(kelp, "sh", "-c", "test -c /dev/other && echo there",
               options=["--device", "/dev/fuse:/dev/other:r"]).text == "there"


def test_the_container_cannot_write_kelps_own_program(kelp):
    run(kelp, "sh", "-c", "exe=$(readlink /proc/1/exe); echo x > /proc/1/exe", code=1)
    kelp("--version")


# --- root file system ------------------------------------------------------------------------------------------------

def test_root_is_writable_and_its_own(kelp):
    assert run(kelp, "sh", "-c", "echo mine > /file; cat /file").text == "mine"
    run(kelp, "cat", "/file", code=1)


def test_read_only(kelp):
    result = run(kelp, "sh", "-c", "touch /file; echo $?; touch /tmp/x && touch /dev/shm/y && touch /run/z && echo tmp",
                 options=["--read-only"])
    assert result.lines == ["1", "tmp"] and "Read-only" in result.err


def test_read_only_without_tmpfs(kelp):
    run(kelp, "touch", "/tmp/file", options=["--read-only", "--read-only-tmpfs=false"], code=1)


def test_owners_of_the_image(kelp):
    needs.need("subids")
    assert run(kelp, "stat", "-c", "%u:%g", "/home/app/owned", "/etc/passwd").lines == ["1000:1000", "0:0"]


def test_chown_and_switching_user(kelp):
    needs.need("subids")
    assert run(kelp, "sh", "-c", "touch /f; chown 1000:2000 /f; stat -c %u:%g /f; su app -c id").lines[0] == "1000:2000"


def test_twenty_layers(bare_kelp, twenty_layers_archive):
    bare_kelp("load", "-q", "-i", twenty_layers_archive)
    assert bare_kelp("run", "--rm", *NONE, "layers", "sh", "-c", "ls /layers | wc -l").text == "19"


# --- names, files, clean-up ------------------------------------------------------------------------------------------

def test_name_and_conflict(kelp):
    kelp("create", "--name", "taken", *NONE, "busybox", "true")
    kelp.fails("create", "--name", "taken", *NONE, "busybox", "true", says="taken.*in use")
    kelp("create", "--name", "taken", "--replace", *NONE, "busybox", "true")
    assert len(kelp("ps", "-aq").lines) == 1


def test_generated_names_have_two_words(kelp):
    kelp("create", *NONE, "busybox", "true")
    name = kelp("ps", "-a", "--format", "{{.Names}}").text
    assert "_" in name


def test_cidfile(kelp, place):
    file = place / "cid"
    kelp("run", "-d", "--cidfile", file, *NONE, "busybox", "true")
    assert file.read_text().strip() == kelp("ps", "-aq", "--no-trunc").text
    kelp.fails("run", "--cidfile", file, *NONE, "busybox", "true", says="exists|cid")


def test_rm_leaves_nothing(kelp):
    run(kelp, "true")
    assert kelp("ps", "-aq").text == ""


def test_without_rm_it_stays_with_its_exit_status(kelp):
    kelp("run", "--name", "ended", *NONE, "busybox", "sh", "-c", "exit 7", code=7)
    state = json.loads(kelp("inspect", "ended").out)[0]["State"]
    assert (state["Status"], state["ExitCode"], state["Running"]) == ("exited", 7, False)


def test_labels(kelp):
    kelp("create", "--name", "labelled", "--label", "a=b", "-l", "c", *NONE, "busybox", "true")
    assert json.loads(kelp("inspect", "labelled").out)[0]["Config"]["Labels"] | {"a": "b", "c": ""} == \
        json.loads(kelp("inspect", "labelled").out)[0]["Config"]["Labels"]
    assert kelp("ps", "-aq", "--filter", "label=a=b").text != ""
    assert kelp("ps", "-aq", "--filter", "label=a=x").text == ""


def test_detached_prints_the_id(kelp):
    out = kelp("run", "-d", "--name", "back", *NONE, "busybox", "sleep", "100").text
    assert len(out) == 64 and out == kelp("inspect", "--format", "{{.Id}}", "back").text


def test_image_config_is_used(bare_kelp, place):
    config = {"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo $WHO in $PWD"], "Env": ["WHO=image", "PATH=/bin"],
              "WorkingDir": "/home/app"}
    bare_kelp("load", "-q", "-i", images.busybox_image(config=config).write_archive(place / "i.tar", "localhost/conf:1"))
    assert bare_kelp("run", "--rm", *NONE, "conf:1").text == "image in /home/app"
    assert bare_kelp("run", "--rm", *NONE, "-e", "WHO=me", "conf:1", "echo only $WHO").text == "only me"


# --- limits ----------------------------------------------------------------------------------------------------------

def test_limits_hold(kelp):
    needs.need("cgroup-limits")
    out = run(kelp, "sh", "-c", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max",
              options=["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"]).lines
    assert out == [str(64 << 20), "50", "50000 100000"]


def test_a_limit_that_cannot_be_enforced_fails_with_the_reason(kelp):
    if needs.probe("cgroup-limits")[0]:
        needs.skip("no-cgroup-limits")
    kelp.fails("run", "--rm", *NONE, "--memory", "64m", "busybox", "true", says="memory", hint=".")


def test_zero_asks_for_no_limit(kelp):
    run(kelp, "true", options=["--memory", "0", "--cpus", "0", "--pids-limit", "0"])


def test_a_limit_nobody_asked_for_never_warns(kelp):
    assert run(kelp, "true").err == ""


# --- terminal --------------------------------------------------------------------------------------------------------

def test_a_terminal(kelp):
    terminal = kelp.terminal("run", "--rm", "-it", *NONE, "busybox", "sh", size=(30, 100))
    terminal.expect("# ")
    terminal.type("tty; stty size; echo done-$((1+1))\n")
    terminal.expect("/dev/pts/0\r\n30 100\r\ndone-2")
    terminal.resize(40, 120)
    os.kill(terminal.pid, signal.SIGWINCH)
    until("the new size is seen inside", lambda: _size(terminal) == "40 120")
    terminal.type("exit 5\n")
    assert terminal.wait() == 5


def _size(terminal):
    terminal.type("stty size; echo si-''ze\n")
    return terminal.expect("(\\d+ \\d+)\r\nsi-ze").group(1)


def test_ctrl_c_reaches_the_foreground_process(kelp):
    terminal = kelp.terminal("run", "--rm", "-it", *NONE, "busybox", "sh", "-c", "trap 'echo caught; exit 9' INT; "
                             "echo ready; while :; do sleep 0.1; done")
    terminal.expect("ready")
    terminal.type("\x03")
    terminal.expect("caught")
    assert terminal.wait() == 9


@pytest.mark.parametrize("options", [(), ("-i",)], ids=["plain", "interactive"])
def test_ctrl_c_on_a_terminal_that_the_container_has_not(kelp, options):
    """Without -t the terminal's line discipline makes the signal, for kelp, which passes it on."""
    terminal = kelp.terminal("run", "--rm", *options, *NONE, "busybox", "sh", "-c",
                             "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done")
    terminal.expect("ready")
    terminal.type("\x03")
    terminal.expect("caught")
    assert terminal.wait() == 9


def test_ctrl_c_ends_what_does_not_catch_it(kelp):
    """As a process that the terminal's signal ends: 128 + SIGINT. The init of a container gets only what it catches."""
    terminal = kelp.terminal("run", "--rm", "--init", *NONE, "busybox", "sh", "-c", "echo ready; exec sleep 1000")
    terminal.expect("ready")
    terminal.type("\x03")
    assert terminal.wait() == 130


def test_the_terminal_is_as_before(kelp):
    terminal = programs.Terminal(["sh", "-c", f"stty -a > before; {kelp.path} run --rm -it --network none busybox true; "
                                  "stty -a > after; cmp before after && echo same"], kelp.env, kelp.dir, (24, 80))
    kelp.children.append(terminal)
    terminal.expect("same")
    assert terminal.wait() == 0


def test_detach_keys(kelp):
    terminal = kelp.terminal("run", "-it", "--name", "away", *NONE, "busybox", "sh")
    terminal.expect("# ")
    terminal.type("\x10\x11")
    assert terminal.wait() == 0
    assert kelp("ps", "--format", "{{.Names}}").text == "away"
    again = kelp.terminal("attach", "--detach-keys", "ctrl-x,y", "away")
    again.type("echo back-''again\n")
    again.expect("back-again")
    again.type("\x18y")
    assert again.wait() == 0
    assert kelp("ps", "--format", "{{.Names}}").text == "away"


def test_t_without_a_terminal(kelp):
    assert run(kelp, "tty", options=["-t"]).text == "/dev/pts/0"


# --- signals ---------------------------------------------------------------------------------------------------------

TRAPS = "trap 'echo term; exit 11' TERM; trap 'echo usr1; exit 12' USR1; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize("number,word,code", [(signal.SIGTERM, "term", 11), (signal.SIGUSR1, "usr1", 12)])
def test_signals_are_passed_on(kelp, number, word, code):
    child = kelp.start("run", "--rm", *NONE, "busybox", "sh", "-c", TRAPS)
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(number)
    assert child.stdout.readline().decode().strip() == word
    assert child.wait(timeout=20) == code


def test_sig_proxy_off(kelp):
    child = kelp.start("run", "--name", "stays", "--sig-proxy=false", *NONE, "busybox", "sh", "-c", TRAPS)
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGTERM)
    child.wait(timeout=20)
    assert kelp("ps", "--format", "{{.Names}}").text == "stays"


def test_killing_the_cli_leaves_the_container(kelp):
    child = kelp.start("run", "--name", "on", *NONE, "busybox", "sh", "-c", "echo ready; sleep 100")
    assert child.stdout.readline() == b"ready\n"
    child.kill()
    child.wait()
    assert kelp("exec", "on", "echo", "alive").text == "alive"


def test_pull_never_and_unknown_image(kelp):
    kelp.fails("run", "--rm", "--pull", "never", "localhost/nothing:1", "true", says="nothing")
