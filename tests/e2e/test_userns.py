"""One user namespace per user, held only by running containers; what is inside it, and who owns the files."""

import os
import stat
import subprocess
import time

import pytest

from harness import needs, processes
from harness.waiting import until

NONE = ("--network", "none")


@pytest.fixture(autouse=True)
def _ranges():
    needs.need("subids")


def userns_of(pid):
    return os.readlink(f"/proc/{pid}/ns/user")


def monitors():
    return [pid for pid, state, name in processes.descendants() if "monitor" in name and state != "Z"]


def test_sixteen_parallel_starts_from_idle_end_in_one(kelp):
    for _ in range(3):
        children = [kelp.start("run", "-d", "--name", f"c{n}", *NONE, "busybox", "sleep", "100") for n in range(16)]
        for child in children:
            assert child.wait(timeout=120) == 0, child.stderr.read()
        found = monitors()
        assert len(found) == 16
        assert len({userns_of(pid) for pid in found}) == 1
        kelp("rm", "-f", "-a", "-t", "0", timeout=120)
        kelp.end_children()


def test_it_lives_exactly_as_long_as_containers_do(kelp):
    kelp("run", "-d", "--name", "a", *NONE, "busybox", "sleep", "100")
    first = userns_of(monitors()[0])
    kelp("run", "-d", "--name", "b", *NONE, "busybox", "sleep", "100")
    kelp("rm", "-f", "-t", "0", "a")
    assert {userns_of(pid) for pid in monitors()} == {first}
    kelp("rm", "-f", "-t", "0", "b")
    assert processes.wait_gone(1) == []


def test_zero_inside_is_the_caller(kelp):
    out = kelp("run", "--rm", *NONE, "busybox", "cat", "/proc/self/uid_map").lines
    assert out[0].split() == ["0", str(os.getuid()), "1"]
    assert len(out) >= 2 and out[1].split()[0] == "1"


def test_keep_id(kelp):
    out = kelp("run", "--rm", "--userns", "keep-id", *NONE, "busybox", "sh", "-c", "id -u; id -g; stat -c %u /").lines
    assert out == [str(os.getuid()), str(os.getgid()), "0"]
    out = kelp("run", "--rm", "--userns", "keep-id:uid=1000,gid=1000", *NONE, "busybox", "sh", "-c", "id -un; id -g").lines
    assert out == ["app", "1000"]


def test_nomap(kelp):
    out = kelp("run", "--rm", "--userns", "nomap", *NONE, "busybox", "cat", "/proc/self/uid_map").out
    assert out.split()[0] == "0"


def test_auto(kelp):
    kelp("run", "-d", "--name", "a", "--userns", "auto:size=1024", *NONE, "busybox", "sleep", "100")
    kelp("run", "-d", "--name", "b", "--userns", "auto:size=1024", *NONE, "busybox", "sleep", "100")
    spans = []
    for name in ("a", "b"):
        inside, outside, count = kelp("exec", name, "cat", "/proc/self/uid_map").text.split()
        spans.append((int(outside), int(count)))
        assert (inside, count) == ("0", "1024")
    assert abs(spans[0][0] - spans[1][0]) >= 1024


def test_uidmap(kelp):
    out = kelp("run", "--rm", "--uidmap", "0:1:1000", "--gidmap", "0:1:1000", *NONE, "busybox", "sh", "-c",
               "cat /proc/self/uid_map; touch /f && stat -c %u /f /etc/passwd").lines
    assert out[0].split()[0] == "0" and out[0].split()[2] == "1000" and out[1:] == ["0", "0"]


@pytest.mark.parametrize("mode", [(), ("--userns", "host"), ("--userns", "keep-id"),
                                  ("--userns", "keep-id:uid=1000,gid=1000"), ("--userns", "nomap"), ("--userns", "auto"),
                                  ("--uidmap", "0:1:2000", "--gidmap", "0:1:2000")])
def test_state_and_log_files_belong_to_the_caller(kelp, mode):
    container = kelp("run", "-d", "--name", "c", *mode, *NONE, "busybox", "sh", "-c", "echo logged; sleep 100").text
    until("a line in the log", lambda: kelp("logs", "c").text == "logged")
    assert foreign_files(kelp) == []
    assert kelp("exec", "c", "echo", "x").text == "x"
    kelp("kill", "c")
    assert kelp("wait", "c").text == "137"
    ended = kelp.store / "containers" / container / "exit.json"
    until("the record of the end", ended.exists)
    assert ended.stat().st_uid == os.getuid() and foreign_files(kelp) == []


def foreign_files(kelp):
    """Those of kelp's own that are not the caller's."""
    foreign = []
    for top in (kelp.store / "containers", kelp.run_dir, kelp.store / "names"):
        for directory, names, files in os.walk(top):
            # What the container itself owns: its writable layer, the overlay's own work directory, and the files of /etc
            # that are mounted into it and that its root may change.
            names[:] = [n for n in names if n not in ("upper", "work", "merged")]
            etc = {"hosts", "hostname", "resolv.conf", "passwd", "group", "containerenv"}
            for name in names + [file for file in files if file not in etc]:
                info = os.lstat(os.path.join(directory, name))
                if info.st_uid != os.getuid():
                    foreign.append(os.path.join(directory, name))
    return foreign


def test_exec_and_cp_on_keep_id_and_shared_network(kelp, place):
    (place / "file").write_text("copied\n")
    kelp("run", "-d", "--name", "net", *NONE, "busybox", "sleep", "100")
    kelp("run", "-d", "--name", "keep", "--userns", "keep-id", *NONE, "busybox", "sleep", "100")
    kelp("run", "-d", "--name", "shared", "--network", "container:net", "busybox", "sleep", "100")
    for name in ("keep", "shared"):
        kelp("cp", place / "file", f"{name}:/tmp/file")
        assert kelp("exec", name, "cat", "/tmp/file").out == "copied\n"
        kelp("cp", f"{name}:/tmp/file", place / f"back-{name}")
        assert (place / f"back-{name}").read_text() == "copied\n"
        assert (place / f"back-{name}").stat().st_uid == os.getuid()


def test_unshare_command(kelp):
    out = kelp("unshare", "sh", "-c", "id -u; cat /proc/self/uid_map").lines
    assert out[0] == "0" and len(out) >= 3


def test_no_mount_appears_on_the_host(kelp):
    before = open("/proc/self/mountinfo").read()
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100")
    assert open("/proc/self/mountinfo").read() == before


def test_directories_are_private(kelp):
    kelp("run", "--rm", *NONE, "busybox", "true")
    for path in (kelp.store, kelp.run_dir):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


# --- less than everything: no ranges, no helper ----------------------------------------------------------------------

def single(kelp, *args, **more):
    """A caller whose newuidmap cannot do anything: no_new_privs takes the set-user-id bit from it."""
    return kelp("--no-new-privs", kelp.path, *args, program="setpriv", timeout=60, **more)


def test_single_id_mode_under_no_new_privs(kelp):
    result = single(kelp, "run", "--rm", *NONE, "busybox", "sh", "-c", "id -u; cat /proc/self/uid_map; touch /f; chown 5:6 /f; "
                    "echo $?")
    assert result.lines[0] == "0" and result.lines[1].split() == ["0", str(os.getuid()), "1"] and result.lines[-1] == "0"
    assert len(result.err.splitlines()) <= 2


def test_a_user_in_single_id_mode(kelp):
    assert single(kelp, "run", "--rm", *NONE, "-u", "1000", "busybox", "echo", "ran").text == "ran"


def test_an_xdg_runtime_dir_of_someone_else_is_not_used(kelp):
    out = kelp("run", "--rm", *NONE, "busybox", "echo", "fine", env={"XDG_RUNTIME_DIR": "/run"})
    assert out.text == "fine"
    out = subprocess.run(kelp.argv("ps"), env={k: v for k, v in kelp.env.items() if k != "XDG_RUNTIME_DIR"},
                         capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
