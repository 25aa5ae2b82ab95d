"""`commit` and `diff`: a container's own layer, seen and kept."""

import json
import tarfile

import pytest

from harness import confine

NONE = ("--network", "none")


@pytest.fixture
def changed(kelp):
    """A container that has added, changed and deleted something."""
    kelp("run", "--name", "c", *NONE, "-v", "/data", "-e", "GREETING=hello", "busybox", "sh", "-c",
         "mkdir -p /srv/deep && echo new > /srv/deep/new && chown 5:6 /srv/deep/new && echo x >> /etc/passwd && "
         "rm /bin/vi; echo volume > /data/file; ln /srv/deep/new /srv/hard")
    return kelp


def test_diff_of_a_container(changed):
    lines = changed("diff", "c").lines
    assert "A /srv/deep/new" in lines and "C /etc/passwd" in lines and "C /etc" in lines
    assert not [line for line in lines if "/data" in line or "/proc" in line or "hosts" in line or "/dev" in line]
    seen = json.loads(changed("container", "diff", "--format", "json", "c").out)
    assert "/srv/hard" in seen["added"] and "/etc/passwd" in seen["changed"]
    assert changed("diff", "--latest").lines == lines
    changed.fails("diff", "nothing", says="neither")
    changed.fails("container", "diff", "busybox", says="no such container")


def test_diff_knows_what_is_gone(kelp):
    kelp("run", "--name", "c", *NONE, "busybox", "sh", "-c",
         "mkdir /n && cp /bin/busybox /n && cd /n && ./busybox rm -r /bin && ./busybox mkdir /bin && ./busybox touch /bin/own")
    lines = kelp("diff", "c").lines
    assert "D /bin/busybox" in lines and "A /bin/own" in lines and "C /bin" in lines


def test_diff_of_an_image_and_of_one_never_started(kelp):
    kelp("create", "--name", "c", *NONE, "busybox", "true")
    assert kelp("diff", "c").text == ""
    assert "A /bin/busybox" in kelp("diff", "busybox").lines


def test_commit_keeps_files_and_settings(changed, place):
    image = changed("commit", "-q", "--author", "A. Lga", "--message", "grown", "--change", "CMD cat /srv/deep/new",
                    "--change", "LABEL tier=web", "--iidfile", place / "id", "c", "grown:1").text
    assert len(image) == 64 and (place / "id").read_text() == image
    assert changed("run", "--rm", *NONE, "grown:1").text == "new"
    assert changed("run", "--rm", *NONE, "grown:1", "sh", "-c",
                   "stat -c %u:%g:%h /srv/deep/new; ls /data; echo $GREETING; tail -n 1 /etc/passwd").lines == [
                       "5:6:2", "hello", "x"]
    seen = json.loads(changed("image", "inspect", "grown:1").out)[0]
    assert seen["Id"] == image and seen["Author"] == "A. Lga" and seen["Comment"] == "grown"
    assert seen["Config"]["Labels"]["tier"] == "web" and "GREETING=hello" in seen["Config"]["Env"]
    base = json.loads(changed("image", "inspect", "busybox").out)[0]
    assert seen["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"] and seen["History"][-1]["comment"] == "grown"
    events = changed("events", "--stream=false", "--filter", "event=commit", "--format", "{{.Name}}").lines
    assert events == ["c"]


def test_commit_knows_what_is_gone(kelp):
    kelp("run", "--name", "c", *NONE, "busybox", "sh", "-c", "rm /etc/group; rm -r /root; mkdir /root; touch /root/own")
    kelp("commit", "-q", "c", "less")
    assert kelp("run", "--rm", *NONE, "less", "sh", "-c", "ls /root; test ! -e /etc/group && echo gone").lines == ["own", "gone"]


def test_squash(changed):
    changed("commit", "-q", "--squash", "c", "flat")
    seen = json.loads(changed("image", "inspect", "flat").out)[0]
    assert len(seen["RootFS"]["Layers"]) == 1
    assert changed("run", "--rm", *NONE, "flat", "sh", "-c", "cat /srv/deep/new; tail -n 1 /etc/passwd").lines == ["new", "x"]
    assert changed("run", "--rm", *NONE, "flat", "sh", "-c", "ls /data | wc -l").text == "0"


def test_docker_format_and_archives(changed, place):
    changed("commit", "-q", "--format", "docker", "c", "dock")
    manifest = json.loads(changed("image", "inspect", "--format", "{{json .Digest}}", "dock").out)
    blob = changed.store / "blobs/sha256" / manifest.removeprefix("sha256:")
    assert json.loads(blob.read_text())["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    changed("save", "-q", "-o", place / "dock.tar", "dock")
    with tarfile.open(place / "dock.tar") as archive:
        assert any(name.endswith("manifest.json") for name in archive.getnames())


def test_commit_of_a_running_one_and_of_one_never_started(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sh", "-c", "echo here > /here; sleep 1000")
    from harness.waiting import until
    until("written", lambda: kelp("exec", "c", "cat", "/here", code=None).text == "here")
    kelp("commit", "-q", "c", "live")
    kelp("commit", "-q", "-s", "c", "flat")
    for image in ("live", "flat"):
        assert kelp("run", "--rm", *NONE, image, "cat", "/here").text == "here"
    kelp("create", "--name", "n", *NONE, "busybox", "true")
    image = kelp("commit", "-q", "n").text
    assert kelp("run", "--rm", *NONE, image, "echo", "runs").text == "runs"


def test_secrets_do_not_go_in(kelp):
    kelp("secret", "create", "pw", "-", stdin="hush-4711-kelp")
    kelp("run", "--name", "c", *NONE, "--secret", "pw", "--secret", "pw,type=env,target=WORD", "busybox", "true")
    kelp("commit", "-q", "c", "kept")
    image = kelp("image", "inspect", "kept").out
    assert "hush-4711" not in image and "WORD" not in image
    assert kelp("run", "--rm", *NONE, "kept", "sh", "-c", "cat /run/secrets/pw || true").text in ("", )


def test_refusals(kelp):
    kelp.fails("commit", "nobody", says="no such container")
    kelp("create", "--name", "c", *NONE, "busybox", "true")
    kelp.fails("commit", "c", "Not A Name", says="Not A Name")
    kelp.fails("commit", "--change", "DANCE now", "c", says="DANCE")


def export(kelp, name):
    """{path: (type, mode, uid, gid, size)}"""
    kelp("export", "-o", kelp.dir / "export.tar", name)
    with tarfile.open(kelp.dir / "export.tar") as tar:
        return {member.name: (member.type, member.mode, member.uid, member.gid, member.size) for member in tar}


def test_export_sees_nothing_of_what_is_mounted(kelp, place):
    """Whether the container runs or not: what lies below, also where no mount call can uncover it."""
    (place / "bound").write_text("of the host\n")
    (place / "bound").chmod(0o640)
    for options in ((), ("--userns", "keep-id")):
        kelp("run", "-d", "--name", "c", *NONE, *options, "-v", "v:/data", "-v", f"{place}/bound:/bound", "busybox", "sleep", "1000")
        kelp("exec", "-u", "0", "c", "touch", "/data/file")
        running = export(kelp, "c")
        assert running["sys"] == running["proc"] == running["dev"] == (tarfile.DIRTYPE, 0o755, 0, 0, 0)
        assert running["bound"][4] == 0 and running["data"][0] == tarfile.DIRTYPE and "data/file" not in running
        with (place / "refused.tar").open("wb") as file:  # no mount call can uncover what is below
            refused = confine.command(kelp.path, "export", "c", deny=("open_tree",))
            assert kelp.start(*refused[1:], path=refused[0], stdout=file).wait(60) == 0
        with tarfile.open(place / "refused.tar") as tar:
            below = {member.name: (member.type, member.mode, member.uid, member.gid, member.size) for member in tar}
        assert below.keys() == running.keys() and below["bound"][4] == 0
        assert [below[name] for name in ("sys", "proc", "dev")] == [running[name] for name in ("sys", "proc", "dev")]
        kelp("commit", "-q", "-s", "c", "flat")
        assert kelp("diff", "c").lines == [line for line in kelp("diff", "c").lines if "sys" not in line and "bound" not in line]
        kelp("stop", "-t", "0", "c")
        assert export(kelp, "c") == running
        kelp("create", "--name", "f", *NONE, "flat", "true")
        flat = export(kelp, "f")
        assert flat["sys"] == running["sys"] and flat["proc"] == running["proc"] and flat["bound"] == running["bound"]
        kelp("rm", "c", "f")
