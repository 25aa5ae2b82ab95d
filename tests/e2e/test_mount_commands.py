"""mount, unmount, cleanup, volume mount/unmount/reload, and cp between and within containers."""

import json

from harness.waiting import until

NONE = ("--network", "none")


def unshared(kelp, script, **more):
    return kelp("unshare", "sh", "-c", script.replace("kelp ", f"{kelp.path} "), **more)


def test_mount_needs_unshare(kelp):
    kelp("create", "--name", "c", *NONE, "busybox", "true")
    kelp.fails("mount", "c", says="user namespace", hint="kelp unshare")
    kelp.fails("mount", says="user namespace", hint="kelp unshare")


def test_mount_of_a_stopped_one_is_written_to(kelp):
    kelp("create", "--name", "c", *NONE, "busybox", "cat", "/note")
    out = unshared(kelp, "d=$(kelp mount c); echo hello > $d/note; kelp mount; kelp mount --format json; kelp unmount c; kelp mount")
    identity = kelp("inspect", "-f", "{{.Id}}", "c").text
    assert out.lines[0].split()[0] == identity[:12]
    listed = json.loads("\n".join(line for line in out.lines[1:] if line not in ("c",)))
    assert listed[0]["id"] == identity and listed[0]["Names"] == ["c"] and out.lines[-1] == "c"
    assert kelp("start", "-a", "c").text == "hello"


def test_mount_of_a_running_one_is_its_own(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sh", "-c", "while ! test -e /seen; do sleep 0.1; done; echo seen; sleep 1000")
    unshared(kelp, "d=$(kelp mount c) && touch $d/seen && kelp umount c")
    until("seen", lambda: kelp("logs", "c").text == "seen")


def test_unmount_says_what_is_wrong(kelp):
    kelp("create", "--name", "c", *NONE, "busybox", "true")
    assert unshared(kelp, "kelp unmount c; kelp unmount --all").lines == ["c"]  # nothing to take away is no failure
    assert kelp("unmount", "c").text == "c" and kelp("unmount", "-a").out == ""
    kelp.fails("unmount", "--latest", says="not mounted")
    result = unshared(kelp, "cd $(kelp mount c); kelp unmount c; kelp unmount --force --all", code=0)
    assert "kelp unmount --force" in result.err and len(result.lines) == 1


def test_all_containers_are_mounted(kelp):
    for name in "abc":
        kelp("create", "--name", name, *NONE, "busybox", "true")
    assert len(unshared(kelp, "kelp mount --all").lines) == 3
    assert len(unshared(kelp, "kelp mount --latest").lines) == 1


def test_cleanup(kelp):
    kelp("run", "-d", "--name", "r", *NONE, "busybox", "sleep", "1000")
    kelp("run", "--name", "done", *NONE, "busybox", "true")
    kelp.fails("container", "cleanup", "r", says="running", hint="kelp stop r")
    result = kelp("container", "cleanup", "--all", code=125)
    assert result.text == kelp("inspect", "-f", "{{.Id}}", "done").text and "r is running" in result.err
    assert kelp("container", "cleanup", "--rm", "done").text == "done"
    assert kelp("ps", "-a", "--format", "{{.Names}}").lines == ["r"]


def test_cleanup_of_what_init_made(kelp):
    kelp("create", "--name", "i", *NONE, "busybox", "echo", "hello")
    kelp("init", "i")
    assert kelp("container", "cleanup", "i").text == "i"
    assert kelp("inspect", "-f", "{{.State.Status}}", "i").text in ("created", "exited")
    assert kelp("start", "-a", "i").text == "hello"


def test_volume_mount_prints_where_the_files_are(kelp):
    kelp("volume", "create", "v")
    kelp("run", "--rm", *NONE, "-v", "v:/d", "busybox", "sh", "-c", "echo kept > /d/f")
    path = kelp("volume", "mount", "v").text
    assert kelp("unshare", "cat", f"{path}/f").text == "kept"
    assert kelp("volume", "unmount", "v").text == "v"
    kelp.fails("volume", "unmount", "nothing", says="nothing")
    kelp("volume", "create", "-o", "type=tmpfs", "t")
    kelp.fails("volume", "mount", "t", says="tmpfs")


def test_volume_reload_takes_up_a_copy(kelp):
    kelp("volume", "create", "v")
    directory = kelp.store / "volumes" / "copied" / "_data"
    directory.mkdir(parents=True)
    (directory / "f").write_text("copied\n")
    assert kelp("volume", "ls", "-q").lines == ["v"]
    assert kelp("volume", "reload").lines == ["Added:", "copied"]
    assert kelp("volume", "reload").lines == []
    assert kelp("run", "--rm", *NONE, "-v", "copied:/d", "busybox", "cat", "/d/f").text == "copied"


def test_cp_between_and_within(kelp):
    kelp("run", "-d", "--name", "a", *NONE, "busybox", "sh", "-c", "mkdir -p /srv/d; echo 1 > /srv/d/one; sleep 1000")
    kelp("create", "--name", "b", *NONE, "busybox", "cat", "/again/one")
    until("made", lambda: kelp("exec", "a", "cat", "/srv/d/one", code=None).code == 0)
    kelp("cp", "a:/srv/d", "b:/copy")                      # running to stopped
    kelp("cp", "b:/copy", "b:/again")                      # within a stopped one
    assert kelp("start", "-a", "b").text == "1"
    kelp("cp", "a:/srv/d/one", "a:/srv/two")               # within a running one
    assert kelp("exec", "a", "cat", "/srv/two").text == "1"
    kelp("cp", "b:/again", "a:/back")                      # stopped to running
    assert kelp("exec", "a", "cat", "/back/one").text == "1"
    kelp.fails("cp", "a:/missing", "a:/x", says="missing")


def test_what_is_mounted_below_a_container_is_not_deleted_with_it(kelp, place):
    (place / "precious").write_text("of the host\n")
    there = kelp.store / "containers" / kelp("create", "--name", "c", *NONE, "busybox", "true").text / "there"
    there.mkdir()
    unshared(kelp, f"mount --bind {place} {there} && kelp rm c")
    assert (place / "precious").read_text() == "of the host\n"
    kelp("create", "--name", "d", *NONE, "busybox", "true")
    kelp("rm", "d")  # the next one takes along what is left
    assert not list((kelp.store / "trash").iterdir())
