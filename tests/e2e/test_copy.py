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


def test_volumes_are_seen_while_it_is_stopped(kelp, place):
    (place / "bound").mkdir()
    (place / "bound/old").write_text("old\n")
    (place / "file").write_text("host\n")
    kelp("create", "--name", "c", *NONE, "-v", "v:/data", "-v", f"{place}/bound:/bound", "-v", f"{place}/bound:/fixed:ro",
         "-v", f"{place}/file:/etc/one", "busybox", "cat", "/data/file", "/bound/file", "/data/more")
    kelp("cp", place / "file", "c:/data/file")
    kelp("cp", "-", "c:/data", stdin=archive(more="tar\n"))
    assert kelp("run", "--rm", *NONE, "-v", "v:/data", "busybox", "cat", "/data/file", "/data/more").lines == ["host", "tar"]
    kelp("cp", place / "file", "c:/bound/file")
    assert (place / "bound/file").read_text() == "host\n"
    kelp.fails("cp", place / "file", "c:/fixed/file", says="Read-only file system")
    kelp("cp", "c:/fixed/old", "c:/bound/again")
    assert (place / "bound/again").read_text() == "old\n"
    kelp("cp", "c:/data/more", place / "back")
    assert (place / "back").read_text() == "tar\n"
    assert out(kelp, place, "c:/etc/one") == ["one"]
    assert not [line for line in kelp("diff", "c").lines if "file" in line or "more" in line]  # nothing of it is the container's
    assert kelp("start", "-a", "c").lines == ["host", "host", "tar"]


def test_a_new_volume_takes_along_what_was_copied_over_its_image(kelp, place):
    (place / "file").write_text("host\n")
    kelp("create", "--name", "c", *NONE, "-v", "v:/etc", "busybox", "sh", "-c", "cat /etc/mine; grep -c root /etc/passwd")
    kelp("cp", place / "file", "c:/etc/mine")
    assert kelp("start", "-a", "c").lines[0] == "host" and kelp("logs", "c").lines[1] != "0"
    kelp("cp", place / "file", "c:/etc/later")  # now it is a volume like any other
    assert kelp("run", "--rm", *NONE, "-v", "v:/etc", "busybox", "cat", "/etc/mine", "/etc/later").lines == ["host", "host"]


def test_a_stopped_container_whose_sources_are_gone(kelp, place):
    (place / "bound").mkdir()
    kelp("create", "--name", "c", *NONE, "-v", f"{place}/bound:/bound", "busybox", "true")
    (place / "bound").rmdir()
    kelp("cp", "c:/etc/passwd", place / "passwd")
    assert (place / "passwd").read_text().startswith("root:")


def test_a_link_in_a_volume_leads_nowhere_from_a_stopped_container(kelp, place):
    (place / "secret").write_text("of the host\n")
    kelp("run", "--rm", *NONE, "-v", "v:/data", "busybox", "ln", "-s", place, "/data/trap")
    kelp("create", "--name", "c", *NONE, "--mount", "type=volume,source=v,target=/x,subpath=trap", "busybox", "true")
    assert kelp("cp", "c:/x/secret", place / "got", code=None).code == 125 and not (place / "got").exists()


def test_owners_of_what_comes_from_the_host(kelp, place):
    """To the container's user, or with --archive=false as the caller's user namespace has them: the caller is root."""
    (place / "dir").mkdir()
    (place / "dir/file").write_text("host\n")
    show = ("stat", "-c", "%u:%g", "/tmp/user", "/tmp/user/file", "/tmp/kept", "/tmp/kept/file")
    for name, options in (("c", ()), ("k", ("--userns", "keep-id:uid=5,gid=6"))):
        kelp("create", "--name", name, "--user", "5:6", *options, *NONE, "busybox", *show)
        kelp("cp", place / "dir", f"{name}:/tmp/user")
        kelp("cp", "--archive=false", place / "dir", f"{name}:/tmp/kept")
        assert kelp("start", "-a", name).lines == ["5:6", "5:6", "0:0", "0:0"]


def test_hard_links_in_a_tree(kelp, place):
    """Names of one file arrive as names of one file; where something is mounted in between, as two files."""
    tree = place / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "one").write_text("text\n")
    (tree / "sub/two").hardlink_to(tree / "one")
    (tree / "sub/three").hardlink_to(tree / "one")
    kelp("create", "--name", "c", "-v", "v:/mounted/tree/sub", *NONE, "busybox", "stat", "-c", "%h %s %n", "/copied/one",
         "/again/sub/two", "/mounted/tree/one", "/mounted/tree/sub/two", "/mounted/tree/sub/three")
    kelp("cp", tree, "c:/copied")
    kelp("cp", f"{tree}/.", "c:/copied")  # over what is there
    kelp("cp", "c:/copied", "c:/again")
    kelp("cp", tree, "c:/mounted")
    counts = [line.split()[:2] for line in kelp("start", "-a", "c").lines]
    assert counts[:2] == [["3", "5"], ["3", "5"]] and [size for _, size in counts] == ["5"] * 5
    assert sum(int(count) for count, _ in counts[2:]) in (3, 1 + 2 + 2), counts
    kelp("cp", "c:/copied", place / "back")
    assert (place / "back/one").stat().st_ino == (place / "back/sub/two").stat().st_ino
    assert (place / "back/one").stat().st_nlink == 3
    kelp("cp", "c:/copied/.", place / "flat")
    assert (place / "flat/one").stat().st_nlink == 3
    assert out(kelp, place, "c:/copied") == ["copied", "copied/one", "copied/sub", "copied/sub/three", "copied/sub/two"]
    with tarfile.open(place / "out.tar") as tar:
        assert [member.linkname for member in tar if member.islnk()] == ["copied/one"] * 2


def test_owners_in_a_tar_are_those_of_the_user(kelp, place):
    """By the ids of the caller's user namespace, in which he is root, whatever map the container has."""
    for name, options, owner in (("c", ("--user", "5:6"), (5, 6)), ("k", ("--userns", "keep-id"), (0, 0)),
                                 ("m", ("--userns", "keep-id:uid=5,gid=6", "--user", "0"), (1, 1))):
        kelp("create", "--name", name, *options, *NONE, "busybox", "true")
        assert out(kelp, place, f"{name}:/etc/passwd") == ["passwd"]
        with tarfile.open(place / "out.tar") as tar:
            assert {(member.uid, member.gid) for member in tar} == {owner}, name
