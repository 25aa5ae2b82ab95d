"""Programs that people run, from Debian's packages: an interactive shell, an editor, languages, a database with its data
in a volume, and a script of a CI file."""

import json
import pathlib
import tempfile
import urllib.request

import pytest

from harness import images, leaks, needs, processes, programs, twin
from harness.waiting import until

NONE = ("--network", "none")
IMAGE = "debian-programs"
SCRIPT = pathlib.Path(__file__).with_name("ci-script.sh")


def lasting(archive):
    """A kelp for a whole module: its image is large, and is unpacked once."""
    needs.need("userns")
    needs.need("subids")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="kt-r", dir="/tmp"))
    (directory / "k").mkdir(mode=0o700)
    made, baseline = programs.Kelp(directory / "k"), leaks.Baseline()
    try:
        made("load", "-q", "-i", archive(), timeout=600)
        yield made
        made("rm", "-f", "-a", "-t", "0")
        left = baseline.check([made])
        assert not left, f"left after the tests:\n{left}"
    finally:
        made.end_children()
        processes.kill_all()
        leaks.remove_tree(directory)


@pytest.fixture(scope="module")
def store():
    yield from lasting(images.debian_programs_archive)


@pytest.fixture
def kelp(store):
    """Each test leaves no container, volume or process to the next one."""
    yield store
    store("rm", "-f", "-a", "-t", "0")
    store("volume", "rm", "-a", "-f")
    store.end_children()
    assert not processes.wait_gone(5.0, set()) and not leaks.lasting_leftovers(store)


# --- by hand ---------------------------------------------------------------------------------------------------------

def typed(terminal, text, *answers):
    terminal.type(text)
    for answer in answers:
        terminal.expect(answer)


def test_an_interactive_shell(kelp):
    terminal = kelp.terminal("run", "-it", "--rm", "--hostname", "there", *NONE, IMAGE)
    prompt = r"root@there:/[a-z]*# "
    terminal.expect(prompt, timeout=60)
    typed(terminal, "tty; cd /usr; echo $((6 * 7)) $0\n", r"/dev/pts/0\r\n", r"42 bash\r\n", r"root@there:/usr# ")
    typed(terminal, "ec\t\x15true && ech''o don''e\n", r"\rdone\r\n", prompt)  # the line editor's own keys
    # A job is stopped, goes on in the background and in the foreground, and is interrupted.
    typed(terminal, "cat\n", r"cat\r\n")
    typed(terminal, "one\n", r"one\r\none\r\n")
    typed(terminal, "\x1a", r"\[1\]\+ +Stopped +cat\r\n", prompt)
    typed(terminal, "jobs -l\n", r"\[1\]\+ +\d+ Stopped.*cat\r\n", prompt)
    typed(terminal, "fg\n", r"\rcat\r\n")
    typed(terminal, "two\n", r"two\r\ntwo\r\n")
    typed(terminal, "\x03", prompt)
    typed(terminal, "echo was-$?\n", r"\rwas-130\r\n", prompt)
    typed(terminal, "sleep 1000 &\n", r"\[1\] \d+\r\n", prompt)
    typed(terminal, "kill %1; wait; echo gone\n", r"gone\r\n", prompt)
    typed(terminal, "false | true | cat <(echo sub) -; echo ${PIPESTATUS[0]}\n", r"\rsub\r\n1\r\n", prompt)
    # The window changes its size: bash hears of it, and so does what it starts.
    terminal.resize(40, 132)

    def size():
        typed(terminal, "echo si''ze $LINES $COLUMNS $(stty size)\n")
        return terminal.expect(r"\rsize ([\d ]+)\r\n").group(1)
    until("the new size", lambda: size() == "40 132 40 132")
    terminal.type("exit 3\n")
    assert terminal.wait() == 3


def test_vi_edits_a_file_of_the_host(kelp, place):
    (place / "notes").write_text("first line\nlast line\n")
    terminal = kelp.terminal("run", "-it", "--rm", *NONE, "-v", f"{place}:/work", "-w", "/work", IMAGE, "vi", "notes")
    terminal.expect("first line\r\nlast line", timeout=60)
    typed(terminal, "osecond line", "second line")
    typed(terminal, "\x1b:s/second/middle/\r", "middle")
    terminal.resize(12, 60)

    def lines():
        typed(terminal, ":set lines?\r")
        return terminal.expect(r"lines=(\d+)").group(1)
    until("the editor knows the new size", lambda: lines() == "12")
    typed(terminal, "Gdd:wq\r", "written")
    assert terminal.wait() == 0
    assert (place / "notes").read_text() == "first line\nmiddle line\n"
    assert (place / "notes").stat().st_uid == pathlib.Path(place).stat().st_uid
    assert sorted(path.name for path in place.iterdir()) == ["notes"]  # no swap file stays


# --- languages -------------------------------------------------------------------------------------------------------

def test_python_by_hand(kelp):
    terminal = kelp.terminal("run", "-it", "--rm", *NONE, IMAGE, "python3")
    terminal.expect(">>> ", timeout=60)
    typed(terminal, "6 * 7\n", r"\n42\r\n>>> ")
    typed(terminal, "import os; tuple(os.get_terminal_size())\n", r"\(80, 24\)\r\n>>> ")
    typed(terminal, "input('who? ')\n", r"who\? $")
    typed(terminal, "kelp\n", r"'kelp'\r\n>>> ")
    typed(terminal, "import time\n", ">>> ")
    typed(terminal, "while True: print('going'); time.sleep(0.1)\n", r"\.\.\. ")
    # Only what runs already is sure to be interrupted: between two lines python may miss the signal.
    typed(terminal, "\n", r"going\r\n")
    typed(terminal, "\x03", "KeyboardInterrupt", ">>> ")
    typed(terminal, "7 * 7\n", "49", ">>> ")  # else python itself ends with 130
    terminal.type("\x04")
    assert terminal.wait() == 0


def test_a_python_script_on_stdin(kelp):
    script = "import os, sys\nprint(sys.argv[1:], os.getpid(), file=sys.stderr)\nprint('x' * 3_000_000)\nsys.exit(5)\n"
    result = kelp("run", "-i", "--rm", *NONE, IMAGE, "python3", "-", "a b", "c", stdin=script, code=5)
    assert result.err == "['a b', 'c'] 1\n" and result.out == "x" * 3_000_000 + "\n"
    count = kelp("run", "-i", "--rm", *NONE, IMAGE, "python3", "-c", "import sys; print(len(sys.stdin.buffer.read()))",
                 stdin="y" * 2_000_000)
    assert count.text == "2000000"


SERVER = """
const shout = require('shout')
const server = require('http').createServer((request, response) => {
  console.log(`${request.method} ${request.url}`)
  response.end(shout(`hello from node ${process.pid}`))
})
server.listen(3000, () => console.log('listening'))
process.on('SIGTERM', () => server.close(() => { console.log('closed'); process.exit(7) }))
"""


def test_a_server_in_node(kelp, place):
    """An application with a module that npm would have put there, below a bind mount."""
    needs.need("tun")
    (place / "node_modules/shout").mkdir(parents=True)
    (place / "node_modules/shout/package.json").write_text(json.dumps({"name": "shout", "version": "1.0.0", "main": "lib.js"}))
    (place / "node_modules/shout/lib.js").write_text("module.exports = text => text.toUpperCase() + '!'\n")
    (place / "server.js").write_text(SERVER)
    kelp("run", "-d", "--name", "app", "-p", "127.0.0.1::3000", "-v", f"{place}:/app:ro", "-w", "/app", IMAGE,
         "node", "server.js")
    until("it listens", lambda: "listening" in kelp("logs", "app").out, seconds=60)
    address = kelp("port", "app", "3000/tcp").text
    with urllib.request.urlopen(f"http://{address}/path?q=1", timeout=30) as response:
        assert response.read() == b"HELLO FROM NODE 1!"
    kelp("stop", "-t", "20", "app")
    assert kelp("logs", "app").lines == ["listening", "GET /path?q=1", "closed"]
    assert kelp("wait", "app").text == "7"


def test_node_by_hand(kelp):
    terminal = kelp.terminal("run", "-it", "--rm", *NONE, "-e", "NODE_DISABLE_COLORS=1", IMAGE, "node")
    terminal.expect("> ", timeout=60)
    typed(terminal, "`size:${process.stdout.columns}x${process.stdout.rows}`\r", "size:80x24")
    typed(terminal, ".exit\r")
    assert terminal.wait() == 0


# --- a database -------------------------------------------------------------------------------------------------------

def healthy(kelp, name):
    shown = kelp("inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", name).text
    assert shown.startswith("running "), kelp("logs", name)
    return shown == "running healthy"


def test_redis_keeps_its_data_in_a_volume(kelp):
    def start():
        kelp("run", "-d", "--name", "db", "-v", "redis:/var/lib/redis", "-u", "redis", *NONE, "--health-cmd",
             "redis-cli ping | grep -q PONG", "--health-interval", "200ms", "--health-timeout", "5s", "--health-retries", "1",
             IMAGE, "redis-server", "--dir", "/var/lib/redis", "--appendonly", "yes")
        until("healthy", lambda: healthy(kelp, "db"), seconds=60)

    def ask(*words):
        return kelp("exec", "db", "redis-cli", *words).text

    start()
    until("ps says so", lambda: "(healthy)" in kelp("ps", "--format", "{{.Status}}").text)
    assert ask("set", "greeting", "grown by kelp") == "OK" and ask("incrby", "counter", 41) == "41"
    kelp("stop", "-t", "20", "db")
    assert kelp("inspect", "--format", "{{.State.ExitCode}}", "db").text == "0"
    assert "ready to exit" in kelp("logs", "db").out
    kelp("rm", "db")
    assert kelp("volume", "ls", "-q").lines == ["redis"]

    start()
    assert ask("get", "greeting") == "grown by kelp" and ask("incr", "counter") == "42"
    assert kelp("exec", "db", "stat", "-c", "%U %a", "/var/lib/redis").text == "redis 750"  # as the package has it
    kelp("rm", "-f", "-t", "0", "db")  # killed: what was acknowledged is in the file

    start()
    assert ask("get", "counter") == "42"
    # A server that hangs is seen: it answers nobody while the script runs.
    hung = kelp.start("exec", "db", "redis-cli", "eval", "while true do end", "0")
    until("unhealthy", lambda: kelp("inspect", "--format", "{{.State.Health.Status}}", "db").text == "unhealthy", seconds=90)
    kelp("exec", "db", "redis-cli", "script", "kill")
    hung.wait(60)
    until("healthy again", lambda: healthy(kelp, "db"), seconds=60)


def test_a_redis_image_brings_its_health_check_and_its_volume(kelp, place):
    """As images of databases do: HEALTHCHECK, VOLUME and USER stand in the image, the user only names a volume."""
    (place / "redis.json").write_text(json.dumps({
        "User": "redis", "Volumes": {"/var/lib/redis": {}},
        "Cmd": ["redis-server", "--dir", "/var/lib/redis", "--appendonly", "yes"],
        "Healthcheck": {"Test": ["CMD-SHELL", "redis-cli ping | grep PONG"], "Interval": 200_000_000, "Timeout": 5_000_000_000,
                        "Retries": 1}}))
    kelp("create", "--name", "base", *NONE, IMAGE)
    kelp("commit", "-q", "--config", str(place / "redis.json"), "base", "redis-image")
    kelp("rm", "base")

    def state():
        return json.loads(kelp("inspect", "db").out)[0]["State"]

    kelp("run", "-d", "--name", "db", "-v", "data:/var/lib/redis", *NONE, "redis-image")
    until("healthy", lambda: healthy(kelp, "db"), seconds=60)
    health = state()["Health"]
    assert health["FailingStreak"] == 0 and health["Log"][-1]["ExitCode"] == 0 and "PONG" in health["Log"][-1]["Output"]
    assert kelp("volume", "ls", "-q").lines == ["data"]  # the named one stands where the image would have an anonymous one
    assert kelp("exec", "db", "redis-cli", "set", "kept", "by the volume").text == "OK"

    first = state()["Pid"]
    kelp("restart", "-t", "20", "db")
    assert state()["Pid"] != first
    until("healthy after the restart", lambda: healthy(kelp, "db"), seconds=60)
    assert kelp("exec", "db", "redis-cli", "get", "kept").text == "by the volume"

    kelp("rm", "-f", "-v", "-t", "20", "db")  # -v removes anonymous volumes only
    kelp("run", "-d", "--name", "db", "-v", "data:/var/lib/redis", *NONE, "redis-image")
    until("healthy from the volume", lambda: healthy(kelp, "db"), seconds=60)
    assert kelp("exec", "db", "redis-cli", "get", "kept").text == "by the volume"
    kelp("rm", "-f", "-t", "20", "db")
    kelp("rmi", "redis-image")


# --- scripts ---------------------------------------------------------------------------------------------------------

def play(tool, place):
    stage = twin.Stage(tool, place, {})
    return tool(SCRIPT, program="/bin/bash", code=None, timeout=300, env=stage.env, cwd=stage.work)


TRANSCRIPT = """\
== start
service localhost/busybox:latest
running true build 1
== exec and cp
0
test data
test data
note
exit 7
exit 1
== stop
service
0
up at level 3
going down
going down
service:
137
== images
65
test data
exit 125
Loaded image: localhost/ci/service:1
test data
localhost/busybox:latest
localhost/ci/service:1
== environment
1 two words
PIPED
1000
/home/app
exit 3
3
== clear up
2
2
from ci
state
state
"""


def test_a_script_of_a_ci_file(kelp_factory, busybox_archive, place):
    """`docker` is a link to kelp."""
    kelp = kelp_factory()
    kelp("load", "-q", "-i", busybox_archive)
    result = play(kelp, place / "s")
    said = [line for line in result.err.splitlines() if not line.startswith(programs.PROGRESS)]
    assert result.code == 0 and said == [] and result.out == TRANSCRIPT, result
