"""Volumes: export and import, owners, prune, overlays (:O), image and glob mounts."""

import io
import tarfile

NONE = ("--network", "none")


def archive(**files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid, info.mode = len(text), 3, 4, 0o640
            tar.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


def test_export_and_import(kelp, place):
    kelp("run", "--rm", *NONE, "-v", "v:/data", "busybox", "sh", "-c",
         "mkdir /data/d; echo one > /data/d/one; chown 5:6 /data/d/one; chmod 600 /data/d/one; ln -s d/one /data/link")
    kelp("volume", "export", "-o", place / "v.tar", "v")
    with tarfile.open(place / "v.tar") as tar:
        member = tar.getmember("d/one")
        assert (member.uid, member.gid, member.mode) == (5, 6, 0o600) and tar.getmember("link").linkname == "d/one"
    kelp("volume", "create", "w")
    kelp("volume", "import", "w", place / "v.tar")
    look = "cd /data; cat d/one link; stat -c %u:%g:%a d/one"
    assert kelp("run", "--rm", *NONE, "-v", "w:/data", "busybox", "sh", "-c", look).lines == ["one", "one", "5:6:600"]
    kelp("volume", "import", "w", "-", stdin=archive(more="m"))
    assert kelp("run", "--rm", *NONE, "-v", "w:/data", "busybox", "sh", "-c", "ls /data; stat -c %u:%g /data/more").lines == [
        "d", "link", "more", "3:4"]
    kelp.fails("volume", "export", "nothing", says="no such volume")
    kelp.fails("volume", "import", "w", place / "nothing", says="nothing")
    kelp.fails("volume", "import", "w", "-", stdin=b"no tar at all" * 100, says="tar|archive|header")


def test_a_hostile_archive_stays_inside(kelp, place):
    kelp("volume", "create", "v")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(place)
        tar.addfile(link)
        info = tarfile.TarInfo("out/escaped")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    kelp("volume", "import", "v", "-", stdin=data.getvalue(), code=None)
    assert not (place / "escaped").exists()


def test_owner_of_a_volume(kelp):
    kelp("volume", "create", "--uid", "7", "--gid", "8", "v")
    assert kelp("run", "--rm", *NONE, "-v", "v:/data", "busybox", "stat", "-c", "%u:%g", "/data").text == "7:8"


def test_prune(kelp):
    kelp("volume", "create", "named")
    kelp("create", "--name", "c", *NONE, "-v", "/anonymous", "busybox", "true")
    kelp("rm", "c")
    anonymous = [name for name in kelp("volume", "ls", "-q").lines if name != "named"]
    assert len(anonymous) == 1
    assert kelp("volume", "prune", "--dry-run").lines == anonymous and len(kelp("volume", "ls", "-q").lines) == 2
    assert kelp("volume", "prune", "--force").lines == anonymous
    assert kelp("volume", "prune", "--force", "--all").lines == ["named"]


def test_overlay_volumes(kelp, place):
    source = place / "source"
    source.mkdir()
    (source / "file").write_text("below\n")
    run = lambda *options: kelp("run", "--rm", *NONE, "-v", f"{source}:/data:O", *options, "busybox", "sh", "-c",
                                "cat /data/file; echo above > /data/file; touch /data/new; cat /data/file").lines
    assert run() == ["below", "above"] == run()
    assert (source / "file").read_text() == "below\n" and [p.name for p in source.iterdir()] == ["file"]
    kelp("create", "--name", "c", *NONE, "-v", f"{source}:/data:O", "busybox", "sh", "-c", "ls /data; touch /data/new")
    assert kelp("start", "-a", "c").lines == ["file"] == kelp("start", "-a", "c").lines
    kelp.fails("run", *NONE, "-v", f"{source}:/data:O,U", "busybox", "true", says="exclude")


def test_image_mounts(kelp):
    out = kelp("run", "--rm", *NONE, "--mount", "type=image,source=busybox,target=/image", "busybox", "sh", "-c",
               "ls /image/bin/busybox; touch /image/x || echo refused").lines
    assert out == ["/image/bin/busybox", "refused"]
    kelp.fails("run", *NONE, "--mount", "type=image,source=nothing,target=/i", "busybox", "true", says="no image", hint="pull")


def test_glob_mounts(kelp, place):
    for name in ("a.conf", "b.conf", "c.txt"):
        (place / name).write_text(name)
    out = kelp("run", "--rm", *NONE, "--mount", f"type=glob,src={place}/*.conf,dst=/etc/conf,ro", "busybox", "sh", "-c",
               "cat /etc/conf/*; echo x > /etc/conf/a.conf || echo refused").text
    assert out == "a.confb.confrefused"
    kelp.fails("run", *NONE, "--mount", f"type=glob,src={place}/*.none,dst=/x", "busybox", "true", says="nothing matches")


def test_terminals_of_its_own(kelp):
    out = kelp("run", "--rm", *NONE, "--mount", "type=devpts,target=/terminals,mode=0600,max=4", "busybox", "sh", "-c",
               "grep ' /terminals ' /proc/mounts; ls /terminals").lines
    assert " devpts " in out[0] and "mode=600" in out[0] and "max=4" in out[0] and out[1:] == ["ptmx"]
    kelp.fails("create", *NONE, "--mount", "type=devpts,target=/t,size=1", "busybox", "true", says="size=1")
