"""The same command lines through podman and kelp: output, exit status, and the keys of JSON documents."""

import json
import pathlib
import tempfile

import pytest

from harness import needs, twin

NONE = ("--network", "none")


@pytest.fixture(scope="module")
def podman(busybox_archive):
    needs.need("program:podman")
    needs.need("userns")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="kt-p", dir="/tmp"))
    made = twin.Podman(directory)
    if not made.works(busybox_archive):
        made.end()
        needs.skip("podman-runs", "podman cannot run a container here")
    yield made
    made.end()
    from harness import leaks
    leaks.remove_tree(directory)


@pytest.fixture
def both(podman, kelp, busybox_archive):
    podman("load", "-q", "-i", busybox_archive)
    yield kelp, podman
    podman("rm", "-f", "-a", "-t", "0", code=None)
    podman("volume", "rm", "-a", "-f", code=None)
    podman("secret", "rm", "-a", code=None)
    podman.end_pause()


# Command lines in order: the state of one is the ground of the next. The exit status and what is printed must agree.
LIVES = {
    "run": [
        ("run", "--rm", *NONE, "busybox", "sh", "-c", "echo out; exit 3"),
        ("run", "--rm", *NONE, "busybox", "nothing-of-that-name"),
        ("run", "--rm", *NONE, "busybox", "/etc"),
        ("run", "--rm", "--pull", "never", *NONE, "localhost/missing", "true"),
        ("run", "--rm", "--no-such-option", "busybox"),
        ("run", "--rm", *NONE, "--env", "A=b", "--env", "B", "busybox", "sh", "-c", "echo $A-$B"),
        ("run", "--rm", *NONE, "--entrypoint", "echo", "busybox", "a", "b"),
        ("run", "--rm", *NONE, "--workdir", "/tmp", "busybox", "pwd"),
        ("run", "--rm", *NONE, "--user", "5:6", "busybox", "id"),
        ("run", "--rm", *NONE, "--hostname", "here", "busybox", "hostname"),
        ("run", "--rm", *NONE, "--umask", "027", "busybox", "sh", "-c", "umask"),
        ("run", "--rm", *NONE, "--read-only", "busybox", "sh", "-c", "touch /x || touch /tmp/x"),
        ("run", "--rm", *NONE, "--tmpfs", "/t:size=1m", "busybox", "sh", "-c", "df -k /t | tail -n 1 | cut -c1-20"),
    ],
    "life": [
        ("create", "--name", "c", *NONE, "busybox", "sh", "-c", "echo hello; exit 4"),
        ("create", "--name", "c", *NONE, "busybox", "true"),
        ("ps", "--format", "{{.Names}}"),
        ("ps", "-a", "--format", "{{.Names}}|{{.Image}}|{{.Command}}|{{.State}}|{{.Labels}}|{{.Ports}}"),
        ("start", "-a", "c"),
        ("ps", "-a", "--format", "table {{.Names}}\t{{.State}}\t{{.ExitCode}}"),
        ("ps", "-a", "--noheading", "--format", "table {{.Names}} {{.ExitCode}}"),
        ("wait", "c"),
        ("logs", "c"),
        ("logs", "--tail", "0", "c"),
        ("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}} {{.Name}} {{.Config.Cmd}}", "c"),
        ("inspect", "--format", "{{json .Config.Cmd}}", "c"),
        ("inspect", "--format", "{{range $i, $e := .Config.Cmd}}{{$i}}={{$e}};{{end}}", "c"),
        ("inspect", "--format", "{{.Nothing}}", "c"),
        ("kill", "c"),
        ("stop", "c"),
        ("rename", "c", "d"),
        ("container", "exists", "none"),  # not "c": an id may begin so
        ("container", "exists", "d"),
        ("rm", "d"),
        ("rm", "d"),
        ("rm", "-f", "d"),
        ("inspect", "d"),
        ("start", "d"),
        ("stop", "d"),
        ("stop", "--ignore", "d"),
        ("logs", "d"),
        ("wait", "d"),
    ],
    "running": [
        ("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "1000"),
        ("rm", "c"),
        ("exec", "c", "echo", "hi"),
        ("exec", "c", "sh", "-c", "exit 7"),
        ("exec", "c", "nothing-of-that-name"),
        ("exec", "--user", "5", "--env", "A=b", "--workdir", "/tmp", "c", "sh", "-c", "id -u; echo $A; pwd"),
        ("exec", "nobody", "true"),
        ("top", "c", "comm"),
        ("port", "c"),
        ("ps", "--filter", "name=c", "--format", "{{.Names}}"),
        ("ps", "--filter", "status=exited", "--format", "{{.Names}}"),
        ("ps", "--filter", "nothing=x"),
        ("cp", "c:/etc/passwd", "/dev/null"),
        ("cp", "c:/nothing", "/dev/null"),
        ("kill", "--signal", "NONSENSE", "c"),
        ("stop", "-t", "0", "c"),
        ("exec", "c", "true"),
        ("inspect", "--format", "{{.State.ExitCode}}", "c"),
        ("rm", "c"),
    ],
    "volumes": [
        ("volume", "create", "v"),
        ("volume", "create", "v"),
        ("volume", "ls", "-q"),
        ("volume", "ls"),
        ("volume", "ls", "--format", "{{.Name}} {{.Driver}}"),
        ("volume", "inspect", "--format", "{{.Name}} {{.Driver}} {{.Scope}}", "v"),
        ("volume", "exists", "v"),
        ("volume", "exists", "w"),
        ("volume", "inspect", "w"),
        ("run", "--name", "c", *NONE, "-v", "v:/data", "busybox", "sh", "-c", "echo x > /data/x"),
        ("volume", "rm", "v"),
        ("rm", "c"),
        ("run", "--rm", *NONE, "-v", "v:/data:ro", "busybox", "sh", "-c", "cat /data/x; echo y > /data/x"),
        ("volume", "rm", "v"),
        ("volume", "rm", "v"),
    ],
    "images": [
        ("images", "--format", "{{.Repository}}:{{.Tag}}"),
        ("image", "exists", "busybox"),
        ("image", "exists", "missing"),
        ("tag", "busybox", "other:1"),
        ("untag", "other:1"),
        ("untag", "other:1"),
        ("rmi", "missing"),
        ("image", "inspect", "missing"),
    ],
}
# Text that both print but word in their own way, on stderr, is not compared: only whether something was said.


@pytest.mark.parametrize("life", LIVES)
def test_command_lines(both, life):
    known, differences, used = twin.allowed("command"), [], set()
    for words in LIVES[life]:
        mine, peers = (tool(*words, code=None) for tool in both)
        line = " ".join(words)
        if (mine.code, twin.plain(mine.out), bool(mine.err)) == (peers.code, twin.plain(peers.out), twin.said(peers.err)):
            continue
        if line in known:
            used.add(line)
            continue
        differences.append(f"{line}\n  kelp   {mine.code} {mine.out!r} {mine.err!r}\n  podman {peers.code} {peers.out!r} {peers.err!r}")
    stale = [line for line in known if line not in used and any(line == " ".join(words) for words in LIVES[life])]
    assert not differences, "\n".join(differences)
    assert not stale, f"these no longer differ: {stale}"


def documents(both, *words):
    found = []
    for tool in both:
        value = json.loads(tool(*words).out)
        found.append(twin.key_tree(value[0] if isinstance(value, list) else value))
    return found


def check(area, trees, free=()):
    differences = twin.compare_trees(area, *trees, free=free)
    assert not differences, "\n".join(differences)


CREATE = ("create", "--name", "c", *NONE, "--label", "a=b", "-v", "v:/data", "-v", "/tmp:/host:ro", "--tmpfs", "/t",
          "--env", "X=y", "--cap-add", "NET_ADMIN", "--ulimit", "nofile=100:200", "busybox", "true")


def test_container_inspect(both):
    for tool in both:
        tool(*CREATE)
        tool("start", "-a", "c")
    check("container", documents(both, "inspect", "c"), (".Config.Labels", ".Config.Annotations", ".HostConfig.Annotations"))


def test_container_inspect_while_it_runs(both):
    for tool in both:
        tool("run", "-d", "--name", "c", *NONE, "--health-cmd", "true", "busybox", "sleep", "1000")
    check("container", documents(both, "inspect", "c"), (".Config.Labels", ".Config.Annotations", ".HostConfig.Annotations"))


def test_ps(both):
    for tool in both:
        tool(*CREATE)
    check("ps", documents(both, "ps", "-a", "--format", "json"), (".Labels",))


def test_image_inspect_and_images(both):
    check("image", documents(both, "image", "inspect", "busybox"), (".Labels", ".Annotations", ".GraphDriver.Data"))
    check("images", documents(both, "images", "--format", "json"), (".Labels",))


def test_volume_and_secret(both):
    for tool in both:
        tool("volume", "create", "--label", "a=b", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "v")
        tool("secret", "create", "pw", "-", stdin="hush")
    check("volume", documents(both, "volume", "inspect", "v"), (".Labels", ".Options"))
    check("volume", documents(both, "volume", "ls", "--format", "json"), (".Labels", ".Options"))
    check("secret", documents(both, "secret", "inspect", "pw"), (".Spec.Labels", ".Spec.Driver.Options"))


def test_info_and_version(both):
    check("info", documents(both, "info", "--format", "json"), (".store.graphOptions", ".store.graphStatus", ".registries"))
    check("version", documents(both, "version", "--format", "json"))


def test_events(both):
    trees = []
    for tool in both:
        tool("run", "--name", "c", *NONE, "busybox", "sh", "-c", "exit 3", code=3)
        lines = tool("events", "--stream=false", "--since", "1h", "--filter", "container=c", "--format", "json").lines
        died = [json.loads(line) for line in lines if '"died"' in line]
        trees.append(twin.key_tree(died[-1]))
    check("events", trees, (".Attributes",))
