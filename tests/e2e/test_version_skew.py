"""Programs and records of different ages: a monitor of an older kelp serves a newer one, an unknown newer record is refused
and left as it is.

The frames below are those of version 1, written down here once more on purpose: they may not change with the code.
"""

import array
import json
import os
import re
import socket
import struct
import threading

import pytest

from harness import programs
from harness.waiting import until

NONE = ("--network", "none")

HELLO, ATTACH, SIGNAL, STOP, EXEC, USER_STOP = 1, 10, 14, 15, 16, 17
STARTED, OUTPUT, ENDED, EXEC_STARTED, EXEC_ENDED, UNSUPPORTED = 40, 42, 44, 45, 46, 47
OUT = 2
VERSION = 5  # kVersion of src/monitor/protocol.h


def frame(kind, value=0, payload=b"", flags=0):
    return struct.pack("=BBHI", kind, 0, flags, value) + payload


def receive(link):
    data, ancillary, _, _ = link.recvmsg(65536, 4096)
    for level, kind, raw in ancillary:  # descriptors that came along are of no interest here
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds = array.array("i")
            fds.frombytes(raw)
            for fd in fds:
                os.close(fd)
    if not data:
        return None
    kind, _, flags, value = struct.unpack("=BBHI", data[:8])
    return kind, flags, value, data[8:]


@pytest.fixture
def one(kelp):
    kelp.container = kelp("run", "-d", "--name", "one", *NONE, "busybox", "sh", "-c",
                          "while :; do echo tick; sleep 0.1; done").text
    kelp.socket = kelp.run_dir / kelp.container / "attach.sock"
    return kelp


def connect(kelp):
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.settimeout(10)
    link.connect(str(kelp.socket))
    return link


def test_a_newer_client_gets_the_version_that_both_know(one):
    with connect(one) as link:
        link.send(frame(HELLO, 7))
        kind, _, value, _ = receive(link)
        assert (kind, value) == (HELLO, VERSION)
        link.send(frame(99, 5, b"of the future"))
        kind, _, value, _ = receive(link)
        assert (kind, value) == (UNSUPPORTED, 99)
        link.send(frame(ATTACH, OUT))
        assert receive(link)[0] == STARTED
        while True:
            kind, flags, _, payload = receive(link)
            if kind == OUTPUT:
                break
        assert payload == b"tick\n"


def test_the_frames_of_version_1_still_mean_the_same(one):
    with connect(one) as link:
        link.send(frame(HELLO, 1))
        assert receive(link)[0] == HELLO  # with the newest version that the monitor speaks: both go by the lesser
        link.send(frame(ATTACH, OUT))
        assert receive(link)[0] == STARTED
        one("kill", "one")
        while True:
            got = receive(link)
            if got[0] == ENDED:
                break
        assert got[2] == 137


def test_rubbish_on_the_socket_harms_nobody(one):
    for data in (b"", b"x", b"\xff" * 9000, frame(HELLO, 0), frame(ATTACH, 0xffffffff), frame(EXEC, 3, b"no nul")):
        with connect(one) as link:
            if data:
                link.send(data)
    assert one("exec", "one", "echo", "well").text == "well"


class FirstMonitor(threading.Thread):
    """Takes the place of the real monitor's socket and speaks exactly version 1. answers: {type of frame: frames}."""

    KNOWN = {HELLO, ATTACH, 11, 12, 13, 14, STOP, EXEC, USER_STOP}  # all that a kelp may send it

    def __init__(self, one, answers):
        super().__init__()
        self.one, self.answers, self.got = one, {HELLO: [frame(HELLO, 1)], **answers}, []
        self.hidden = one.socket.with_name("hidden.sock")

    def __enter__(self):
        self.one.socket.rename(self.hidden)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(self.one.socket))
        self.listener.listen(8)
        self.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.join(10)
        self.listener.close()
        self.one.socket.unlink()
        self.hidden.rename(self.one.socket)
        assert set(self.types) <= self.KNOWN, "it was sent what it cannot know"

    @property
    def types(self):
        return [kind for kind, _, _ in self.got]

    def run(self):
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:  # the test is over
                return
            link.settimeout(10)
            try:
                with link:
                    while received := receive(link):
                        kind, _, value, payload = received
                        self.got.append((kind, value, payload))
                        for answer in self.answers.get(kind, ()):
                            link.send(answer)
            except OSError:  # it has heard enough
                pass


def test_exec_through_a_monitor_of_version_1(one):
    with FirstMonitor(one, {EXEC: [frame(EXEC_STARTED, 4242), frame(EXEC_ENDED, 23)]}) as old:
        assert one("exec", "one", "true", code=23).err == ""
    payload, = [payload for kind, _, payload in old.got if kind == EXEC]
    # Every version passes over records that it does not know, as "id" is.
    assert all(record.startswith((b"arg=", b"fd=", b"id=")) for record in payload.rstrip(b"\0").split(b"\0"))
    assert one("exec", "one", "echo", "back").text == "back"


def test_what_a_monitor_of_version_1_can_do_is_asked_of_it(kelp):
    """attach, wait, and kill of a container that would be started again."""
    container = kelp("run", "-d", "--name", "one", "--restart", "always", *NONE, "busybox", "sleep", "1000").text
    kelp.socket = kelp.run_dir / container / "attach.sock"
    with FirstMonitor(kelp, {ATTACH: [frame(STARTED, 4242), frame(OUTPUT, 0, b"of old\n", 1), frame(ENDED, 9)]}) as old:
        attached = kelp("attach", "--no-stdin", "one")
        assert attached.out == "of old\n\n" and attached.err == ""
        old.answers[HELLO] = [frame(HELLO, 1), frame(ENDED, 9)]  # the end is told to all who are there
        assert kelp("wait", "one").text == "9"
        old.answers[HELLO] = [frame(HELLO, 1)]
        kelp("kill", "--signal", "TERM", "one")
        assert [(kind, value) for kind, value, _ in old.got if kind in (USER_STOP, SIGNAL)] == [(USER_STOP, 0), (SIGNAL, 15)]
    kelp("kill", "one")
    assert kelp("wait", "one").text == "137"


def test_what_a_monitor_of_version_1_cannot_do_is_said_with_the_remedy(kelp):
    """update of what the monitor sees to, and a health check that is asked for: they came later, and a restart mends both."""
    container = kelp("run", "-d", "--name", "one", "--health-cmd", "true", "--health-interval", "disable", *NONE, "busybox",
                     "sleep", "1000").text
    kelp.socket = kelp.run_dir / container / "attach.sock"
    with FirstMonitor(kelp, {}):
        kelp.fails("healthcheck", "run", "one", says="monitor of container one is too old to be asked for its health",
                   hint="^hint: kelp restart one$")
        kelp.fails("update", "--restart", "on-failure:3", "one",
                   says="one was started by an older kelp, whose monitor takes no changes", hint="holds from the next start on: `kelp restart one`$")
        kelp.fails("update", "--health-cmd", "echo new", "one", says="takes no changes", hint="kelp restart one")
        kelp("update", "--env", "A=b", "one")  # this the monitor need not know
    kelp("restart", "-t", "0", "one")
    policy = json.loads(kelp("inspect", "one").out)[0]["HostConfig"]["RestartPolicy"]
    assert (policy["Name"], policy["MaximumRetryCount"]) == ("on-failure", 3)
    kelp("healthcheck", "run", "one")
    assert json.loads(kelp("inspect", "one").out)[0]["State"]["Health"]["Log"][-1]["Output"] == "new\n"
    assert kelp("exec", "one", "sh", "-c", "echo $A").text == "b"


def test_a_monitor_that_goes_away_is_named(one):
    hidden = one.socket.with_name("hidden.sock")
    one.socket.rename(hidden)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(one.socket))
        listener.listen(4)
        child = one.start("exec", "one", "true")
        listener.accept()[0].close()
        out, err = child.communicate(timeout=20)
        assert child.returncode == 125 and len(err.splitlines()) <= 2 and err
    one.socket.unlink()
    hidden.rename(one.socket)


# --- records ---------------------------------------------------------------------------------------------------------

def test_a_newer_record_is_refused_and_not_rewritten(kelp):
    old = kelp("create", "--name", "old", *NONE, "busybox", "echo", "fine").text
    new = kelp("create", "--name", "new", *NONE, "busybox", "true").text
    path = kelp.store / "containers" / new / "record.json"
    before = path.read_bytes()
    record = json.loads(before)
    record["schema"] = 99
    record["of_the_future"] = [1, 2]
    path.write_text(json.dumps(record))
    future = path.read_bytes()
    for command in (("start", "new"), ("inspect", "new"), ("rm", "new"), ("rm", "-f", "new"), ("rename", "new", "x")):
        result = kelp(*command, code=None)
        assert result.code != 0 and "newer" in result.err, result
        assert path.read_bytes() == future
    assert old in kelp("ps", "-aq", "--no-trunc", code=None).out
    assert kelp("start", "-a", "old").out == "fine\n"
    path.write_bytes(before)


def test_a_newer_state_of_a_running_container(one):
    path = one.run_dir / one.container / "state.json"
    before = path.read_bytes()
    state = json.loads(before)
    assert state["schema"] == 1
    state["schema"] = 99
    path.write_text(json.dumps(state))
    result = one("exec", "one", "true", code=None)
    assert result.code == 125 and "newer" in result.err, result
    assert json.loads(path.read_text())["schema"] == 99
    path.write_bytes(before)
    assert one("exec", "one", "echo", "back").text == "back"


def of_the_future(path, number=99):
    """Rewrites a record as one of a newer kelp; returns (its text now, its text before)."""
    before = path.read_bytes()
    record = json.loads(before)
    assert record["schema"] == 1, path
    path.write_text(json.dumps({**record, "schema": number, "of_the_future": [1, 2]}))
    return path.read_bytes(), before


def refuses(kelp, path, future, *commands, says="newer"):
    """Each of the commands ends with one line that says so, and the record is as it was."""
    for command in commands:
        result = kelp(*command, code=None)
        errors = [line for line in result.err.splitlines() if not line.startswith("hint:")]
        assert result.code != 0 and len(errors) == 1 and says in errors[0], result
        assert path.read_bytes() == future, f"{path} was rewritten:\n{result}"


def test_a_newer_exit_record(kelp):
    container = kelp("run", "-d", "--name", "c", *NONE, "busybox", "true").text
    kelp("wait", "c")
    path = kelp.store / "containers" / container / "exit.json"
    until("exit.json", path.exists)
    future, before = of_the_future(path)
    refuses(kelp, path, future, ("start", "c"), ("start", "-a", "c"), ("wait", "c"), ("restart", "c"))
    path.write_bytes(before)
    assert kelp("wait", "c").text == "0"


def test_a_newer_volume(kelp):
    kelp("volume", "create", "v")
    path = kelp.store / "volumes/v/volume.json"
    future, before = of_the_future(path)
    refuses(kelp, path, future, ("volume", "rm", "v"), ("volume", "inspect", "v"), ("volume", "create", "v"),
            ("run", "--rm", *NONE, "-v", "v:/v", "busybox", "true"))
    kelp("volume", "prune", "-f", code=None)
    assert path.read_bytes() == future
    path.write_bytes(before)
    kelp("volume", "rm", "v")


def test_a_newer_layer(kelp):
    kelp("run", "--rm", *NONE, "busybox", "true")
    layers = [path for path in kelp.store.glob("layers/*/*/layer.json") if "mount-points" not in str(path)]
    assert layers
    for path in layers:
        (path.parent / "synced").unlink(missing_ok=True)  # else the record is not even read
        future, before = of_the_future(path)
        refuses(kelp, path, future, ("run", "--rm", *NONE, "busybox", "true"))
        path.write_bytes(before)
    assert kelp("run", "--rm", *NONE, "busybox", "echo", "back").text == "back"


def test_a_newer_image_record(kelp):
    path, = kelp.store.glob("images/*.json")
    future, before = of_the_future(path)
    refuses(kelp, path, future, ("run", "--rm", *NONE, "busybox", "true"), ("inspect", "--type", "image", "busybox"))
    path.write_bytes(before)
    assert kelp("run", "--rm", *NONE, "busybox", "echo", "back").text == "back"


def test_a_newer_image_index(kelp, busybox_archive):
    path = kelp.store / "index.json"
    before = path.read_bytes()
    index = json.loads(before)
    assert index["schemaVersion"] == 2
    path.write_text(json.dumps({**index, "schemaVersion": 3, "of_the_future": {}}))
    future = path.read_bytes()
    refuses(kelp, path, future, ("images",), ("tag", "busybox", "localhost/other:1"), ("rmi", "busybox"),
            ("load", "-q", "-i", busybox_archive), says="schemaVersion")
    path.write_bytes(before)
    assert kelp("run", "--rm", *NONE, "busybox", "echo", "back").text == "back"


def test_a_newer_record_of_the_user_namespace(one):
    """Only where S may be found: it is found by the monitors then."""
    path = one.run_dir / "userns.json"
    path.write_text('{"schema":2,"of_the_future":true}')
    before = path.read_bytes()
    show = ("readlink", "/proc/self/ns/user")
    assert one("run", "--rm", *NONE, "busybox", *show).text == one("exec", "one", *show).text
    assert path.read_bytes() == before


def test_a_newer_state_of_the_runtime(kelp):
    """kelp-oci alone: its own record, under its own --root."""
    container = kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100").text
    root = kelp.run_dir / "oci"
    path = root / container / "state.json"
    future, before = of_the_future(path)
    oci = programs.program("kelp-oci")
    for command in (("state",), ("kill",), ("delete", "-f"), ("exec",)):
        result = kelp("--root", root, *command, container, *(["true"] if command == ("exec",) else []), code=None,
                      program=oci)
        assert result.code != 0 and "newer" in result.err, result
        assert path.read_bytes() == future
    path.write_bytes(before)
    assert json.loads(kelp("--root", root, "state", container, program=oci).out)["status"] == "running"


def test_a_monitor_does_not_take_a_newer_plan(kelp, place):
    """A newer engine would give it things it cannot do: it must not start half of them."""
    plan = place / "monitor.plan"
    plan.write_bytes(b"version=99\0id=x\0")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds = (theirs.fileno(), os.open(plan, os.O_RDONLY), os.open(place, os.O_RDONLY), os.open(place, os.O_RDONLY))
    try:
        result = kelp(*fds, code=None, program=programs.program("kelp-monitor"), pass_fds=fds)
    finally:
        for fd in fds[1:]:
            os.close(fd)
        ours.close()
        theirs.close()
    assert result.code == 125 and "99 is newer than this monitor" in result.err, result
    assert plan.read_bytes() == b"version=99\0id=x\0"


def test_a_newer_secret(kelp):
    kelp("secret", "create", "s", "-", stdin="x")
    path = kelp.store / "secrets/s/secret.json"
    future, before = of_the_future(path)
    refuses(kelp, path, future, ("secret", "inspect", "s"), ("secret", "create", "--replace", "s", "/etc/hostname"),
            ("run", "--rm", *NONE, "--secret", "s", "busybox", "true"))
    path.write_bytes(before)
    assert kelp("run", "--rm", *NONE, "--secret", "s", "busybox", "cat", "/run/secrets/s").out == "x"


def test_newer_results_of_health_checks(kelp):
    container = kelp("run", "-d", "--name", "c", *NONE, "--health-cmd", "true", "busybox", "sleep", "100").text
    kelp("healthcheck", "run", "c")
    kelp("kill", "c")
    kelp("wait", "c")
    path = kelp.store / "containers" / container / "health.json"
    future, before = of_the_future(path)
    refuses(kelp, path, future, ("inspect", "c"), ("start", "c"))
    assert "c" in kelp("ps", "-a", "--format", "{{.Names}}").lines
    path.write_bytes(before)
    assert "schema" not in json.loads(kelp("inspect", "c").out)[0]["State"]["Health"]
    # Those of a kelp that wrote no version yet.
    path.write_text(json.dumps({key: value for key, value in json.loads(before).items() if key != "schema"}))
    assert json.loads(kelp("inspect", "c").out)[0]["State"]["Health"]["Status"] == "healthy"
    kelp("start", "c")


def test_a_newer_event(kelp):
    kelp("volume", "create", "v")
    path = kelp.store / "events.log"
    before = path.read_bytes()
    assert all(json.loads(line)["schema"] == 1 for line in before.splitlines())
    path.write_bytes(before + before.splitlines()[-1].replace(b'"schema":1', b'"schema":99') + b"\n")
    future = path.read_bytes()
    kelp.fails("events", "--stream=false", says="events.log: written by a newer kelp")
    kelp("volume", "create", "w")
    assert path.read_bytes().startswith(future)  # what happens is still noted
    path.write_bytes(before.replace(b'"schema":1,', b""))  # those of a kelp that wrote no version yet
    assert kelp("events", "--stream=false", "--filter", "type=volume", "--format", "{{.Name}}").lines == ["v"]


def test_a_newer_layout_of_images(kelp, busybox_archive):
    path = kelp.store / "oci-layout"
    before = path.read_bytes()
    path.write_text('{"imageLayoutVersion":"2.0.0"}')
    future = path.read_bytes()
    refuses(kelp, path, future, ("tag", "busybox", "localhost/other:1"), ("rmi", "busybox"),
            ("load", "-q", "-i", busybox_archive))
    path.write_bytes(before)
    assert kelp("run", "--rm", *NONE, "busybox", "echo", "back").text == "back"


def test_a_newer_copy_of_the_image_names(kelp):
    """A copy of what index.json says: not read, and left to the one who wrote it."""
    path = kelp.store / "images/names"
    version = int(re.match(r"kelp image names (\d+) ", path.read_text()).group(1))
    path.write_text(newer := f"kelp image names {version + 1} of the future\n")
    kelp("tag", "busybox", "localhost/other:1")
    assert kelp("run", "--rm", *NONE, "other:1", "echo", "fine").text == "fine"
    assert path.read_text() == newer


# Files that are no records: what others read or wrote (blobs, logs, files that are mounted into the container, secrets),
# what is made anew when it does not fit the boot, the machine or the library, and the bundles, whose version is OCI's.
NO_RECORDS = ("/blobs/", "/diff/", "/upper/", "/work/", "/merged/", "/_data/", "/locks/", "/mount-points/", "/secrets/s/data",
              "/synced", ".log", ".bpf", ".lock", ".sock", "/hosts", "/hostname", "/resolv.conf", "/containerenv",
              "cgroups-entered", "-process.json")


def version_of(path):
    """The version that a record carries, by its form."""
    if path.name == "version":
        return path.read_text().strip()
    if path.name == "names":
        return path.read_text().removeprefix("kelp image names ").split()[0]
    record = json.loads(path.read_text())
    names = {"oci-layout": "imageLayoutVersion", "index.json": "schemaVersion", "config.json": "ociVersion"}
    return record.get(names.get(path.name, "schema"))


def test_every_file_is_a_record_with_a_version_or_known_to_be_none(kelp):
    kelp("secret", "create", "s", "-", stdin="x")
    kelp("run", "-d", "--name", "c", *NONE, "-v", "v:/v", "--secret", "s", "--health-cmd", "true", "busybox", "sleep",
         "100")
    kelp("run", "--name", "ended", *NONE, "busybox", "true")
    kelp("healthcheck", "run", "c")
    records = set()
    for top in (kelp.store, kelp.run_dir, kelp.cache / "kelp"):
        for path in top.rglob("*"):
            copied_secret = path.parent.name == "secrets"
            if path.is_file() and not path.is_symlink() and not copied_secret and not any(part in str(path) for part in NO_RECORDS):
                assert version_of(path), f"{path} has no version"
                records.add(path.name if len(path.stem) != 64 else "<image>.json")
    assert records == {"version", "oci-layout", "index.json", "names", "<image>.json", "layer.json", "record.json", "config.json",
                       "exit.json", "health.json", "volume.json", "secret.json", "state.json", "userns.json"}, records


def test_fields_that_nobody_knows_yet_are_kept_out_of_the_way(kelp):
    container = kelp("create", "--name", "c", *NONE, "busybox", "echo", "fine").text
    path = kelp.store / "containers" / container / "record.json"
    record = json.loads(path.read_text())
    record["added_within_schema_1"] = {"a": 1}
    path.write_text(json.dumps(record))
    assert kelp("start", "-a", "c").out == "fine\n"


def test_every_record_has_a_version(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "-v", "v:/v", "busybox", "sleep", "100")
    found = [*kelp.store.glob("containers/*/record.json"), *kelp.store.glob("volumes/*/volume.json"),
             *kelp.run_dir.glob("*/state.json"), *kelp.store.glob("layers/*/*/layer.json")]
    assert len(found) >= 4
    for path in found:
        assert json.loads(path.read_text()).get("schema") == 1, path
    kelp("kill", "c")
    kelp("wait", "c")
    ended = until("exit.json", lambda: list(kelp.store.glob("containers/*/exit.json")))
    assert json.loads(ended[0].read_text())["schema"] == 1
