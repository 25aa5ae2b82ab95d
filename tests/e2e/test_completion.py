"""TAB: what `kelp __complete` answers, and what bash, zsh and fish make of it."""

import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import time

import pytest

from harness import needs, programs

NONE = ("--network", "none")
COMPLETIONS = programs.TOP / "completions"


def answers(kelp, *words, **more):
    """{candidate: description}"""
    lines = kelp("__complete", "--", *words, **more).lines
    return dict((line + "\t").split("\t")[:2] for line in lines)


@pytest.fixture
def filled(kelp):
    """Two running containers, one that is not, a volume and a secret."""
    for name in ("web-1", "web-2"):
        kelp("run", "-d", "--name", name, *NONE, "busybox", "sleep", "1000")
    kelp("create", "--name", "web-old", *NONE, "busybox", "true")
    kelp("volume", "create", "data")
    kelp("secret", "create", "token", "-", stdin="x")
    kelp("tag", "busybox", "docker.io/library/shop:v1")
    return kelp


def test_commands_and_groups(bare_kelp):
    found = answers(bare_kelp, "")
    assert {"run", "ps", "volume", "help"} <= set(found) and found["ps"] == "list containers"
    assert not any(name.startswith("__") for name in found)
    assert list(answers(bare_kelp, "vol")) == ["volume"]
    assert {"create", "ls", "mount"} <= set(answers(bare_kelp, "volume", ""))
    assert list(answers(bare_kelp, "help", "rena")) == ["rename"]
    assert list(answers(bare_kelp, "--root", "/nowhere", "rena")) == ["rename"]


def test_every_option_of_the_declaration_is_offered(bare_kelp):
    import json
    tree = json.loads(bare_kelp("__dump-options").out)
    for command in tree["commands"]:
        found = answers(bare_kelp, *command["name"].split(), "--")
        for option in command["options"]:
            assert found.get("--" + option["name"]) == option["help"], (command["name"], option["name"])


def test_containers_fit_the_command(filled):
    assert list(answers(filled, "stop", "")) == ["web-1", "web-2"]
    assert list(answers(filled, "start", "")) == ["web-old"]
    assert list(answers(filled, "rm", "")) == ["web-1", "web-2", "web-old"]
    assert list(answers(filled, "stop", "web-1", "")) == ["web-2"]
    assert list(answers(filled, "exec", "-it", "web-")) == ["web-1", "web-2"]
    assert list(answers(filled, "exec", "web-1", "")) == []
    assert list(answers(filled, "rename", "web-1", "")) == []
    identity = filled("inspect", "-f", "{{.Id}}", "web-old").text
    assert list(answers(filled, "rm", identity[:4])) == [identity[:12]]
    assert list(answers(filled, "unpause", "")) == []
    assert {"web-1", "web-old", "shop:v1"} <= set(answers(filled, "diff", ""))
    both = set(answers(filled, "diff", "web-1", ""))
    assert {"web-2", "shop:v1"} <= both and "data" not in both
    assert list(answers(filled, "container", "diff", "web-1", "")) == ["web-2", "web-old"]
    assert "shop:v1" in answers(filled, "image", "diff", "busybox", "")
    assert list(answers(filled, "diff", "web-1", "web-2", "")) == []


def test_one_that_runs_among_many_and_a_damaged_record(kelp):
    """Where few of many run, their records are read instead of every link."""
    kelp("run", "-d", "--name", "runs", *NONE, "busybox", "sleep", "100")
    many = [f"m{n}" for n in range(25)]
    for name in many:
        kelp("create", "--name", name, *NONE, "busybox", "true")
    assert list(answers(kelp, "stop", "")) == ["runs"]
    assert list(answers(kelp, "rm", "")) == sorted([*many, "runs"])
    record = kelp.store / "containers" / kelp("inspect", "-f", "{{.Id}}", "runs").text / "record.json"
    text = record.read_text()
    record.write_text("{")
    assert set(answers(kelp, "rm", "")) == {*many, "runs"}
    record.write_text(text)
    kelp("rm", "-f", "-t", "0", "runs", *many)


def test_paused(filled):
    needs.need("cgroup-limits")
    filled("pause", "web-2")
    assert list(answers(filled, "unpause", "")) == ["web-2"]
    filled("unpause", "web-2")


def test_other_values(filled, place):
    assert "shop:v1" in answers(filled, "run", "--rm", "sh")
    assert answers(filled, "run", "docker.io/library/sh") == {"docker.io/library/shop:v1": ""}
    assert list(answers(filled, "volume", "inspect", "")) == ["data"]
    assert {"data:"} <= set(answers(filled, "run", "-v", "da"))
    assert set(answers(filled, "run", "-v", "data:/d:n")) >= {"data:/d:nocopy"}
    assert list(answers(filled, "run", "--secret", "t")) == ["token"]
    assert list(answers(filled, "run", "--cap-add", "NET_A")) == ["NET_ADMIN"]
    assert list(answers(filled, "run", "--cap-add", "CHOWN,NET_A")) == ["CHOWN,NET_ADMIN"]
    assert list(answers(filled, "kill", "-s", "SIGUS")) == ["SIGUSR1", "SIGUSR2"]
    assert list(answers(filled, "run", "--user=roo")) == ["--user=root"]
    assert set(answers(filled, "run", "--pull", "")) >= {"missing", "always", "never", "newer"}
    assert list(answers(filled, "run", "--network", "container:web-1")) == ["container:web-1"]
    assert list(answers(filled, "run", "--rm=")) == ["--rm=true", "--rm=false"]
    assert set(answers(filled, "inspect", "")) >= {"web-1", "data", "shop:v1"}
    (filled.home / ".config/containers").mkdir(parents=True)
    (filled.home / ".config/containers/auth.json").write_text('{"auths": {"registry.example:5000": {}}}')
    assert list(answers(filled, "logout", "")) == ["registry.example:5000"]


def test_paths_within_values(bare_kelp, place):
    (place / "src").mkdir()
    (place / "settings.env").write_text("")
    assert list(answers(bare_kelp, "run", "-v", f"{place}/s")) == [f"{place}/settings.env", f"{place}/src/"]
    assert list(answers(bare_kelp, "run", "--env-file=./se", cwd=place)) == ["--env-file=./settings.env"]
    assert list(answers(bare_kelp, "run", f"-v{place}/sr")) == [f"-v{place}/src/"]
    assert list(answers(bare_kelp, "load", "-i", "se", cwd=place)) == ["settings.env"]
    assert list(answers(bare_kelp, "volume", "import", "x", "se", cwd=place)) == ["settings.env"]
    assert f"{place}/src/" in answers(bare_kelp, "--root", f"{place}/s")


def test_cp_both_ways(filled, place):
    (place / "file").write_text("")
    assert set(answers(filled, "cp", "w", cwd=place)) == {"web-1:", "web-2:", "web-old:"}
    assert list(answers(filled, "cp", "fi", cwd=place)) == ["file"]
    assert "web-1:" in answers(filled, "cp", "file", "web-1", cwd=place)


def test_half_a_line_is_no_error(bare_kelp):
    for words in ([], [""], ["nothing", ""], ["run", "--nothing", ""], ["run", "--nothing="], ["-"], ["volume", "nothing", ""], ["--"]):
        result = bare_kelp("__complete", "--", *words)
        assert result.err == ""


# ---- real shells

class Shell:
    def __init__(self, argv, env, cwd):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(argv[0], argv, env)
        self.text = ""

    def read(self, pattern, seconds=30):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, f"{pattern!r} did not come:\n{self.text!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    chunk = os.read(self.fd, 65536)
                except OSError:
                    chunk = b""
                assert chunk, f"the shell ended:\n{self.text!r}"
                if b"\x1b[c" in chunk or b"\x1b[0c" in chunk:  # fish asks what the terminal can do
                    os.write(self.fd, b"\x1b[?62c")
                self.text += re.sub(r"\x1b\[[0-9;?>=]*[a-zA-Z]|\x1b[=>()][0-9A-B]?|\x1b\][^\x07]*\x07|[\x0e\x0f\x08]", "",
                                    chunk.decode(errors="replace"))
        return self.text

    def type(self, text):
        self.text = ""
        os.write(self.fd, text.encode())

    def close(self):
        try:
            os.kill(self.pid, 9)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def shell_of(name, kelp, place):
    needs.need(f"program:{name}")
    path = shutil.which(name)
    env = {**kelp.env, "PATH": f"{pathlib.Path(kelp.path).parent}:{kelp.env['PATH']}", "PS1": "READY> ", "HOME": str(place),
           "XDG_CONFIG_HOME": kelp.env["XDG_CONFIG_HOME"], "TERM": "dumb" if name != "fish" else "xterm", "COLUMNS": "200"}
    argv = {"bash": [path, "--norc", "--noprofile", "-i"], "zsh": [path, "-f", "-i"], "fish": [path, "--no-config", "-i"]}[name]
    shell = Shell(argv, env, place)
    if name == "bash":
        shell.read("READY> ")
        shell.type(f"source {COMPLETIONS}/kelp.bash; echo loa''ded\n")
    elif name == "zsh":
        shell.read("READY> ")
        shell.type(f"unsetopt zle_bracketed_paste beep; autoload -U compinit; compinit -u -d {place}/dump; "
                   f"source {COMPLETIONS}/_kelp; echo loa''ded\n")
    else:
        time.sleep(0.5)
        shell.type(f"source {COMPLETIONS}/kelp.fish; echo loa''ded\n")
    shell.read("loaded")
    return shell


SHELLS = ["bash", "zsh", "fish"]
LINES = [
    ("kelp rena", "rename"),
    ("kelp volume inspect da", "data"),
    ("kelp run --entry", "--entrypoint"),
    ("kelp start ", "web-old"),
    ("kelp run --env-file=./set", "settings.env"),
    ("kelp run --env-file ./set", "settings.env"),
    ("kelp run docker.io/library/shop:", "v1"),
    ("kelp logs -f web-o", "web-old"),
]


@pytest.mark.parametrize("name", SHELLS)
def test_in_a_shell(name, filled, place):
    (place / "settings.env").write_text("")
    shell = shell_of(name, filled, place)
    try:
        for line, wanted in LINES:
            shell.type(line + "\t")
            shell.type("\x01echo [ \x05 ]\n")  # the line becomes the argument of an echo
            shell.read(re.escape(wanted) + r" *\]")
        shell.type("kelp stop web-\t\t\t")
        shell.read(r"web-1[\s\S]*web-2")
        assert name == "bash" or "running" in shell.text  # the descriptions
    finally:
        shell.close()
