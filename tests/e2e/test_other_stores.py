"""Images and volumes of the stores that podman and Docker keep: read where they lie, with the same ids and diff ids."""

import base64
import gzip
import json
import pathlib
import shutil
import subprocess
import time

import pytest

from harness import images, leaks, needs, twin
from harness.images import LayerTar

NONE = ("--network", "none")


class Storage:
    """A store of containers/storage that skopeo fills, as the user of the tests."""

    def __init__(self, kelp, directory, driver):
        needs.need("program:skopeo")
        self.kelp, self.driver, self.root, self.run = kelp, driver, directory / "storage", directory / "storage-run"
        self.prefix = f"containers-storage:[{driver}@{self.root}+{self.run}]"

    def skopeo(self, *arguments):
        return self.kelp("--insecure-policy", *arguments, program="skopeo", timeout=120)

    def add(self, layout, name):
        self.skopeo("copy", "-q", f"oci:{layout}:latest", self.prefix + name)
        return self.prefix + name

    def list_of(self, kind):
        return json.loads((self.root / f"{self.driver}-{kind}/{kind}.json").read_text())

    def tree(self, layer):
        return self.root / "vfs/dir" / layer["id"] if self.driver == "vfs" else self.root / "overlay" / layer["id"] / "diff"

    def end(self):
        """Files of subordinate ids go from within the user namespace only."""
        self.kelp("unshare", "rm", "-rf", self.root, self.run)


@pytest.fixture(params=["overlay", "vfs"])
def storage(request, bare_kelp, place):
    needs.need("subids")
    made = Storage(bare_kelp, place, request.param)
    yield made
    made.end()


@pytest.fixture
def overlay(bare_kelp, place):
    needs.need("subids")
    made = Storage(bare_kelp, place, "overlay")
    yield made
    made.end()


def odd_image():
    first = LayerTar().directory("d", mode=0o1777, uid=5, gid=6).file("d/gone", "1").directory("opaque").file("opaque/old", "1")
    first.file("d/f", "x" * 5000, mode=0o4711, uid=1000, gid=1001).hardlink("d/h", "d/f", mode=0o4711, uid=1000, gid=1001).symlink("d/l", "../nowhere")
    first.file("closed", "nobody reads", mode=0o000, uid=1000).directory("n" * 90).file("n" * 90 + "/" + "m" * 120, "long")
    first.file("x", "1", xattrs={"user.one": "value"}).fifo("pipe").file("empty")
    second = LayerTar().whiteout("d/gone").directory("opaque").opaque("opaque").file("opaque/new", "2").file("big", "y" * 300_000)
    return images.busybox_image([first, second], config={"Labels": {"a": "b"}})


def manifest_of(kelp, name):
    record = json.loads(kelp("image", "inspect", name).out)[0]
    return json.loads((kelp.store / "blobs/sha256" / record["Digest"].split(":")[1]).read_text())


def test_an_image_of_podman(storage, bare_kelp, place):
    """Configuration and layers have the digests that skopeo finds when it copies the same."""
    image = odd_image()
    name = storage.add(image.write_layout(place / "l"), "localhost/odd:1")
    assert storage.list_of("layers")[0]["id"]
    done = bare_kelp("pull", name)
    assert done.text == image.id
    assert "the manifest is a new one" in done.err
    storage.skopeo("copy", "-q", name, f"dir:{place}/by-skopeo")
    theirs = json.loads((place / "by-skopeo/manifest.json").read_text())
    ours = manifest_of(bare_kelp, "odd:1")
    diff_ids = image.config["rootfs"]["diff_ids"]
    assert [layer["digest"] for layer in ours["layers"]] == [layer["digest"] for layer in theirs["layers"]] == diff_ids
    assert ours["config"]["digest"] == theirs["config"]["digest"] == f"sha256:{image.id}"
    for layer in diff_ids:
        hexes = layer.split(":")[1]
        assert (bare_kelp.store / "blobs/sha256" / hexes).read_bytes() == (place / "by-skopeo" / hexes).read_bytes()
    bare_kelp("store", "verify")
    script = "cat /d/h | wc -c; ls /d /opaque; stat -c '%u %g %a' /d/f; wc -c < /big; cat /n*/m*"
    assert bare_kelp("run", "--rm", *NONE, "odd:1", "sh", "-c", script).lines == [
        "5000", "/d:", "f", "h", "l", "", "/opaque:", "new", "1000 1001 4711", "300000", "long"]


def test_names_of_an_image_of_podman(overlay, bare_kelp, place):
    image = images.busybox_image([LayerTar().file("f", "named")])
    layout = image.write_layout(place / "l")
    overlay.add(layout, "localhost/one:1")
    overlay.add(layout, "docker.io/library/one:2")
    digest = overlay.list_of("images")[0]["digest"]
    for words, names in {"localhost/one:1": ["localhost/one:1"], "one:2": ["docker.io/library/one:2"],
                         image.id[:12]: ["docker.io/library/one:2", "localhost/one:1"],
                         f"localhost/one:1@{image.id}": ["localhost/one:1"],
                         f"localhost/one@{digest}": [],
                         f"@{image.id}": ["docker.io/library/one:2", "localhost/one:1"]}.items():
        assert bare_kelp("pull", "-q", overlay.prefix + words).text == image.id, words
        found = json.loads(bare_kelp("images", "--format", "json").out)
        assert sorted(name for one in found for name in one.get("Names") or []) == names, words
        bare_kelp("rmi", "-f", image.id)
    assert bare_kelp("run", "--rm", *NONE, overlay.prefix + "localhost/one:1", "cat", "/f").out == "named"
    bare_kelp.fails("pull", "-q", overlay.prefix + "localhost/on:1", says="there is no image", hint="localhost/one:1")
    bare_kelp.fails("pull", "-a", overlay.prefix + "localhost/one:1", says="--all-tags: only a registry")


def test_the_users_own_store(overlay, bare_kelp, kelp_factory, place):
    """storage.conf says where it is; without a bracket that one is meant, its additional stores too."""
    image = images.busybox_image([LayerTar().file("f", "own")])
    overlay.add(image.write_layout(place / "l"), "localhost/own:1")
    bare_kelp.fails("pull", "containers-storage:localhost/own:1", says="there is no image store of podman", hint="overlay@")
    configuration = bare_kelp.config / "containers/storage.conf"
    configuration.parent.mkdir(exist_ok=True)
    configuration.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{overlay.root}"\nrunroot = "{overlay.run}"\n')
    assert bare_kelp("pull", "-q", "containers-storage:localhost/own:1").text == image.id
    other = kelp_factory()
    (other.data / "containers").mkdir()
    (other.data / "containers/storage/overlay-images").mkdir(parents=True)
    (place / "more.conf").write_text('[storage]\nrunroot = "/none"\n[storage.options]\n'
                                     f'additionalimagestores = ["{overlay.root}"]\n')
    assert other("pull", "-q", "containers-storage:own:1", env={"CONTAINERS_STORAGE_CONF": str(place / "more.conf")}).text \
        == image.id


def test_what_is_here_is_not_copied_and_the_manifest_stays(overlay, bare_kelp, place):
    image = images.busybox_image([LayerTar().file("f", "twice")])
    layout = image.write_layout(place / "l")
    name = overlay.add(layout, "localhost/twice:1")
    bare_kelp("pull", "-q", f"oci:{layout}:latest")
    before = json.loads(bare_kelp("image", "inspect", image.id).out)[0]["Digest"]
    blobs = {path.name for path in (bare_kelp.store / "blobs/sha256").iterdir()}
    done = bare_kelp("pull", "-q", name)
    assert "new one" not in done.err
    assert json.loads(bare_kelp("image", "inspect", "twice:1").out)[0]["Digest"] == before
    assert {path.name for path in (bare_kelp.store / "blobs/sha256").iterdir()} == blobs


def test_an_uncompressed_image_keeps_its_manifest(overlay, bare_kelp, place):
    """As `podman build` makes them."""
    image = images.busybox_image([LayerTar().file("f", "plain")], compression="none")
    name = overlay.add(image.write_layout(place / "l"), "localhost/plain:1")
    done = bare_kelp("pull", "-q", name)
    assert done.err == ""
    assert json.loads(bare_kelp("image", "inspect", "plain:1").out)[0]["Digest"] == image.descriptor()["digest"]


def test_an_index_of_podman(overlay, bare_kelp, place):
    """`podman manifest create` keeps an index as an image without layers."""
    image = images.busybox_image([LayerTar().file("f", "listed")])
    overlay.add(image.write_layout(place / "l"), "localhost/inner:1")
    entry = image.descriptor()
    entry["platform"] = {"os": "linux", "architecture": "amd64"}
    index = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [entry]})
    listed = overlay.list_of("images")
    listed.append({"id": "f" * 64, "names": ["localhost/list:1"], "digest": images.digest(index.encode()),
                   "big-data-names": ["manifest"], "created": "2024-01-01T00:00:00Z"})
    (overlay.root / "overlay-images/images.json").write_text(json.dumps(listed))
    directory = overlay.root / "overlay-images" / ("f" * 64)
    directory.mkdir()
    (directory / "manifest").write_text(index)
    assert bare_kelp("pull", "-q", "--platform", "linux/amd64", overlay.prefix + "localhost/list:1").text == image.id
    assert bare_kelp("run", "--rm", *NONE, "list:1", "cat", "/f").out == "listed"
    bare_kelp.fails("pull", "-q", "--platform", "linux/s390x", overlay.prefix + "localhost/list:1", says="no image for linux/s390x")


def test_a_store_that_was_changed_or_lacks_something(overlay, bare_kelp, place):
    image = images.busybox_image([LayerTar().file("f", "as it was"), LayerTar().file("g", "2")])
    name = overlay.add(image.write_layout(place / "l"), "localhost/bad:1")
    layer = next(one for one in overlay.list_of("layers") if one["diff-digest"] == image.config["rootfs"]["diff_ids"][1])
    tree, recipe = overlay.tree(layer), overlay.root / f"overlay-layers/{layer['id']}.tar-split.gz"
    (tree / "f").write_text("as it is!")
    bare_kelp.fails("pull", "-q", name, says="podman's image localhost/bad:1: .*wrong digest")
    (tree / "f").write_text("as")
    bare_kelp.fails("pull", "-q", name, says='"f" is shorter than it was')
    (tree / "f").write_text("as it was")
    kept = recipe.read_bytes()
    recipe.unlink()
    bare_kelp.fails("pull", "-q", name, says="keeps no recipe of its tar", hint="podman save")
    recipe.write_bytes(gzip.compress(b'{"type":9}\n'))
    bare_kelp.fails("pull", "-q", name, says="entries of type 9 are not known")
    lines = gzip.decompress(kept).decode().splitlines()
    outside = json.dumps({"type": 1, "name": "../../../../../../../../etc/passwd", "size": 10})
    recipe.write_bytes(gzip.compress("\n".join([outside, *lines]).encode()))
    bare_kelp.fails("pull", "-q", name, says="open .*etc/passwd")
    recipe.write_bytes(kept)
    assert bare_kelp("images", "-q").out == ""
    (overlay.root / "overlay-images/images.json").write_text("[{]")
    bare_kelp.fails("pull", "-q", name, says="images.json: damaged")
    assert bare_kelp("store", "gc").code == 0
    assert not list((bare_kelp.store / "layers").glob("?" * 64))


def test_a_policy_holds_for_a_store(overlay, bare_kelp, place):
    name = overlay.add(images.busybox_image().write_layout(place / "l"), "localhost/no:1")
    (stored,) = overlay.list_of("images")
    by_digest = name.removesuffix(":1") + "@" + stored["digest"]
    directory = bare_kelp.config / "containers"
    directory.mkdir(exist_ok=True)
    accept = [{"type": "insecureAcceptAnything"}]
    for scope in ("", f"[overlay@{overlay.root}]", f"[{overlay.root}]", f"[overlay@{overlay.root}]localhost/no"):
        (directory / "policy.json").write_text(json.dumps({
            "default": accept, "transports": {"containers-storage": {scope: [{"type": "reject"}]}}}))
        bare_kelp.fails("pull", "-q", name, says="rejected by")
        bare_kelp.fails("pull", "-q", by_digest, says="rejected by")
    exact = f"[overlay@{overlay.root}]" + by_digest.split("]")[1]
    (directory / "policy.json").write_text(json.dumps({
        "default": accept, "transports": {"containers-storage": {exact: [{"type": "reject"}]}}}))
    bare_kelp.fails("pull", "-q", by_digest, says="rejected by")
    (directory / "policy.json").write_text(json.dumps({"default": accept}))
    bare_kelp("pull", "-q", name)


@pytest.mark.parametrize("words, says", [
    ("[overlay@/none/at/all]x", "there is no image store of podman"), ("[btrfs@/srv]x", "driver .btrfs. is not read"),
    ("[overlay@relative]x", "absolute path"), ("[overlay@/srv", "bracket is not closed"), ("[overlay@/srv]", "image is missing")])
def test_stores_that_cannot_be_read(bare_kelp, words, says):
    bare_kelp.fails("pull", f"containers-storage:{words}", says=says)


# Trees


# Runs inside `kelp unshare`: every entry of a tree with all that is known of it; names of one file share a number.
LOOK = """
import json, os, stat, sys
found, inodes = {}, {}
for directory, names, files in os.walk(sys.argv[1]):
    for name in [".", *names, *files] if directory == sys.argv[1] else [*names, *files]:
        path = os.path.join(directory, name)
        info = os.lstat(path)
        link = os.readlink(path) if stat.S_ISLNK(info.st_mode) else ""
        xattrs = {key: os.getxattr(path, key, follow_symlinks=False).hex()
                  for key in os.listxattr(path, follow_symlinks=False) if not key.startswith("user.overlay.")}
        opaque = stat.S_ISDIR(info.st_mode) and "user.overlay.opaque" in os.listxattr(path)
        group = inodes.setdefault(info.st_ino, path) if info.st_nlink > 1 and stat.S_ISREG(info.st_mode) else ""
        whiteout = stat.S_ISCHR(info.st_mode)
        times = 0 if whiteout or path.endswith("/.") else info.st_mtime_ns  # of those two an archive says nothing
        data = open(path, "rb").read().hex()[:64] if stat.S_ISREG(info.st_mode) and info.st_size < 1 << 20 else ""
        found[os.path.relpath(path, sys.argv[1])] = [
            oct(info.st_mode) if not whiteout else "whiteout", info.st_uid, info.st_gid, times, info.st_rdev,
            info.st_size if stat.S_ISREG(info.st_mode) else 0, link, xattrs, opaque,
            os.path.relpath(group, sys.argv[1]) if group else "", data]
json.dump(found, sys.stdout)
"""


def look(kelp, path):
    return json.loads(kelp("unshare", "python3", "-c", LOOK, path, timeout=120).out)


def compare_with_podman(kelp, overlay, layout):
    """Layer by layer, file by file: kelp's tree and the one that containers/storage makes of the same archive."""
    start = time.time_ns() - 10 ** 9
    name = overlay.add(layout, "localhost/compared:1")
    kelp("pull", "-q", name)
    chain, seen = "", 0
    record = json.loads(kelp("image", "inspect", "compared:1").out)[0]
    layers = {layer["diff-digest"]: layer for layer in overlay.list_of("layers")}
    for diff_id in record["RootFS"]["Layers"]:
        chain = diff_id if not chain else images.digest(f"{chain} {diff_id}".encode())
        ours = look(kelp, kelp.store / "layers" / chain.split(":")[1] / "full/diff")
        theirs = look(kelp, overlay.tree(layers[diff_id]))
        assert set(ours) == set(theirs)
        if theirs["."][0] == "0o40555":  # where an archive does not list its root, podman gives it mode 555
            ours["."][0] = theirs["."][0]
        for path in ours:
            if ours[path][0].startswith("0o4") and min(ours[path][3], theirs[path][3]) > start:
                ours[path][3] = theirs[path][3]  # a directory that only the names below it tell of
            assert ours[path] == theirs[path], path
        seen += len(ours)
    return seen


def test_trees_are_those_that_podman_makes(overlay, bare_kelp, place):
    assert compare_with_podman(bare_kelp, overlay, odd_image().write_layout(place / "l")) > 50


def test_a_distribution_is_unpacked_as_podman_does(overlay, bare_kelp, place, nginx_archive):
    (place / "l").mkdir()
    subprocess.run(["tar", "-xf", nginx_archive, "-C", place / "l"], check=True)
    index = json.loads((place / "l/index.json").read_text())
    index["manifests"][0]["annotations"] = {images.REF_NAME: "latest"}
    (place / "l/index.json").write_text(json.dumps(index))
    assert compare_with_podman(bare_kelp, overlay, place / "l") > 1000


# kelp system import


@pytest.fixture
def podman(place):
    needs.need("program:podman")
    needs.need("subids")
    (place / "p").mkdir()
    made = twin.Podman(place / "p")
    yield made
    made.end()
    leaks.remove_tree(place / "p")


def owners(kelp, path):
    """Names with owner and mode, as they are within the user namespace."""
    script = 'cd "$1" && find . -printf "%P %U %G %m %s %T@ %l\\n" | sort'
    return kelp("unshare", "sh", "-c", script, "-", path).lines


def test_all_that_podman_has(podman, bare_kelp, place):
    """Images by name, volumes with owners, modes, times and labels; a second time nothing changes."""
    image = odd_image()
    podman("load", "-q", "-i", image.write_archive(place / "a.tar", "localhost/odd:1"), timeout=180)
    podman("tag", "localhost/odd:1", "quay.io/team/odd:2")
    podman("volume", "create", "--label", "kind=data", "--label", "a=b", "data")
    podman("volume", "create", "both")
    data = podman.data / "containers/storage/volumes/data/_data"
    script = ('cd "$1"; mkdir d; echo text > d/f; ln d/f hard; ln -s d/f soft; chown 1000:1001 d/f; chmod 4750 d/f; '
              'chown 7:8 d; chmod 1777 d; touch -d 2001-02-03 d; chown 33:33 .; chmod 750 .')
    bare_kelp("unshare", "sh", "-c", script, "-", data)
    bare_kelp("volume", "create", "both")
    (bare_kelp.store / "volumes/both/_data/mine").write_text("mine")
    place_of_store = {"CONTAINERS_STORAGE_CONF": str(podman.config / "containers/storage.conf")}
    first = bare_kelp("system", "import", "-q", "podman", env=place_of_store, timeout=180)
    assert first.lines == ["image localhost/odd:1", "image quay.io/team/odd:2", "volume data", "volume both: kept as it is here"]
    assert bare_kelp("images", "-q", "--no-trunc").lines == [f"sha256:{image.id}"]
    assert owners(bare_kelp, bare_kelp.store / "volumes/data/_data") == owners(bare_kelp, data)
    volume = json.loads(bare_kelp("volume", "inspect", "data").out)[0]
    assert volume["Labels"] == {"kind": "data", "a": "b"} and volume["Driver"] == "local"
    theirs = json.loads(podman("volume", "inspect", "data").out)[0]
    assert volume["CreatedAt"][:10] == theirs["CreatedAt"][:10]
    assert (bare_kelp.store / "volumes/both/_data/mine").read_text() == "mine"
    assert bare_kelp("run", "--rm", *NONE, "-v", "data:/data", "odd:1", "cat", "/data/soft").out == "text\n"
    again = bare_kelp("system", "import", "-q", "podman", env=place_of_store, timeout=180)
    assert again.lines == [*first.lines[:2], "volume both: kept as it is here", "volume data: kept as it is here"]
    assert podman("images", "-q", "--no-trunc").lines[0] == f"sha256:{image.id}"
    podman.end_pause()
    bare_kelp("store", "verify")


@pytest.mark.parametrize("podman", ["exit 125", "echo no JSON", """echo '[{"Name": 7}]'""",
                                    """echo '[{"Name": "n", "Mountpoint": "/n", "CreatedAt": "long ago"}]'"""],
                         ids=["fails", "says-nothing", "another-shape", "no-date"])
def test_what_cannot_be_brought_over(overlay, bare_kelp, place, podman):
    """The others come; the command says what did not, and fails."""
    good, bad = (images.busybox_image([LayerTar().file("f", text)]) for text in ("good", "bad"))
    overlay.add(good.write_layout(place / "g"), "localhost/good:1")
    overlay.add(bad.write_layout(place / "b"), "localhost/bad:1")
    layer = next(one for one in overlay.list_of("layers") if one["diff-digest"] == bad.config["rootfs"]["diff_ids"][1])
    (overlay.tree(layer) / "f").write_text("BAD")
    volumes = overlay.root / "volumes"
    (volumes / "plain/_data").mkdir(parents=True)
    (volumes / "plain/_data/f").write_text("by directory alone")
    (volumes / "empty").mkdir()
    # Links of whoever filled the store, who may not be the one who brings it over.
    (place / "host/_data").mkdir(parents=True)
    (place / "host/_data/secret").write_text("of the host")
    (volumes / "linked").mkdir()
    (volumes / "linked/_data").symlink_to(place / "host/_data")
    (volumes / "away").symlink_to(place / "host")
    # Where podman does not work nobody tells the labels of volumes.
    programs = place / "bin"
    programs.mkdir()
    (programs / "podman").write_text(f"#!/bin/sh\n{podman}\n")
    (programs / "podman").chmod(0o755)
    done = bare_kelp("system", "import", "--store", overlay.root, "podman", code=125,
                     env={"PATH": f"{programs}:{bare_kelp.env['PATH']}"})
    assert done.lines == ["image localhost/good:1", "volume plain"]
    assert "image " in done.err and "wrong digest" in done.err and "volumes come without their labels" in done.err
    assert "volume empty: " in done.err and "volume linked: " in done.err
    assert "3 of 5 images and volumes could not be brought over" in done.err
    assert {path.name for path in (bare_kelp.store / "volumes").iterdir()} == {"plain"}
    assert (bare_kelp.store / "volumes/plain/_data/f").read_text() == "by directory alone"
    bare_kelp.fails("system", "import", "containerd", says="podman and docker can be brought over")
    bare_kelp.fails("system", "import", "podman", says="no image store of podman")
    bare_kelp.fails("system", "import", "--store", place, "docker", says="no images of Docker", hint="docker save")


def docker_store(overlay, root):
    """Docker's directories as of its overlay2 driver, made of what skopeo has unpacked for podman: the recipes of the
    layers' tars have the same format."""
    database = root / "image/overlay2"
    (database / "imagedb/content/sha256").mkdir(parents=True)
    repositories = {}
    layers = {layer["id"]: layer for layer in overlay.list_of("layers")}
    for one in overlay.list_of("images"):
        directory = overlay.root / "overlay-images" / one["id"]
        config = (directory / ("=" + base64.b64encode(f"sha256:{one['id']}".encode()).decode())).read_bytes()
        (database / "imagedb/content/sha256" / one["id"]).write_bytes(config)
        for name in one["names"]:
            short = name.removeprefix("docker.io/library/")
            repositories.setdefault(short.rsplit(":", 1)[0], {})[short] = f"sha256:{one['id']}"
        stack, layer = [], one["layer"]
        while layer:
            stack.insert(0, layers[layer])
            layer = layers[layer].get("parent")
        chain = ""
        for layer in stack:
            chain = layer["diff-digest"] if not chain else images.digest(f"{chain} {layer['diff-digest']}".encode())
            entry = database / "layerdb/sha256" / chain.split(":")[1]
            entry.mkdir(parents=True, exist_ok=True)
            (entry / "cache-id").write_text(layer["id"])
            (entry / "diff").write_text(layer["diff-digest"])
            shutil.copy(overlay.root / f"overlay-layers/{layer['id']}.tar-split.gz", entry / "tar-split.json.gz")
            (root / "overlay2").mkdir(exist_ok=True)
            (root / "overlay2" / layer["id"]).mkdir(exist_ok=True)
            if not (root / "overlay2" / layer["id"] / "diff").exists():
                (root / "overlay2" / layer["id"] / "diff").symlink_to(overlay.root / "overlay" / layer["id"] / "diff")
    (database / "repositories.json").write_text(json.dumps({"Repositories": repositories}))
    (root / "volumes/plain/_data").mkdir(parents=True)
    (root / "volumes/plain/_data/f").write_text("docker's")
    (root / "volumes/metadata.db").write_bytes(b"")


def test_dockers_layout(overlay, bare_kelp, place):
    image = odd_image()
    overlay.add(image.write_layout(place / "l"), "docker.io/library/odd:1")
    docker_store(overlay, place / "docker")
    done = bare_kelp("system", "import", "--store", place / "docker", "docker")
    assert done.lines == ["image docker.io/library/odd:1", "volume plain"]
    assert bare_kelp("images", "-q", "--no-trunc").text == f"sha256:{image.id}"
    manifest = manifest_of(bare_kelp, "odd:1")
    assert [layer["digest"] for layer in manifest["layers"]] == image.config["rootfs"]["diff_ids"]
    assert bare_kelp("run", "--rm", *NONE, "-v", "plain:/v", "odd:1", "cat", "/opaque/new", "/v/f").out == "2docker's"
    bare_kelp("store", "verify")
