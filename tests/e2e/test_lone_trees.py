"""keep-blobs = false: unpacked layers stand without their blobs; and layers of long unused images, which come back."""

import json
import os
import pathlib
import subprocess
import time

import pytest

from harness import images, needs
from harness.images import LayerTar
from harness.waiting import until
from test_crash import sweep
from test_store_crash import ended, held, small, tracer, works  # noqa: F401

PLAIN = "--tls-verify=false"
NONE = ("--network", "none")
LOOK = "cd /d; ls -A; cat a h s; stat -c '%a %u:%g %h %s' a b; ls -A o; ls /gone 2>&1 | wc -l"


def blob(kelp, digest):
    return kelp.store / "blobs/sha256" / digest.split(":")[-1]


def manifest(kelp, name):
    return json.loads(blob(kelp, json.loads(kelp("image", "inspect", name).out)[0]["Digest"]).read_text())


def layer_blobs(kelp, name):
    return [blob(kelp, layer["digest"]) for layer in manifest(kelp, name)["layers"]]


def keep_blobs(kelp, keep):
    settings = kelp.config / "kelp" / "kelp.toml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(f"[store]\nkeep-blobs = {'true' if keep else 'false'}\n")


def image():
    """Owners, hard and symbolic links, and in the last layer a whiteout and an opaque directory."""
    return images.busybox_image([
        LayerTar().directory("d").file("d/a", "1" * 1000, uid=7, gid=8).file("d/b", "2", mode=0o4755).symlink("d/s", "a")
        .hardlink("d/h", "d/a").directory("d/o").file("d/o/below", "x").file("gone", "x"),
        LayerTar().file(".wh.gone", "").directory("d/o").file("d/o/.wh..wh..opq", "").file("d/o/top", "y")])


@pytest.fixture
def lone(bare_kelp, registry, place):
    """An image that was pulled with keep-blobs = false, its blobs gone."""
    keep_blobs(bare_kelp, False)
    name = registry.push(f"oci:{image().write_layout(place / 'layout')}:latest", "lone:1")
    bare_kelp("pull", "-q", PLAIN, name)
    bare_kelp.image = name
    bare_kelp.blobs = layer_blobs(bare_kelp, name)
    until("the blobs go", lambda: not any(path.exists() for path in bare_kelp.blobs))
    return bare_kelp


def seen(kelp, name, *options):
    return kelp("run", "--rm", *NONE, *options, name, "sh", "-c", LOOK).out


def test_an_image_lives_without_its_blobs(lone, registry):
    out = seen(lone, lone.image)
    assert out.splitlines()[:5] == ["a", "b", "h", "o", "s"] and "644 7:8 2 1000\n4755 0:0 1 1\ntop\n1" in out
    # The same under another id map, which is unpacked from the tree, and by a copy of it.
    assert seen(lone, lone.image, "--user", "0", "--uidmap", "0:1:1000", "--gidmap", "0:1:1000") == out
    assert seen(lone, lone.image, "--userns", "keep-id", "--user", "0") == out
    assert lone("store", "verify", "-q").out == "" and lone("system", "check").out == ""
    assert "Blobs:" in lone("system", "df", "-v").out
    lone("pull", "-q", PLAIN, lone.image)
    assert not any(path.exists() for path in lone.blobs)  # nothing to fetch
    lone("store", "gc", "--layers")
    assert seen(lone, lone.image) == out  # a layer that could not come back was not taken


def test_what_goes_out_has_new_digests_and_the_same_files(lone, registry, kelp, place):
    needs.need("program:skopeo")
    before, old = seen(lone, lone.image), manifest(lone, lone.image)
    result = lone("push", "-q", PLAIN, lone.image, f"{registry.address}/lone:again")
    assert "keep-blobs = false" in result.err and "new digests" in result.err
    raw = subprocess.run(["skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{registry.address}/lone:again"],
                         check=True, capture_output=True, text=True).stdout
    assert [layer["digest"] for layer in json.loads(raw)["layers"]] != [layer["digest"] for layer in old["layers"]]
    assert json.loads(raw)["config"]["digest"] != old["config"]["digest"]
    kelp("pull", "-q", PLAIN, f"{registry.address}/lone:again")
    assert seen(kelp, f"{registry.address}/lone:again") == before
    for form in ("docker-archive", "oci-archive", "oci-dir", "docker-dir"):
        lone("save", "-q", "--format", form, "-o", place / form, lone.image)
        kelp("rmi", "-f", "-a")
        name = kelp("load", "-q", "-i", place / form).out.split(": ")[-1].strip()
        assert seen(kelp, name or lone.image) == before, form
    # What was packed for it belongs to no image and goes again, by itself or with the next gc.
    lone("store", "gc")
    assert len(list((lone.store / "blobs/sha256").iterdir())) == 2
    assert lone("store", "verify").text.count("nothing needs") == 0


def test_the_blobs_come_back_when_they_are_wanted(lone):
    keep_blobs(lone, True)
    assert not any(path.exists() for path in lone.blobs)
    lone("pull", "-q", PLAIN, lone.image)
    assert all(path.exists() for path in lone.blobs)
    assert lone("store", "verify", "-q").out == ""
    lone.blobs[0].unlink()  # from now on a missing one is damage again
    lone.fails("store", "verify", code=1, says="damaged in 1 places")


def test_damage_to_a_tree_is_found_and_mended_from_the_registry(lone):
    before = seen(lone, lone.image)
    (tree,) = [path for path in (lone.store / "layers").glob("*/*/diff/d/b")]
    tree.write_text("other")
    result = lone.fails("store", "verify", code=1, says="damaged in 1 places", hint="--repair")
    assert "its files are not those" in result.out
    assert "(repaired)" in lone("store", "verify", "--repair", PLAIN).out
    assert lone("store", "verify", "-q").out == "" and seen(lone, lone.image) == before


def test_a_damaged_record_of_a_tree_is_mended_by_a_pull(lone):
    (mark, *_) = [path for path in (lone.store / "layers").glob("*/*/lone")]
    mark.write_text("{")
    lone.fails("store", "verify", code=1, says="damaged in 1 places")
    lone("pull", "-q", PLAIN, lone.image)
    assert lone("store", "verify", "-q").out == ""


def test_a_lost_tree_without_a_registry(lone, registry):
    """One clear line, not a crash."""
    lone("tag", lone.image, "localhost/mine:1")
    lone("rmi", lone.image)
    trees = [path for path in (lone.store / "layers").glob("*/*") if (path / "lone").exists()]
    for tree in trees:
        (tree / "lone").unlink()
        (tree / "synced").unlink()
        (tree / "layer.json").unlink()
    lone.fails("run", "--rm", *NONE, "localhost/mine:1", "true", code=125, says="open the blob sha256:", hint="pull")


def test_blobs_of_an_index_stay(bare_kelp, place):
    """Its digest could not be pushed any more."""
    kelp = bare_kelp
    for n in (1, 2):
        kelp("load", "-q", "-i", images.busybox_image([LayerTar().file("f", str(n))]).write_archive(
            place / f"{n}.tar", f"localhost/i{n}:1"))
    kelp("manifest", "create", "localhost/list:1", "localhost/i1:1")
    first, second = layer_blobs(kelp, "i1:1"), layer_blobs(kelp, "i2:1")
    keep_blobs(kelp, False)
    out = kelp("store", "gc").out  # at once, not beside something else
    assert "(1 blobs" in out
    assert all(path.exists() for path in first) and not second[1].exists()
    assert kelp("run", "--rm", *NONE, "i2:1", "cat", "/f").out == "2"


@pytest.mark.slow
def test_giving_up_killed_at_system_calls(kelp, held, place, busybox_archive):  # noqa: F811
    archives = (small().write_archive(place / "a.tar", "localhost/victim:1"), busybox_archive)

    def blobs_again():
        keep_blobs(kelp, True)
        for archive in archives:
            kelp("load", "-q", "-i", archive)
        for mark in (kelp.store / "layers").glob("*/*/lone"):
            mark.unlink()
        keep_blobs(kelp, False)

    def after(result):
        ended(held)
        works(kelp)
        kelp("store", "gc")
        assert not any(path.exists() for path in layer_blobs(kelp, "victim:1"))
        blobs_again()

    blobs_again()
    assert all(path.exists() for name in ("busybox", "victim:1") for path in layer_blobs(kelp, name))
    sweep(tracer(kelp, place, "kelp-image"), ("store", "gc"), after)


def test_layers_of_images_long_unused_go_first(kelp, place):
    kelp("load", "-q", "-i", images.busybox_image([LayerTar().file("f", "1")]).write_archive(place / "a", "localhost/old:1"))
    kelp("run", "--rm", *NONE, "busybox", "true")
    now = time.time()
    (record,) = [path for path in (kelp.store / "images").glob("*.json") if "old:1" in _names(kelp, path)]
    os.utime(record, (now - 100 * 3600, now - 100 * 3600))
    assert "0 unpacked layers" in kelp("store", "gc", "--layers-older-than", "101h").out
    # Its base is busybox's, which was used a moment ago.
    assert "1 unpacked layers" in kelp("store", "gc", "--layers-older-than", "99h").out
    assert kelp("run", "--rm", *NONE, "old:1", "cat", "/f").out == "1"
    assert "0 unpacked layers" in kelp("store", "gc", "--layers-older-than", "99h").out  # that was a use
    kelp.fails("store", "gc", "--layers-older-than", "soon", code=125, says="--layers-older-than")
    kelp.fails("store", "gc", "--layers-older-than=-1h", code=125, says="negative")


def _names(kelp, path):
    digest = "sha256:" + pathlib.Path(path).stem
    return kelp("images", "--digests", "--format", "{{.Digest}} {{.Repository}}:{{.Tag}}").out.split(digest)[-1].split("\n")[0]
