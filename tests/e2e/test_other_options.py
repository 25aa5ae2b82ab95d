"""Options that have no place of their own elsewhere, each by its effect. See test_option_effects.py."""

import json
import os
import re
import stat
import subprocess
import tarfile

import pytest

from harness import images, needs
from harness.waiting import until

NONE = ("--network", "none")
PLAIN = "--tls-verify=false"


def run(kelp, *words, **more):
    return kelp("run", "--rm", *NONE, *words, **more)


def sleeper(kelp, name, *options):
    return kelp("run", "-d", "--name", name, *NONE, *options, "busybox", "sleep", "1000").text


def state(kelp, name):
    return kelp("inspect", "--format", "{{.State.Status}}", name).text


# ---- run and create

@pytest.mark.parametrize("verb", ["run", "create"])
def test_what_a_container_is_told_of_its_surroundings(kelp, place, verb):
    (place / "labels").write_text("one=1\n# no label\ntwo=2\n")
    kelp(verb, "--name", "c", *NONE, "--label-file", place / "labels", "--annotation", "org.example=yes", "busybox", "true")
    labels = json.loads(kelp("inspect", "--format", "{{json .Config.Labels}}", "c").out)
    assert (labels["one"], labels["two"]) == ("1", "2") and len(labels) == 2
    assert "org.example" in kelp("inspect", "c").out
    kelp("start", "-a", "c")
    bundle = json.loads((kelp.store / "containers" / kelp("inspect", "--format", "{{.Id}}", "c").text / "config.json").read_text())
    assert bundle["annotations"]["org.example"] == "yes"


def test_pidfile(kelp, place):
    sleeper(kelp, "c", "--pidfile", place / "pid")
    assert (place / "pid").read_text() == kelp("inspect", "--format", "{{.State.Pid}}", "c").text


def test_requires_starts_what_is_needed_first(kelp):
    kelp("create", "--name", "base", *NONE, "busybox", "sleep", "1000")
    kelp("create", "--name", "top", "--requires", "base", *NONE, "busybox", "sleep", "1000")
    kelp("start", "top")
    assert state(kelp, "base") == "running"
    kelp.fails("create", *NONE, "--requires", "nobody", "busybox", "true", says="nobody")
    kelp("stop", "-t", "0", "--all")
    kelp.fails("rm", "base", says="dependent")
    assert set(kelp("rm", "--depend", "base").lines) >= {"base"} and kelp("ps", "-aq").text == ""


def test_a_container_whose_namespaces_are_joined_is_started_first(kelp):
    kelp("create", "--name", "base", *NONE, "busybox", "sleep", "1000")
    kelp("create", "--name", "top", "--pid", "container:base", *NONE, "busybox", "sleep", "1000")
    kelp("rename", "base", "ground")
    kelp("start", "top")
    assert state(kelp, "ground") == "running"
    kelp("stop", "-t", "0", "--all")
    assert kelp("run", "--rm", "--network", "container:ground", "busybox", "echo", "joined").text == "joined"
    assert state(kelp, "ground") == "running"


def test_a_container_that_cannot_start_does_not_stay(kelp):
    """With --rm, also when it fails before there is a monitor."""
    kelp("create", "--name", "bad", *NONE, "busybox", "no-such-program")
    for options in (("--requires", "bad"), ("-w", "/missing"), ("--pidfile", "/missing/pid"), ("--tmpfs", "/x:size=x"),
                    ("--uts", "host", "-h", "x"), ("--detach-keys", "nonsense"), ("-d", "-w", "/missing")):
        kelp.fails("run", "--rm", *NONE, "-v", "/anonymous", *options, "busybox", "true", code=None)
        assert kelp("ps", "-a", "--format", "{{.Names}}").lines == ["bad"], options
        assert kelp("volume", "ls", "-q").text == "", options


def test_ports_without_a_network_of_their_own_are_told_of(kelp):
    for network in (NONE, ("--network", "host")):
        assert "no port is published" in kelp("run", "--rm", *network, "-p", "18080:80", "busybox", "true").err


def test_environment_of_the_caller(kelp):
    env = {"ONE_OF_MINE": "yes", "https_proxy": "http://proxy.invalid:1"}
    look = ("busybox", "sh", "-c", "echo $ONE_OF_MINE,$https_proxy")
    assert run(kelp, *look, env=env).text == ",http://proxy.invalid:1"
    assert run(kelp, "--env-host", *look, env=env).text == "yes,http://proxy.invalid:1"
    assert run(kelp, "--http-proxy=false", *look, env=env).text == ","


def test_no_variable_of_the_image(kelp, place):
    image = images.busybox_image(config={"Env": ["PATH=/bin", "OF_THE_IMAGE=1"]})
    kelp("load", "-q", "-i", image.write_archive(place / "e.tar", "localhost/env:1"))
    assert "OF_THE_IMAGE=1" in run(kelp, "env:1", "/bin/env").lines
    assert "OF_THE_IMAGE=1" not in run(kelp, "--unsetenv-all", "env:1", "/bin/env").lines


def test_init_path(kelp):
    # The program of the option becomes process 1; ours names itself there.
    ours = run(kelp, "--init", "busybox", "cat", "/proc/1/cmdline").out
    assert ours.split("\0")[0] not in ("cat", "/bin/cat")
    kelp.fails("run", "--rm", *NONE, "--init", "--init-path", "/nothing/init", "busybox", "true", says="/nothing/init")
    program = os.path.join(os.path.dirname(kelp.path), "kelp-init")
    assert run(kelp, "--init", "--init-path", program, "busybox", "cat", "/proc/1/cmdline").out == ours


def test_timeout_ends_it(kelp):
    kelp("run", "--name", "late", *NONE, "--timeout", "1", "busybox", "sleep", "1000", code=255)
    assert kelp("inspect", "--format", "{{.State.ExitCode}}", "late").text == "255"


def test_lines_for_the_account_files(kelp):
    out = run(kelp, "--passwd-entry", "me:*:1234:1234:my own:/home/me:/bin/sh", "--group-entry", "us:x:1234:me",
              "--user", "1234:1234", "busybox", "sh", "-c", "id -un; id -gn; grep -c '^me:' /etc/passwd").lines
    assert out == ["me", "us", "1"]
    out = run(kelp, "--passwd-entry", "$USERNAME:*:$UID:$GID:$NAME $UID:$HOME:/bin/sh", "--group-entry", "$GROUPNAME:x:$GID:$USERLIST",
              "--user", "1234:1235", "-w", "/tmp", "busybox", "tail", "-qn", "1", "/etc/passwd", "/etc/group").lines
    assert out == ["1234:*:1234:1235:container user 1234:/tmp:/bin/sh", "1235:x:1235:1234"]


def test_files_that_are_left_to_the_image(kelp):
    bound = ("busybox", "sh", "-c", "grep -o ' /etc/[a-z]* ' /proc/self/mountinfo || true")
    assert {" /etc/hosts ", " /etc/hostname "} <= set(re.findall(r" /etc/\w+ ", run(kelp, *bound).out))
    assert " /etc/hosts " not in run(kelp, "--no-hosts", *bound).out
    assert " /etc/hostname " not in run(kelp, "--no-hostname", *bound).out


def test_volumes_of_the_image(kelp, place):
    image = images.busybox_image(config={"Volumes": {"/data": {}}})
    kelp("load", "-q", "-i", image.write_archive(place / "v.tar", "localhost/vol:1"))
    kind = ("vol:1", "sh", "-c", "stat -f -c %T /data; grep -c ' /data ' /proc/mounts || true")
    # The name of the mode and the number of mounts at the place; a tmpfs tells its kind.
    assert run(kelp, "--image-volume", "tmpfs", *kind).lines == ["tmpfs", "1"]
    assert run(kelp, "--image-volume", "ignore", "vol:1", "grep", "-c", " /data ", "/proc/mounts", code=1).text == "0"
    for mode in ("anonymous", "bind"):
        kelp("run", "--name", mode, *NONE, "--image-volume", mode, *kind)
        [mount] = json.loads(kelp("inspect", "--format", "{{json .Mounts}}", mode).out)
        assert mount["Type"] == "volume" and mount["Destination"] == "/data"
    kelp.fails("run", *NONE, "--image-volume", "else", *kind, says="anonymous")


def test_uts_namespace(kelp):
    look = ("busybox", "readlink", "/proc/self/ns/uts")
    host = os.readlink("/proc/self/ns/uts")
    assert run(kelp, "--uts", "host", *look).text == host != run(kelp, "--uts", "private", *look).text


def test_startup_check_is_cut_off(kelp):
    kelp("run", "-d", "--name", "h", *NONE, "--health-cmd", "true", "--health-startup-cmd", "sleep 1000",
         "--health-startup-timeout", "1s", "--health-startup-interval", "1s", "busybox", "sleep", "1000")
    kelp("healthcheck", "run", "h", code=125, timeout=60)
    shown = json.loads(kelp("inspect", "--format", "{{json .Config.StartupHealthCheck}}", "h").out)
    assert shown["Timeout"] == 10**9


def test_platform_in_parts(bare_kelp, place):
    wanted = ("--os", "linux", "--arch", "arm", "--variant", "v7")
    tar = place / "files.tar"
    with tarfile.open(tar, "w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    bare_kelp("import", *wanted, "-m", "by hand", tar, "arm:1")
    document = json.loads(bare_kelp("image", "inspect", "arm:1").out)[0]
    assert (document["Os"], document["Architecture"], document.get("Variant", "v7")) == ("linux", "arm", "v7")
    assert "by hand" in bare_kelp("history", "--format", "{{.Comment}}", "arm:1").lines
    # What is stored fits only as a whole; where nothing fits, it is asked for elsewhere.
    bare_kelp("create", "--pull", "never", *wanted, "arm:1", "true")
    for other in (("--os", "freebsd"), ("--arch", "s390x"), ("--arch", "arm", "--variant", "v6")):
        for verb in (("run", "--rm"), ("create",)):
            bare_kelp.fails(*verb, *NONE, "--pull", "never", *other, "arm:1", "true", says="not known")
        bare_kelp.fails("pull", "-q", PLAIN, "--retry", "0", "--policy", "missing", *other, "127.0.0.1:1/arm:1",
                        says="refused")


# ---- registries: who we are, whom we trust, how often we try

@pytest.fixture
def trust(tls_registry, place):
    (place / "certs").mkdir()
    (place / "certs/ca.crt").write_bytes(tls_registry.ca.read_bytes())
    return place / "certs"


@pytest.fixture
def credentials(password_registry, place):
    (place / "auth.json").write_text(json.dumps({"auths": {password_registry.address: {"auth": "c29tZW9uZTpzZWNyZXQ="}}}))
    return place / "auth.json"


@pytest.mark.parametrize("verb", ["run", "create", "pull"])
def test_pulls_take_credentials_and_certificates(bare_kelp, password_registry, tls_registry, busybox_layout, credentials,
                                                 trust, verb):
    closed = password_registry.push(f"oci:{busybox_layout}:latest", "closed:1")
    trusted = tls_registry.push(f"oci:{busybox_layout}:latest", "trusted:1")
    words = {"run": ("run", "--rm", *NONE, "--pull", "always"), "create": ("create", "--pull", "always"),
             "pull": ("pull", "-q")}[verb]
    command = () if verb == "pull" else ("true",)
    bare_kelp.fails(*words, PLAIN, closed, *command, says="authentication")
    bare_kelp(*words, PLAIN, "--creds", "someone:secret", closed, *command)
    bare_kelp(*words, PLAIN, "--authfile", credentials, closed, *command)
    bare_kelp.fails(*words, trusted, *command, says="certificate")
    bare_kelp(*words, "--cert-dir", trust, trusted, *command)


@pytest.mark.parametrize("verb", ["run", "create"])
def test_how_often_a_pull_is_tried(bare_kelp, verb):
    nobody = "127.0.0.1:1/nothing:1"
    done = bare_kelp(verb, PLAIN, "--retry", "2", "--retry-delay", "10ms", nobody, "true", code=125)
    assert "Connection refused" in done.err
    bare_kelp.fails(verb, PLAIN, "--retry", "-1", nobody, "true", says="retry")


def test_indexes_take_credentials_and_certificates(kelp, password_registry, tls_registry, busybox_layout, credentials, trust):
    closed = password_registry.push(f"oci:{busybox_layout}:latest", "member:1")
    trusted = tls_registry.push(f"oci:{busybox_layout}:latest", "member:1")
    kelp.fails("manifest", "create", PLAIN, "a", closed, says="authentication")
    kelp("manifest", "create", PLAIN, "--authfile", credentials, "a", closed)
    kelp("manifest", "create", "--cert-dir", trust, "b", trusted)
    kelp("manifest", "create", "list")
    kelp.fails("manifest", "add", PLAIN, "list", closed, says="authentication")
    kelp("manifest", "add", PLAIN, "--creds", "someone:secret", "--os", "linux", "--arch", "riscv64", "list", closed)
    kelp("manifest", "add", PLAIN, "--authfile", credentials, "list", closed)
    kelp("manifest", "add", "--cert-dir", trust, "list", trusted)
    [digest] = {entry["digest"] for entry in json.loads(kelp("manifest", "inspect", "list").out)["manifests"]}
    kelp("manifest", "annotate", "--os", "freebsd", "--arch", "arm64", "list", digest)
    platforms = [entry["platform"] for entry in json.loads(kelp("manifest", "inspect", "list").out)["manifests"]]
    assert {"os": "freebsd", "architecture": "arm64"} in [
        {key: platform[key] for key in ("os", "architecture")} for platform in platforms]
    target = f"{password_registry.address}/list:1"
    kelp.fails("manifest", "push", "-q", PLAIN, "b", target, says="authentication")
    kelp("manifest", "push", "-q", PLAIN, "--creds", "someone:secret", "b", target)
    kelp("manifest", "push", "-q", PLAIN, "--authfile", credentials, "--remove-signatures", "b", target)
    kelp("manifest", "push", "-q", "--cert-dir", trust, "b", f"{tls_registry.address}/list:1")
    for options in (("--creds", "someone:secret"), ("--authfile", credentials)):
        assert json.loads(kelp("manifest", "inspect", PLAIN, *options, target).out)["manifests"]
    assert json.loads(kelp("manifest", "inspect", "--cert-dir", trust, f"{tls_registry.address}/list:1").out)["manifests"]
    nobody = "127.0.0.1:1/nothing:1"
    done = kelp("manifest", "push", "-q", PLAIN, "--retry", "1", "--retry-delay", "10ms", "b", nobody, code=125)
    assert "Connection refused" in done.err


def test_search_takes_credentials_and_certificates(bare_kelp, password_registry, tls_registry, busybox_layout, credentials, trust):
    password_registry.push(f"oci:{busybox_layout}:latest", "sought:1")
    tls_registry.push(f"oci:{busybox_layout}:latest", "sought:1")
    closed, trusted = f"{password_registry.address}/sought", f"{tls_registry.address}/sought"
    bare_kelp.fails("search", PLAIN, closed, "--list-tags")
    for options in (("--creds", "someone:secret"), ("--authfile", credentials)):
        assert "1" in bare_kelp("search", PLAIN, *options, "--list-tags", "--no-trunc", closed).out
    assert "1" in bare_kelp("search", "--cert-dir", trust, "--list-tags", trusted).out


def test_login_with_a_password_on_the_command_line(bare_kelp, password_registry, place):
    login = ("login", PLAIN, "--authfile", place / "a.json", "-u", "someone")
    bare_kelp(*login, "-p", "secret", password_registry.address)
    again = bare_kelp(*login, "-p", "secret", "--verbose", password_registry.address)
    assert again.lines[0] == f"logged in to {password_registry.address} as someone"
    bare_kelp.fails(*login, "-p", "wrong", password_registry.address)


def test_no_signatures_are_pushed(bare_kelp, registry, busybox_archive):
    """Images are kept without any, so what --remove-signatures promises is always so."""
    bare_kelp("load", "-q", "-i", busybox_archive)
    bare_kelp("push", "-q", PLAIN, "--remove-signatures", "busybox", f"{registry.address}/plain:1")
    tags = json.loads(subprocess.run(["curl", "-sf", f"http://{registry.address}/v2/plain/tags/list"], check=True,
                                     capture_output=True).stdout)["tags"]
    assert tags == ["1"]


# ---- life

def test_the_last_one_and_the_one_of_a_file(kelp, place):
    first = sleeper(kelp, "first", "--cidfile", place / "id")
    sleeper(kelp, "second")
    for verb in (("stop", "-t", "0"), ("start",), ("restart", "-t", "0"), ("kill",)):
        kelp(*verb, "--latest")
    assert state(kelp, "first") == "running"
    assert kelp("exec", "--cidfile", place / "id", "cat", "/proc/1/comm").text == "sleep"
    # Without control groups it cannot be frozen: then the one that is meant is named.
    for verb, becomes in (("pause", "paused"), ("unpause", "running")):
        done = kelp(verb, "--cidfile", place / "id", code=None)
        assert (done.code == 0 and state(kelp, "first") == becomes) or re.search("cgroup|is not paused", done.err), done
    for verb in (("restart", "-t", "0"), ("stop", "-t", "0")):
        kelp(*verb, "--cidfile", place / "id")
    assert state(kelp, "first") == "exited"
    kelp("start", "first")
    kelp("kill", "--cidfile", place / "id")
    kelp("wait", "first")
    kelp("rm", "-f", "-t", "0", "--cidfile", place / "id")
    kelp("container", "exists", first, code=1)


def test_all_and_those_that_run(kelp):
    for name in ("one", "two"):
        kelp("create", "--name", name, *NONE, "busybox", "sleep", "1000")
    kelp("start", "--all")
    assert sorted(kelp("ps", "--format", "{{.Names}}").lines) == ["one", "two"]
    kelp("stop", "-t", "0", "one")
    pids = [kelp("inspect", "--format", "{{.State.Pid}}", name).text for name in ("one", "two")]
    kelp("restart", "--running", "-t", "0")
    assert pids[0] == "0" == kelp("inspect", "--format", "{{.State.Pid}}", "one").text
    assert kelp("inspect", "--format", "{{.State.Pid}}", "two").text not in ("0", pids[1])


def test_those_that_a_filter_names_and_no_others(kelp):
    for name, group in (("one", "a"), ("two", "b"), ("three", "a")):
        kelp("create", "--name", name, "--label", f"group={group}", *NONE, "busybox", "sleep", "1000")
    chosen = ("--filter", "label=group=a")

    def having(status):
        return sorted(kelp("ps", "-a", "--filter", f"status={status}", "--format", "{{.Names}}").lines)

    kelp("start", *chosen)
    assert having("running") == ["one", "three"] and having("created") == ["two"]
    kelp("start", "two")
    pids = {name: kelp("inspect", "--format", "{{.State.Pid}}", name).text for name in ("one", "two", "three")}
    kelp("restart", "-t", "0", *chosen)
    assert {name for name, pid in pids.items() if kelp("inspect", "--format", "{{.State.Pid}}", name).text != pid} == {"one", "three"}
    kelp("stop", "-t", "0", *chosen)
    assert having("exited") == ["one", "three"] and having("running") == ["two"]
    kelp("rm", *chosen)
    assert kelp("ps", "-a", "--format", "{{.Names}}").text == "two"


def test_all_of_them(kelp):
    for name in ("one", "two"):
        kelp("run", "-d", "--name", name, *NONE, "busybox", "sleep", "1000")

    def states():
        return {state(kelp, name) for name in ("one", "two")}

    pids = {kelp("inspect", "--format", "{{.State.Pid}}", name).text for name in ("one", "two")}
    kelp("restart", "-t", "0", "--all")
    assert states() == {"running"}
    assert not pids & {kelp("inspect", "--format", "{{.State.Pid}}", name).text for name in ("one", "two")}
    kelp("kill", "--all")
    kelp("wait", "one", "two")
    assert states() == {"exited"}
    assert {kelp("inspect", "--format", "{{.State.ExitCode}}", name).text for name in ("one", "two")} == {"137"}


def test_start_passes_signals_on_or_not(kelp):
    kelp("create", "--name", "c", *NONE, "busybox", "sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.1; done")
    child = kelp.start("start", "-a", "--sig-proxy=true", "c")
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(10)
    assert child.wait(20) == 7
    child = kelp.start("start", "-a", "--sig-proxy=false", "c")
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(10)
    assert child.wait(20) == -10 and state(kelp, "c") == "running"
    child = kelp.start("attach", "--sig-proxy=false", "--no-stdin", "--latest")
    until("attached", lambda: "attach" in kelp("events", "--stream=false", "--format", "{{.Status}}").out)
    child.send_signal(10)
    assert child.wait(20) == -10 and state(kelp, "c") == "running"


def test_start_detaches_by_its_own_keys(kelp):
    kelp("create", "-it", "--name", "c", *NONE, "busybox", "sh", "-c", "echo ready; sleep 1000")
    terminal = kelp.terminal("start", "-ai", "--detach-keys", "ctrl-a,x", "c")
    terminal.expect("ready")
    terminal.type("\x01x")
    assert terminal.wait(20) == 0 and state(kelp, "c") == "running"


def test_attach_without_input(kelp):
    kelp("run", "-di", "--name", "c", *NONE, "busybox", "sh", "-c", "read line; while :; do echo got $line; sleep 0.1; done")
    child = kelp.start("attach", "--no-stdin", "c", stdin=subprocess.PIPE)
    child.stdin.write(b"unheard\n")
    child.stdin.close()
    other = kelp.start("attach", "c", stdin=subprocess.PIPE)
    other.stdin.write(b"heard\n")
    other.stdin.flush()
    assert child.stdout.readline() == b"got heard\n"


# ---- looking

def test_order_of_ps(kelp):
    for name in ("zebra", "ant", "mole"):
        kelp("create", "--name", name, *NONE, "busybox", "echo", name)
    names = ("ps", "-a", "--format", "{{.Names}}", "--sort")
    assert kelp(*names, "names").lines == ["ant", "mole", "zebra"]
    assert kelp(*names, "created").lines == ["zebra", "ant", "mole"]
    assert kelp(*names, "command").lines == ["ant", "mole", "zebra"]
    kelp.fails(*names, "colour", says="colour")


def test_order_and_digests_of_images(kelp):
    for name in ("zebra:1", "ant:2"):
        kelp("tag", "busybox", name)
    names = kelp("images", "--sort", "repository", "--format", "{{.Repository}}").lines
    assert names == sorted(names) and len(names) == 3
    tags = kelp("images", "--sort", "tag", "--format", "{{.Tag}}").lines
    assert tags == sorted(tags)
    table = kelp("images", "--digests")
    digest = kelp("image", "inspect", "--format", "{{.Digest}}", "busybox").text
    assert "DIGEST" in table.lines[0] and digest in table.out
    assert "DIGEST" not in kelp("images").lines[0]


def test_history_for_machines(kelp):
    human = kelp("history", "--format", "{{.CreatedAt}} {{.Size}}", "--human", "busybox").out
    plain = kelp("history", "--human=false", "--format", "{{.Size}}", "busybox").lines
    assert all(line.isdigit() for line in plain) and human
    short, full = (kelp("history", "-q", *words, "busybox").lines[0] for words in ((), ("--no-trunc",)))
    assert full.removeprefix("sha256:").startswith(short) and len(full) > len(short)


def test_sizes_that_inspect_adds(kelp):
    kelp("run", "--name", "c", *NONE, "busybox", "dd", "if=/dev/zero", "of=/file", "bs=1k", "count=50")
    for words in (("inspect",), ("container", "inspect")):
        assert "SizeRw" not in json.loads(kelp(*words, "c").out)[0]
        assert json.loads(kelp(*words, "--size", "c").out)[0]["SizeRw"] >= 51200


def test_the_last_one_is_looked_at(kelp):
    sleeper(kelp, "a")
    sleeper(kelp, "b")
    assert "sleep 1000" in kelp("top", "--latest").out
    shown = kelp("stats", "--no-stream", "--no-reset", "--no-trunc", "--latest", "--format", "{{.ID}} {{.Name}}").text
    assert shown == kelp("inspect", "--format", "{{.Id}}", "b").text + " b"
    assert json.loads(kelp("isolation", "--latest", code=1).out)[0]["Name"] == "b"
    assert "\x1b" not in kelp("stats", "--no-stream", "--no-reset", "a").out
    kelp("update", "--latest", "--restart", "on-failure:3")
    assert kelp("inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", "b").text == "on-failure"
    assert kelp("inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", "a").text != "on-failure"
    kelp("container", "cleanup", "--latest", code=None)
    assert state(kelp, "b") == "running"


def test_events_in_full_length(kelp):
    kelp("create", "--name", "c", *NONE, "busybox", "true")
    full = kelp("inspect", "--format", "{{.Id}}", "c").text
    last = ("events", "--stream=false", "--filter", "container=c", "--filter", "event=create")
    assert full in kelp(*last).out
    short = kelp(*last, "--no-trunc=false").out
    assert full[:12] in short and full not in short


def test_mounts_and_their_ids(kelp):
    kelp("create", "--name", "m", *NONE, "busybox", "true")
    full = kelp("inspect", "--format", "{{.Id}}", "m").text
    script = ('"$0" mount --latest >/dev/null && "$0" mount && "$0" mount --no-trunc && "$0" unmount --latest && "$0" mount')
    out = kelp("unshare", "sh", "-c", script, kelp.path).lines
    assert out[0].split()[0] == full[:12] and out[1].split()[0] == full and len(out) == 3


# ---- changing

def test_update_of_the_health_check_and_of_limits_of_processes(kelp):
    sleeper(kelp, "c", "--health-cmd", "true", "--health-interval", "disable")
    kelp("update", "--health-timeout", "7s", "--health-start-period", "3s", "--ulimit", "nofile=123:124", "c")
    check = json.loads(kelp("inspect", "--format", "{{json .Config.Healthcheck}}", "c").out)
    assert (check["Timeout"], check["StartPeriod"]) == (7 * 10**9, 3 * 10**9)
    assert kelp("exec", "c", "sh", "-c", "ulimit -n; ulimit -Hn").lines == ["123", "124"]
    kelp("update", "--no-healthcheck", "c")
    kelp.fails("healthcheck", "run", "c", says="health")


@pytest.mark.parametrize("option", [
    "--memory-reservation=32m", "--cpuset-cpus=0", "--cpuset-mems=0", "--blkio-weight=50",
    "--blkio-weight-device=/dev/null:50", "--device-read-bps=/dev/null:1m", "--device-write-bps=/dev/null:1m",
    "--device-read-iops=/dev/null:10", "--device-write-iops=/dev/null:10"])
def test_update_refuses_a_limit_that_nothing_enforces(kelp, option):
    """What they do where controllers are delegated: tests/vm/test_limits.py and test_options.py."""
    if needs.probe("cgroup-limits")[0]:
        pytest.skip("needs no-cgroup-limits: here they are enforced")
    kelp("create", "--name", "c", *NONE, "busybox", "true")
    name = option.split("=")[0]
    kelp.fails("update", option, "c", says=f"{name}.*(enforce|control|null)")


def test_copy_may_replace_a_directory_by_a_file(kelp, place):
    sleeper(kelp, "c")
    kelp("exec", "c", "mkdir", "-p", "/there/name")
    (place / "name").write_text("a file")
    kelp.fails("cp", place / "name", "c:/there/", says="(?i)director")
    kelp("cp", "--overwrite", place / "name", "c:/there/")
    assert kelp("exec", "c", "cat", "/there/name").text == "a file"


def test_commit_declares_the_volumes(kelp):
    kelp("create", "--name", "c", *NONE, "-v", "data:/data", "busybox", "true")
    kelp("commit", "-q", "c", "without:1")
    kelp("commit", "-q", "--include-volumes", "c", "with:1")
    volumes = ("image", "inspect", "--format", "{{json .Config.Volumes}}")
    assert json.loads(kelp(*volumes, "with:1").out) == {"/data": {}}
    assert not json.loads(kelp(*volumes, "without:1").out)


def test_save_compresses_the_layers_of_a_directory(kelp, place):
    kelp("load", "-q", "-i", images.busybox_image(compression="none").write_archive(place / "p.tar", "localhost/plain:1"))
    for name, words in (("plain", ()), ("small", ("--compress",))):
        kelp("save", "-q", "--format", "docker-dir", *words, "-o", place / name, "plain:1")
    sizes = {name: sum(path.stat().st_size for path in (place / name).iterdir()) for name in ("plain", "small")}
    assert sizes["small"] < sizes["plain"]
    magic = [path.read_bytes()[:2] for path in (place / "small").iterdir()]
    assert b"\x1f\x8b" in magic


def test_prunes_take_filters(kelp, place):
    for name, label in (("keep", "stay=yes"), ("drop", "stay=no")):
        kelp("create", "--name", name, "--label", label, *NONE, "busybox", "true")
        kelp("start", "-a", name)
        kelp("volume", "create", "--label", label, name)
    kelp("container", "prune", "-f", "--filter", "label=stay=no")
    assert kelp("ps", "-a", "--format", "{{.Names}}").lines == ["keep"]
    kelp("volume", "prune", "-a", "-f", "--filter", "label=stay=no")
    assert kelp("volume", "ls", "-q").lines == ["keep"]
    kelp("commit", "-q", "-c", "LABEL stay=no", "keep")
    kelp("commit", "-q", "-c", "LABEL stay=yes", "keep")
    assert len(kelp("images", "-q", "--filter", "dangling=true").lines) == 2
    kelp("image", "prune", "-f", "--filter", "label=stay=no")
    [left] = kelp("images", "-q", "--filter", "dangling=true").lines
    assert kelp("image", "inspect", "--format", "{{.Config.Labels.stay}}", left).text == "yes"


def test_a_secret_keeps_the_options_of_its_driver(kelp, place):
    (place / "s").write_text("hidden")
    kelp("secret", "create", "--driver", "file", "--driver-opts", "colour=blue", "s", place / "s")
    assert json.loads(kelp("secret", "inspect", "s").out)[0]["Spec"]["Driver"]["Options"] == {"colour": "blue"}
    kelp.fails("secret", "create", "--driver", "elsewhere", "t", place / "s", says="elsewhere")


def test_exec_reads_a_file_of_variables(kelp, place):
    sleeper(kelp, "c")
    (place / "vars").write_text("A=1\nB=two words\n")
    assert kelp("exec", "--env-file", place / "vars", "c", "sh", "-c", "echo $A,$B").text == "1,two words"
    assert kelp("exec", "--no-session", "c", "echo", "here").text == "here"
    assert kelp("inspect", "--format", "{{.ExecIDs}}", "c").text == "[]"  # none is kept: with it and without


# ---- of the program itself

def test_another_runtime_and_its_flags(kelp, place):
    (place / "noting").write_text(f'#!/bin/sh\necho "$@" >>{place}/words\nexec {os.path.dirname(kelp.path)}/kelp-oci "$@"\n')
    (place / "noting").chmod(0o755)
    kelp("--runtime", place / "noting", "--runtime-flag", "log-level=debug", "run", "--rm", *NONE, "busybox", "true")
    assert "--log-level=debug" in (place / "words").read_text()
    kelp.fails("--runtime", place / "nothing", "run", *NONE, "busybox", "true", says="runtime .*nothing")


def test_hooks_of_a_directory(kelp, place):
    (place / "hooks").mkdir()
    (place / "hook").write_text(f"#!/bin/sh\ncat >{place}/state\n")
    (place / "hook").chmod(0o755)
    (place / "hooks/one.json").write_text(json.dumps({
        "version": "1.0.0", "hook": {"path": str(place / "hook")}, "when": {"always": True}, "stages": ["createRuntime"]}))
    kelp("--hooks-dir", place / "hooks", "run", "--name", "c", *NONE, "busybox", "true")
    assert json.loads((place / "state").read_text())["id"] == kelp("inspect", "--format", "{{.Id}}", "c").text
    (place / "state").unlink()
    hook = {"version": "1.0.0", "hook": {"path": str(place / "hook")}, "stages": ["createRuntime", "poststop"]}
    for when, runs in (({"annotations": {"^org.example$": "ye."}}, True), ({"annotations": {"^org$": "yes"}}, False),
                       ({"commands": ["^tru"]}, True), ({"commands": ["^sh$"]}, False), ({"hasBindMounts": True}, False),
                       ({"hasBindMounts": False}, True), ({"always": True, "hasBindMounts": True}, False)):
        (place / "hooks/one.json").write_text(json.dumps({**hook, "when": when}))
        run(kelp, "--hooks-dir", place / "hooks", "--annotation", "org.example=yes", "busybox", "true")
        assert (place / "state").exists() == runs, when
        if runs:  # what the runtime tells a poststop hook comes after the container's end
            until("the last hook has run", lambda: '"stopped"' in (place / "state").read_text())
            (place / "state").unlink()
    for bad, says in (({**hook, "when": {}}, "condition"), ({**hook, "version": "2", "when": {"always": True}}, "1.0.0"),
                      ({**hook, "when": {"always": True}, "stages": ["later"]}, "stage")):
        (place / "hooks/one.json").write_text(json.dumps(bad))
        kelp.fails("--hooks-dir", place / "hooks", "run", "--rm", *NONE, "busybox", "true", says=says)
    kelp.fails("--hooks-dir", place / "nowhere", "run", "--rm", *NONE, "busybox", "true", says="nowhere")


def cdi(path, kind, devices, **more):
    """A file as a driver's package brings it."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cdiVersion": "0.6.0", "kind": kind, **more, "devices": [
        {"name": name, "containerEdits": edits} for name, edits in devices.items()]}))


def test_devices_that_a_cdi_file_describes(kelp, place):
    (place / "driver").mkdir()
    (place / "driver/lib").write_text("of the driver\n")
    (place / "hook").write_text(f"#!/bin/sh\necho \"$@\" >>{place}/hooked\ncat >/dev/null\n")
    (place / "hook").chmod(0o755)
    cdi(place / "cdi/sensor.json", "example.org/sensor", {
        "one": {"deviceNodes": [{"path": "/dev/sensor", "hostPath": "/dev/zero"}], "env": ["SENSOR=one"],
                "mounts": [{"hostPath": str(place / "driver"), "containerPath": "/opt/driver", "options": ["ro", "bind"]}],
                "hooks": [{"hookName": "createRuntime", "path": str(place / "hook"), "args": ["hook", "word"]}],
                "additionalGids": [42]},
        "two": {"deviceNodes": [{"path": "/dev/null2", "hostPath": "/dev/null", "permissions": "r"}]}},
        containerEdits={"env": ["SENSORS=common", "SENSOR=any"],  # what the device itself says wins
                        "deviceNodes": [{"path": "/dev/sensor", "hostPath": "/dev/null"}]})
    look = ("sh", "-c", "ls /dev; head -c 1 /dev/sensor | wc -c; cat /opt/driver/lib; touch /opt/driver/new; "
                        "id -G; echo $SENSORS $SENSOR")
    kelp("--cdi-spec-dir", place / "cdi", "run", "--name", "c", *NONE, "-e", "SENSOR=mine", "--device",
         "example.org/sensor=one", "--device", "example.org/sensor=two", "busybox", *look)
    shown = kelp("logs", "c")
    assert {"sensor", "null2"} <= set(shown.lines)
    assert shown.lines[-4:-2] == ["1", "of the driver"] and shown.lines[-1] == "common one"
    assert "42" in shown.lines[-2].split() and "Read-only file system" in shown.err
    assert (place / "hooked").read_text() == "word\n"
    assert kelp("inspect", "--format", "{{len .HostConfig.Devices}}", "c").text == "0"
    # They are looked up at each start: a driver may have been renewed.
    cdi(place / "cdi/sensor.json", "example.org/sensor", {"one": {"env": ["SENSOR=renewed"]}, "two": {}})
    kelp("--cdi-spec-dir", place / "cdi", "start", "-a", "c", code=None)
    assert kelp("logs", "c").lines[-1] == "renewed"
    kelp.fails("start", "c", says="example.org/sensor=one")  # nobody describes it now


def test_gpus(kelp, place):
    cdi(place / "a/nvidia.json", "nvidia.com/gpu", {"0": {"env": ["GPU=0"]}, "1": {"env": ["OTHER=1"]}, "all": {"env": ["GPU=every one"]}})
    where = ("--cdi-spec-dir", place / "a")
    show = (*NONE, "busybox", "sh", "-c", "echo $GPU")
    assert kelp(*where, "run", "--rm", "--gpus", "all", *show).text == "every one"
    kelp(*where, "create", "--name", "c", "--gpus", "0,1", *NONE, "busybox", "sh", "-c", "echo $GPU $OTHER")
    assert kelp(*where, "start", "-a", "c").text == "0 1"
    kelp.fails(*where, "run", "--rm", "--gpus", "7", *show, says="nvidia.com/gpu=7")


def test_cdi_files_that_differ_or_are_damaged(kelp, place):
    def run(*directories, code=0):
        options = [word for name in directories for word in ("--cdi-spec-dir", place / name)]
        words = (*options, "run", "--rm", *NONE, "--device", "example.org/a=x", "busybox", "sh", "-c", "echo $WHO")
        return kelp(*words) if code == 0 else words

    cdi(place / "a/one.json", "example.org/a", {"x": {"env": ["WHO=a"]}})
    cdi(place / "b/one.json", "example.org/a", {"x": {"env": ["WHO=b"]}})
    assert run("a", "b").text == "b" and run("b", "a").text == "a"  # the later directory
    cdi(place / "a/two.json", "example.org/a", {"x": {}})
    kelp.fails(*run("a", code=125), says="both .*one.json and .*two.json")
    assert run("a", "b").text == "b"  # the rivals are not asked
    (place / "a/two.json").write_text("{")
    assert run("a").text == "a"  # what is damaged is no obstacle for others
    (place / "a/one.json").unlink()
    kelp.fails(*run("a", code=125), says="example.org/a=x", hint="two.json")
    (place / "a/two.json").rename(place / "a/two.yaml")
    kelp.fails(*run("a", code=125), says="example.org/a=x", hint="two.yaml is YAML")
    (place / "a/two.yaml").unlink()
    for edits, says in (({"netDevices": [{"hostInterfaceName": "eth0"}]}, "netDevices"), ({"hooks": [{}]}, "path"),
                        ({"deviceNodes": [{"path": "/dev/nothing-such"}]}, "/dev/nothing-such"), ([1], "edits"),
                        ({"deviceNodes": [{"path": "/etc/passwd"}]}, "not a device"), ({"env": 7}, "one.json"),
                        ({"mounts": [{"hostPath": "/", "containerPath": "x"}]}, "not absolute")):
        cdi(place / "a/one.json", "example.org/a", {"x": edits})
        kelp.fails(*run("a", code=125), says=says)
    kelp.fails("run", "--rm", *NONE, "--device", "nonsense", "busybox", "true", says="nonsense.*neither")


def test_another_slirp4netns(kelp, place):
    kelp.fails("--network-cmd-path", place / "nothing", "run", "--rm", "--network", "slirp4netns", "busybox", "true",
               says="nothing")


def test_level_of_messages(kelp):
    loud = kelp("--log-level", "debug", "create", "--name", "c", *NONE, "busybox", "true").err
    assert "created container c" in loud
    assert kelp("create", "--name", "d", *NONE, "busybox", "true").err == ""
    kelp.fails("--log-level", "loud", "ps", code=1, says="loud")  # as podman does


def test_store_verify_fetches_again_as_somebody(bare_kelp, password_registry, tls_registry, busybox_layout, credentials, trust):
    for registry, name, first, second in (
            (password_registry, "again:1", (PLAIN, "--creds", "someone:secret"), (PLAIN, "--authfile", credentials)),
            (tls_registry, "again:2", ("--cert-dir", trust), ("--cert-dir", trust))):
        image = registry.push(f"oci:{busybox_layout}:latest", name)
        for options in (first, second):
            bare_kelp("pull", "-q", *options, image)
            layer = max((bare_kelp.store / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
            layer.chmod(layer.stat().st_mode | stat.S_IWUSR)
            layer.write_bytes(b"damaged" + layer.read_bytes()[7:])
            bare_kelp("store", "verify", code=None)
            bare_kelp("store", "verify", "--repair", *options)
            bare_kelp("store", "verify")
        bare_kelp("rmi", "-a", "-f")


def test_who_is_not_there_and_all_who_are(kelp):
    kelp.fails("wait", "nobody", says="nobody")
    kelp("wait", "--ignore", "nobody")
    needs.need("tun")
    needs.need("program:slirp4netns")
    kelp("run", "-d", "--name", "c", "-p", "127.0.0.1::80", "busybox", "sleep", "1000")
    assert "80/tcp -> 127.0.0.1:" in kelp("port", "--all").out
