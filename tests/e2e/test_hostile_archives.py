"""Layers that no honest tool makes, each with its verdict: refused with one clear line that has certain words, or
unpacked faithfully, as the check beside it says. Nothing is ever written outside of the layer, memory stays bounded, and
a store that refused something is as it was."""

import hashlib
import json
import os
import pathlib
import re
import stat
import subprocess

import pytest

from harness import needs
from harness.cost import measure
from harness.images import Image, LayerTar, digest
from test_store_crash import disk  # noqa: F401

BLOCK = 512


def header(name=b"x", kind=b"0", size=0, mode=b"0000644\0", link=b"", magic=b"ustar\00000", size_field=None, mtime=b"00000001750\0",
           uid=b"0000000\0", prefix=b"", device=b"0000000\0"):
    """One tar header, each field as it is told."""
    field = size_field if size_field is not None else b"%011o\0" % size
    block = (name.ljust(100, b"\0") + mode + uid + b"0000000\0" + field + mtime + b" " * 8 + kind + link.ljust(100, b"\0")
             + magic + b"\0" * 64 + device + device + prefix.ljust(155, b"\0")).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(data):
    return data + b"\0" * (-len(data) % BLOCK)


def member(name, data=b"", **more):
    return header(name, size=len(data), **more) + padded(data)


def pax(records, then):
    body = b"".join(records)
    return member(b"pax", body, kind=b"x") + then


def record(key, value):
    for length in range(len(key) + len(value) + 3, len(key) + len(value) + 30):
        text = b"%d %s=%s\n" % (length, key, value)
        if len(text) == length:
            return text
    raise AssertionError


END = b"\0" * 1024
D = LayerTar


def tar(*parts):
    return b"".join(parts) + END


def deep(levels):
    layer, path = D(), "d"
    for _ in range(levels):
        layer.directory(path)
        path += "/d"
    return layer.bytes()


def content(path, data):
    return lambda root: (root / path).read_bytes() == data


def absent(path):
    return lambda root: not os.path.lexists(root / path)


def depth_of(root):
    """Levels of directories, found without a path: it would be too long."""
    fd, levels = os.open(root, os.O_PATH), 0
    while True:
        try:
            below = os.open("d", os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
        except FileNotFoundError:
            os.close(fd)
            return levels
        os.close(fd)
        fd, levels = below, levels + 1


def sparse_terabyte():
    data = b"1\n1099511627773\n3\n".ljust(512, b"\0") + b"end"
    return tar(pax([record(b"GNU.sparse.major", b"1"), record(b"GNU.sparse.minor", b"0"), record(b"GNU.sparse.name", b"huge"),
                    record(b"GNU.sparse.realsize", b"1099511627776")], member(b"GNUSparseFile.0/huge", data)))


class Warned:
    """Unpacked as far as it can be, and what could not be is said."""

    def __init__(self, words, holds):
        self.words, self.holds = words, holds


def same_file(root, one, other):
    return (root / one).lstat().st_ino == (root / other).lstat().st_ino


def through_a_link(link):
    """The link is one of the image's own root: what lies below it lies in the layer's /tmp, as a container would see it."""
    return lambda root: os.readlink(root / link) == "/tmp" and not (root / "tmp").is_symlink() and content("tmp/e", b"x")(root)


# name → (archive, verdict): a string is what the error says, a function is what must be true of the tree
CASES = {
    # Paths
    "dotdot": (D().file("../e", "x").bytes(), r"\.\."),
    "dotdot-inside": (D().directory("a").file("a/../../e", "x").bytes(), r"\.\."),
    "absolute": (D().file("/e", "x").bytes(), "absolute"),
    "absolute-dotdot": (D().file("/../e", "x").bytes(), r"\.\."),
    "dot-slash": (D().directory("./").file("./a//b/./c", "x").bytes(), content("a/b/c", b"x")),
    "empty-name": (tar(member(b"", b"x")), "the root must be a directory"),
    "parents-unlisted": (D().file("a/b/c", "x").bytes(), content("a/b/c", b"x")),
    "file-as-parent": (D().file("a", "x").file("a/b", "y").bytes(), "a/b|directory"),
    "not-utf8": (tar(member(b"caf\xe9\xff", b"x")), lambda root: b"caf\xe9\xff" in os.listdir(bytes(root))),
    "newline-and-escape": (tar(member(b"a\n\x1b[31m", b"x")), lambda root: b"a\n\x1b[31m" in os.listdir(bytes(root))),
    "name-255": (D().file("n" * 255, "x").bytes(), content("n" * 255, b"x")),
    "name-256": (D().file("n" * 256, "x").bytes(), "too long"),
    "deep": (deep(1000), lambda root: depth_of(root) == 1000),
    "twice": (D().file("f", "old").file("f", "new").bytes(), content("f", b"new")),
    "file-then-directory": (D().file("f", "x").directory("f").bytes(), lambda root: (root / "f").is_dir()),
    "directory-then-file": (D().directory("f").file("f/x", "x").file("f", "y").bytes(), lambda root: (root / "f").is_file()),
    # Links
    "through-a-link-outside": (D().symlink("l", "../../../tmp").file("l/e", "x").bytes(), "link"),
    "through-an-absolute-link": (D().symlink("l", "/tmp").file("l/e", "x").bytes(), through_a_link("l")),
    "link-in-place-of-a-directory": (D().directory("d").symlink("d", "/tmp").file("d/e", "x").bytes(), through_a_link("d")),
    "file-over-a-link": (D().symlink("l", "/etc/passwd").file("l", "x").bytes(),
                         lambda root: not (root / "l").is_symlink() and (root / "l").read_bytes() == b"x"),
    "hard-link-outside": (D().hardlink("h", "../../etc/passwd").bytes(), r"\.\."),
    "hard-link-to-a-link": (D().symlink("l", "/etc/passwd").hardlink("h", "l").bytes(),
                            lambda root: os.readlink(root / "h") == "/etc/passwd" and same_file(root, "h", "l")),
    "hard-link-through-a-link": (D().symlink("l", "/etc").hardlink("h", "l/passwd").bytes(), "h"),
    "hard-link-to-nothing": (D().hardlink("h", "nothing").bytes(), "nothing"),
    "hard-link-to-itself": (D().file("h", "x").hardlink("h", "h").bytes(), content("h", b"x")),
    "hard-link-to-a-directory": (D().directory("d").hardlink("h", "d").bytes(), "h"),
    "dangling-link": (D().symlink("l", "nowhere").bytes(), lambda root: os.readlink(root / "l") == "nowhere"),
    "empty-link": (tar(header(b"l", b"2")), "l"),
    # Special files and attributes
    "device": (tar(header(b"null", b"3", device=b"0000001\0"), member(b"f", b"x")),
               Warned('1 device nodes were left out.*"null"', lambda root: absent("null")(root) and content("f", b"x")(root))),
    "fifo": (D().fifo("p").bytes(), lambda root: stat.S_ISFIFO((root / "p").lstat().st_mode)),
    "forged-overlay-marks": (D().directory("d", xattrs={"user.overlay.opaque": "y", "trusted.overlay.redirect": "/etc"})
                             .file("f", "x", xattrs={"user.overlay.whiteout": "", "user.mine": "kept"}).bytes(),
                             lambda root: os.listxattr(root / "d") == [] and os.listxattr(root / "f") == ["user.mine"]),
    "whiteout-of-dotdot": (D().file(".wh...", "").bytes(), r"\.\.|whiteout|\.wh"),
    "whiteout-of-nothing": (D().file(".wh.", "").bytes(), r"\.wh|whiteout"),
    "setuid": (D().file("s", "x", mode=0o6755).bytes(), lambda root: (root / "s").stat().st_mode & 0o7777 == 0o6755),
    "huge-owner": (tar(member(b"f", b"x", uid=b"\x80\0\0\0\x7f\xff\xff\xff")),
                   Warned("1 files belong to ids outside the available range and were given to nobody", content("f", b"x"))),
    "before-1970": (tar(member(b"f", b"x", mtime=b"\xff" * 11 + b"\xf6")), lambda root: (root / "f").stat().st_mtime == -10),
    # Format
    "garbage": (b"this is no archive at all" * 50, "tar|checksum|header"),
    "bad-checksum": (header(b"f")[:148] + b"000000\0 " + header(b"f")[156:] + END, "checksum"),
    "truncated-header": (header(b"f")[:300], "truncated"),
    "truncated-data": (header(b"f", size=5000) + b"x" * 100, "truncated"),
    "no-end": (member(b"f", b"x"), content("f", b"x")),
    "data-after-the-end": (tar(member(b"f", b"x")) + member(b"g", b"y"), lambda root: content("f", b"x")(root) and absent("g")(root)),
    "negative-size": (tar(header(b"f", size_field=b"\xff" * 12)), "size"),
    "size-beyond-everything": (tar(header(b"f", size_field=b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7)), "size|truncated|large"),
    "unknown-type": (tar(member(b"f", b"x", kind=b"Z")), "unknown type"),
    "v7": (tar(member(b"f", b"x", magic=b"\0" * 8)), content("f", b"x")),
    "pax-broken-length": (tar(pax([b"999 path=x\n"], member(b"f", b"x"))), "pax|record|extended"),
    "pax-no-equals": (tar(pax([b"9 pathxx\n"], member(b"f", b"x"))), "pax|record|extended"),
    "pax-zero-byte-in-a-name": (tar(pax([record(b"path", b"a\0b")], member(b"f", b"x"))), "name|NUL|zero|pax"),
    "pax-gigantic": (header(b"pax", b"x", size=1 << 30) + b"x" * 4096, "large|bytes|truncated"),
    "long-name-gigantic": (header(b"././@LongLink", b"L", size=1 << 30) + b"x" * 4096, "large|bytes|truncated|long"),
    "sparse-map-backwards": (tar(pax([record(b"GNU.sparse.map", b"10,5,0,5"), record(b"GNU.sparse.size", b"100")],
                                     member(b"f", b"x" * 10))), "sparse"),
    "sparse-terabyte": (sparse_terabyte(), lambda root: (root / "huge").stat().st_size == 1 << 40
                        and (root / "huge").stat().st_blocks < 100),
}


def load(kelp, place, layer, compression="gzip", **more):
    archive = Image([layer], {"Cmd": ["/x"]}, compression=compression).write_archive(place / "a.tar", "localhost/hostile:1")
    return kelp("load", "-q", "-i", archive, code=None, **more)


def tree_of(kelp):
    (tree,) = (kelp.store / "layers").glob("*/*/diff")
    return tree


def outside():
    return {path for path in (pathlib.Path("/tmp/e"), pathlib.Path("/e"), pathlib.Path("/tmp/escape")) if path.exists()}


@pytest.mark.parametrize("name", CASES)
def test_verdicts(bare_kelp, place, name):
    archive, verdict = CASES[name]
    bare_kelp("images")
    before = outside()
    result = load(bare_kelp, place, archive)
    assert outside() == before
    lines = [line for line in result.err.splitlines() if not line.startswith(("hint:", "kelp: warning:"))]
    if isinstance(verdict, str):
        assert result.code == 125 and len(lines) == 1, result
        assert re.search(verdict, lines[0]), result
        assert "\x1b" not in result.err
    else:
        warned = isinstance(verdict, Warned)
        assert result.code == 0 and lines == [], result
        assert (re.search(verdict.words, result.err) if warned else result.err == ""), result
        assert (verdict.holds if warned else verdict)(tree_of(bare_kelp)), result
    if result.code != 0:
        assert bare_kelp("images", "-q", "-a").text == ""
        assert not list((bare_kelp.store / "layers").glob("*/*/diff")) and not list((bare_kelp.store / "layers").glob(".tmp*"))
    assert bare_kelp("store", "verify", "-q").out == ""


def zeros_archive(place, size):
    """An image of one file of so many zeros, packed some ten thousand times."""
    needs.need("program:zstd")
    plain, step = hashlib.sha256(), bytes(1 << 20)
    with open(place / "zeros.zst", "wb") as target:
        packer = subprocess.Popen(["zstd", "-q", "-1"], stdin=subprocess.PIPE, stdout=target)
        for part in (header(b"zeros", size_field=b"\x80" + size.to_bytes(11, "big")), *(step for _ in range(size >> 20)), END):
            plain.update(part)
            packer.stdin.write(part)
        packer.stdin.close()
        assert packer.wait() == 0
    zeros = (place / "zeros.zst").read_bytes()
    assert len(zeros) < size // 2000
    image = Image([zeros], {"Cmd": ["/x"]}, compression="none")
    image.layers[0]["mediaType"] += "+zstd"
    image.config["rootfs"]["diff_ids"] = [f"sha256:{plain.hexdigest()}"]
    config = json.dumps(image.config).encode()
    image.blobs[digest(config)] = config
    image.manifest["config"].update(digest=digest(config), size=len(config))
    return image.write_archive(place / "zeros.tar", "localhost/zeros:1")


@pytest.mark.slow
def test_gigabytes_of_zeros(bare_kelp, place):
    """In a few kilobytes: an honest file, which takes no room."""
    size = 10 << 30
    cost = measure(bare_kelp.argv("load", "-q", "-i", zeros_archive(place, size)), bare_kelp.env)
    assert cost.code == 0, cost.out
    assert cost.memory < 64, f"{cost.memory} MiB"
    info = (tree_of(bare_kelp) / "zeros").stat()
    assert info.st_size == size and info.st_blocks * 512 < size // 100


def test_a_bomb_of_zeros(bare_kelp, disk, place):
    """What expands thousands of times is refused where there is no room for it, long before everything was unpacked."""
    cost = measure(bare_kelp.argv("load", "-q", "-i", zeros_archive(place, 1 << 30)), bare_kelp.env)
    assert cost.code == 125 and "2000 times" in cost.out, cost.out
    assert cost.memory < 64, f"{cost.memory} MiB"
    bare_kelp("image", "exists", "zeros:1", code=1)
    assert bare_kelp("store", "verify", "-q").out == ""


def test_an_archive_that_fills_the_disk(bare_kelp, disk, place):
    """One line that says so, and the store is as it was."""
    before = bare_kelp("images", "-q").text
    result = load(bare_kelp, place, D().file("big", b"0123456789abcdef" * (6 << 20)).bytes())
    assert result.code == 125 and "space" in result.err, result
    assert bare_kelp("images", "-q").text == before
    assert not list((bare_kelp.store / "layers").glob(".tmp*"))
    assert bare_kelp("store", "verify", "-q").out == ""


@pytest.mark.slow
def test_very_many_entries(bare_kelp, place):
    """Memory does not grow with the number of entries."""
    count = 1_000_000
    layer = tar(*(header(b"d%d/f%d" % (number % 100, number)) for number in range(count)))
    path = Image([layer], {"Cmd": ["/x"]}).write_archive(place / "m.tar", "localhost/many:1")
    cost = measure(bare_kelp.argv("load", "-q", "-i", path), bare_kelp.env)
    assert cost.code == 0, cost.out
    assert cost.memory < 64, f"{cost.memory} MiB"
    assert sum(len(files) for _, _, files in os.walk(tree_of(bare_kelp))) == count
