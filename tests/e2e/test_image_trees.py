"""What is in an image's layers and what stands on the disk afterwards, compared by somebody else: Python's tarfile."""

import json
import subprocess
import tarfile

import pytest

from harness import images, needs
from harness.images import LayerTar

# Runs inside `kelp unshare`, where owners are those of the container.
LOOK = """
import json, os, stat, sys
found = {}
root = sys.argv[1]
for directory, names, files in os.walk(root):
    for name in [*names, *files]:
        path = os.path.join(directory, name)
        info = os.lstat(path)
        kind = stat.S_IFMT(info.st_mode)
        link = os.readlink(path) if stat.S_ISLNK(info.st_mode) else ""
        xattrs = {} if stat.S_ISLNK(info.st_mode) else {
            key: os.getxattr(path, key).decode("latin-1") for key in os.listxattr(path) if key.startswith("user.")}
        found[os.path.relpath(path, root)] = [kind, info.st_mode & 0o7777, info.st_uid, info.st_gid, int(info.st_mtime),
            info.st_size if stat.S_ISREG(info.st_mode) else 0, link, xattrs, info.st_ino if info.st_nlink > 1 and
            stat.S_ISREG(info.st_mode) else 0]
json.dump(found, sys.stdout)
"""
KINDS = {tarfile.DIRTYPE: 0o040000, tarfile.REGTYPE: 0o100000, tarfile.AREGTYPE: 0o100000, tarfile.SYMTYPE: 0o120000,
         tarfile.FIFOTYPE: 0o010000}


def expected(archive):
    """The tree that the members of a tar describe; devices are left out, as nobody without privilege can make them."""
    tree = {}
    for member in archive:
        name = member.name.removeprefix("./").rstrip("/")
        if not name or name == "." or member.ischr() or member.isblk():
            continue
        if member.islnk():
            tree[name] = tree[member.linkname.removeprefix("./")]  # the same list: the same file
            continue
        link = member.linkname if member.issym() else ""
        xattrs = {key.removeprefix("SCHILY.xattr."): value for key, value in member.pax_headers.items()
                  if key.startswith("SCHILY.xattr.user.")}
        tree[name] = [KINDS[member.type], 0o777 if member.issym() else member.mode, member.uid, member.gid, int(member.mtime),
                      member.size if member.isreg() else 0, link, xattrs]
    return tree


def compare(kelp, tree, layer):
    found = json.loads(kelp("unshare", "python3", "-c", LOOK, str(layer), timeout=120).out)
    assert set(tree) <= set(found)
    for name in set(found) - set(tree):  # a directory that only the names below it tell of
        assert found[name][0] == KINDS[tarfile.DIRTYPE] and any(other.startswith(name + "/") for other in tree), name
    inodes = {}
    for name, wanted in tree.items():
        assert found[name][:8] == wanted, name
        if found[name][8]:  # what is one file in the archive is one file here
            assert inodes.setdefault(found[name][8], id(wanted)) == id(wanted), name


def layers_of(kelp, name):
    record = json.loads(kelp("image", "inspect", name).out)[0]
    manifest = json.loads((kelp.store / "blobs/sha256" / record["Digest"].split(":")[1]).read_text())
    index = {}
    for directory in (kelp.store / "layers").iterdir():
        if len(directory.name) == 64:
            info = json.loads((directory / "full/layer.json").read_text())
            index[info["blob"]] = directory / "full/diff"
    return [(kelp.store / "blobs/sha256" / layer["digest"].split(":")[1], index[layer["digest"]])
            for layer in manifest["layers"]]


def test_a_tree_of_every_kind(bare_kelp, place):
    needs.need("subids")
    layer = LayerTar().directory("d", mode=0o1777, uid=5, gid=6).file("d/f", "x" * 5000, mode=0o4711, uid=1000, gid=1001)
    layer.symlink("d/l", "../nowhere", uid=7).hardlink("d/h", "d/f").fifo("p", mode=0o640, gid=9).file("empty", mode=0o000)
    layer.file("x", "1", xattrs={"user.one": "value", "user.two": ""}).directory("closed", mode=0o700, uid=60000)
    bare_kelp("load", "-q", "-i", images.Image([layer], {}).write_archive(place / "a.tar", "localhost/t:1"))
    ((blob, tree),) = layers_of(bare_kelp, "t:1")
    with tarfile.open(blob) as archive:
        compare(bare_kelp, expected(archive), tree)


def test_the_tree_of_a_distribution(bare_kelp, nginx_archive):
    needs.need("subids")
    bare_kelp("load", "-q", "-i", nginx_archive, timeout=180)
    name = bare_kelp("images", "-q").text
    for blob, tree in layers_of(bare_kelp, name):
        with tarfile.open(blob) as archive:
            compare(bare_kelp, expected(archive), tree)


@pytest.mark.parametrize("program, suffix", [("gzip", "gz"), ("bzip2", "bz2"), ("xz", "xz"), ("zstd", "zst")])
def test_compressions_in(bare_kelp, busybox_archive, place, program, suffix):
    """Archives of images and of root file systems, packed with whatever people use."""
    needs.need(f"program:{program}")
    plain = images.busybox_layer().bytes()
    for name, data in (("tree", plain), ("image", busybox_archive.read_bytes())):
        packed = subprocess.run([program, "-c", "-1"] if program != "zstd" else [program, "-q", "-c", "-1"], input=data,
                                capture_output=True, check=True).stdout
        (place / f"{name}.{suffix}").write_bytes(packed)
    bare_kelp("import", "-q", place / f"tree.{suffix}", "localhost/tree:1")
    bare_kelp("load", "-q", "-i", place / f"image.{suffix}")
    for name in ("localhost/tree:1", "busybox"):
        assert bare_kelp("run", "--rm", "--network", "none", name, "/bin/busybox", "echo", "in").out == "in\n"


def test_everything_there_and_back(bare_kelp, kelp_factory, registry, place):
    """Pulled, saved, loaded, pushed: one digest all the way."""
    layout = images.busybox_image([LayerTar().file("f", "there")]).write_layout(place / "layout")
    name = registry.push(f"oci:{layout}:latest", "there:1")
    plain, none = "--tls-verify=false", ("--network", "none")
    bare_kelp("pull", "-q", plain, name)
    digest = bare_kelp("image", "inspect", "--format", "{{.Digest}}", name).text
    for form in ("oci-archive", "oci-dir", "docker-dir", "docker-archive"):
        bare_kelp("save", "-q", "--format", form, "-o", place / form, name)
        other = kelp_factory()
        other("load", "-q", "-i", place / form)
        identifier = other("images", "-q", "--no-trunc").text.removeprefix("sha256:")
        if form != "docker-archive":  # which keeps no manifest: the image's id is all that can be the same
            assert other("image", "inspect", "--format", "{{.Digest}}", identifier).text == digest
        assert identifier == bare_kelp("images", "-q", "--no-trunc").text.removeprefix("sha256:")
        target = f"{registry.address}/back-{form}:1"
        other("push", "-q", plain, "--digestfile", place / "digest", identifier, target)
        if form != "docker-archive":
            assert (place / "digest").read_text() == digest
        bare_kelp("pull", "-q", plain, target)
        assert bare_kelp("run", "--rm", *none, target, "cat", "/f").out == "there"
