"""`cp` with tar streams, and with volumes in its way."""

import io
import tarfile

NONE = ("--network", "none")


def archive(**files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid = len(text), 3, 4
            tar.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


def names(path):
    with tarfile.open(path) as tar:
        return sorted(member.name for member in tar.getmembers())


def out(kelp, place, source):
    """What `cp SOURCE -` writes."""
    with (place / "out.tar").open("wb") as file:
        child = kelp.start("cp", source, "-", stdout=file)
        assert child.wait(60) == 0
    return names(place / "out.tar")


def test_out(kelp, place):
    kelp("run", "--name", "c", *NONE, "busybox", "sh", "-c", "mkdir -p /srv/d; echo 1 > /srv/d/one; echo 2 > /two")
    assert out(kelp, place, "c:/srv/d") == ["d", "d/one"]
    assert out(kelp, place, "c:/srv/d/.") == ["one"]
    assert out(kelp, place, "c:/two") == ["two"]
    kelp.fails("cp", "c:/nothing/at/all", "-", says="nothing")


def test_in_stopped_and_running(kelp):
    kelp("create", "--name", "c", "--user", "5:6", *NONE, "busybox", "sh", "-c", "cat /srv/one; stat -c %u:%g /srv/one; sleep 1000")
    kelp("cp", "-", "c:/", stdin=archive(**{"srv/one": "first\n"}))
    kelp("start", "c")
    from harness.waiting import until
    until("printed", lambda: kelp("logs", "c").lines == ["first", "5:6"])
    kelp("cp", "-", "c:/srv", stdin=archive(two="second\n"))
    assert kelp("exec", "c", "cat", "/srv/two").text == "second"
    kelp("cp", "-a=false", "-", "c:/srv", stdin=archive(three="third\n"))
    assert kelp("exec", "c", "stat", "-c", "%u:%g", "/srv/three").text == "3:4"
    kelp.fails("cp", "-", "c:/srv/two", stdin=archive(x="x"), says="no directory")
    kelp.fails("cp", "-", "c:/nowhere", stdin=archive(x="x"), says="nowhere")


def test_a_link_in_the_archive_does_not_lead_out(kelp, place):
    kelp("create", "--name", "c", *NONE, "busybox", "true")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(place)
        tar.addfile(link)
        info = tarfile.TarInfo("out/escaped")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    kelp("cp", "-", "c:/tmp", stdin=data.getvalue(), code=None)
    assert not (place / "escaped").exists()


def test_volumes_are_seen_while_it_runs(kelp, place):
    kelp("run", "-d", "--name", "c", *NONE, "-v", "v:/data", "busybox", "sleep", "1000")
    (place / "file").write_text("host\n")
    kelp("cp", place / "file", "c:/data/file")
    assert kelp("run", "--rm", *NONE, "-v", "v:/data", "busybox", "cat", "/data/file").text == "host"
    kelp("cp", "-", "c:/data", stdin=archive(more="tar\n"))
    assert kelp("run", "--rm", *NONE, "-v", "v:/data", "busybox", "cat", "/data/more").text == "tar"
