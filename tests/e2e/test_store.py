"""The store's own care: verify and repair, gc, disk use, prune."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import time

import pytest

from harness import images, needs, processes
from harness.hostile_registry import HostileRegistry
from harness.images import Image, LayerTar
from harness.waiting import until

PLAIN = "--tls-verify=false"
NONE = ("--network", "none")


def blob(kelp, digest):
    return kelp.store / "blobs/sha256" / digest.split(":")[1]


def record(kelp, name):
    return json.loads(kelp("image", "inspect", name).out)[0]


def layer_digests(kelp, name):
    manifest = json.loads(blob(kelp, record(kelp, name)["Digest"]).read_text())
    return [layer["digest"] for layer in manifest["layers"]]


def layers_of(kelp):
    return sorted(path for path in (kelp.store / "layers").glob("*/*") if len(path.parent.name) == 64)


@pytest.fixture
def hostile():
    made = HostileRegistry()
    yield made
    made.stop()


@pytest.fixture
def pulled(bare_kelp, registry, place):
    layout = images.busybox_image([LayerTar().directory("d").file("d/a", "1" * 1000).file("d/b", "2", mode=0o600)
                                  .symlink("d/s", "a").hardlink("d/h", "d/a")]).write_layout(place / "layout")
    name = registry.push(f"oci:{layout}:latest", "store:1")
    bare_kelp("pull", "-q", PLAIN, name)
    bare_kelp.image = name
    return bare_kelp


@pytest.mark.parametrize("command, code", [(("rmi", "x"), 1), (("rmi", "-a"), 0), (("image", "prune", "-a", "-f"), 0),
                                           (("system", "prune", "-a", "-f"), 0), (("store", "gc"), 0), (("store", "verify"), 0),
                                           (("manifest", "rm", "x"), 1), (("untag", "x"), 125), (("tag", "x", "y"), 125)])
def test_where_nothing_was_ever_stored(bare_kelp, command, code):
    result = bare_kelp(*command, code=code)
    assert not code or "x: image" in result.err and "not known" in result.err


def test_a_good_store(pulled):
    out = pulled("store", "verify").text
    assert "1 images, 4 blobs" in out and "2 unpacked layers: all good" in out
    assert pulled("store", "verify", "-q").out == ""


def test_damaged_blobs_are_found_and_fetched_again(pulled):
    layer, config = blob(pulled, layer_digests(pulled, pulled.image)[1]), pulled.store / "blobs/sha256" / record(
        pulled, pulled.image)["Id"]
    before = {path: path.read_bytes() for path in (layer, config)}
    layer.chmod(0o600)
    layer.write_bytes(b"x" * 100)
    config.unlink()
    result = pulled.fails("store", "verify", code=1, says="damaged in 2 places", hint="--repair")
    assert f"sha256:{layer.name}: damaged" in result.out and f"sha256:{config.name}: missing" in result.out
    out = pulled("store", "verify", "--repair", PLAIN).out
    assert out.count("(repaired)") == 2
    assert {path: path.read_bytes() for path in before} == before
    assert pulled("store", "verify", "-q").out == ""


def test_a_repair_fetches_what_is_damaged_and_nothing_else(bare_kelp, hostile):
    image = Image([LayerTar().file(f"f{n}", str(n)) for n in range(3)], {"Cmd": ["/none"]})
    name = hostile.add(image, "app:1")
    bare_kelp("pull", "-q", PLAIN, name)
    config, layers = image.manifest["config"]["digest"], [layer["digest"] for layer in image.layers]

    def fetched_by_a_repair():
        hostile.requests.clear()
        bare_kelp("store", "verify", "--repair", PLAIN)
        paths = [path for _, path, _ in hostile.requests]
        assert bare_kelp("store", "verify", "-q").out == ""
        return sorted(path.rpartition("/")[2] for path in paths if "/blobs/" in path), paths

    assert fetched_by_a_repair() == ([], [])
    (tree,) = [path for path in layers_of(bare_kelp) if (path / "diff/f1").exists()]
    (tree / "diff/f1").write_text("other")
    assert fetched_by_a_repair() == ([], [])  # it is made of its blob again
    blob(bare_kelp, layers[1]).chmod(0o600)
    blob(bare_kelp, layers[1]).write_bytes(b"x")
    assert fetched_by_a_repair()[0] == [layers[1]]
    blob(bare_kelp, config).unlink()
    blob(bare_kelp, layers[2]).unlink()
    assert fetched_by_a_repair()[0] == sorted([config, layers[2]])
    blob(bare_kelp, image.descriptor()["digest"]).unlink()
    blobs, paths = fetched_by_a_repair()
    assert blobs == [] and any("/manifests/" in path for path in paths)


def test_a_blob_that_cannot_be_fetched_again(kelp):
    layer = blob(kelp, layer_digests(kelp, "busybox")[0])
    layer.unlink()
    result = kelp.fails("store", "verify", "--repair", code=1, says="1 places")
    assert "comes from no registry" in result.out
    assert kelp("run", "--rm", *NONE, "busybox", "echo", "still").out == "still\n"  # the unpacked layer is there


@pytest.mark.parametrize("damage, says", [
    (lambda d: (d / "d/a").write_text("other"), "d/"),
    (lambda d: (d / "d/b").chmod(0o644), "mode"),
    (lambda d: (d / "d/s").unlink(), "missing"),
    (lambda d: (d / "extra").write_text(""), "does not belong"),
    (lambda d: os.utime(d / "d/b", (1, 1)), "time"),
    (lambda d: ((d / "d/s").unlink(), (d / "d/s").symlink_to("b")), "target"),
], ids=["content", "mode", "missing", "extra", "time", "link"])
def test_damaged_layers_are_unpacked_again(pulled, damage, says):
    (directory,) = [path for path in layers_of(pulled) if (path / "diff/d").exists()]
    damage(directory / "diff")
    result = pulled.fails("store", "verify", code=1, says="damaged")
    assert says in result.out
    assert "(repaired)" in pulled("store", "verify", "--repair").out
    assert pulled("store", "verify", "-q").out == ""
    assert pulled("run", "--rm", *NONE, pulled.image, "stat", "-c", "%a %s", "/d/b", "/d/a").out == "600 1\n644 1000\n"


def test_a_lost_record_and_what_another_tool_wrote(pulled, place):
    needs.need("program:skopeo")
    (record_file,) = [path for path in (pulled.store / "images").iterdir() if path.suffix == ".json"]
    record_file.unlink()
    other = Image([LayerTar().file("f", "by skopeo")]).write_layout(place / "other", "x")
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", f"oci:{other}:x",
                    f"oci:{pulled.store}:localhost/foreign:1"], check=True, capture_output=True)
    pulled.fails("store", "verify", code=1, says="2 places")
    pulled("store", "verify", "--repair")
    assert {line for line in pulled("images", "--format", "{{.Repository}}:{{.Tag}}").lines} == {
        pulled.image, "localhost/foreign:1"}
    assert pulled("store", "verify", "-q").out == ""


def test_gc_after_a_killed_pull(bare_kelp, registry, place):
    data = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(300_000))
    layout = Image([LayerTar().file("big", data), LayerTar().file("f", "x")]).write_layout(place / "layout")
    name = registry.push(f"oci:{layout}:latest", "killed:1")
    child = bare_kelp.start("pull", "-q", PLAIN, name)
    end = time.monotonic() + 20
    while not list((bare_kelp.store / "layers").glob(".tmp-*")) and time.monotonic() < end and child.poll() is None:
        time.sleep(0.002)
    for pid in _descendants(child.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    child.wait()
    bare_kelp.end_children()
    bare_kelp("store", "gc")
    assert not list((bare_kelp.store / "layers").glob(".tmp-*"))
    assert bare_kelp("store", "verify", "-q").out == ""
    bare_kelp("pull", "-q", PLAIN, name)
    assert bare_kelp("store", "verify", "-q").out == ""


def _descendants(pid):
    found = [pid]
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and int(open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()[1]) in found:
                found.append(int(entry))
        except OSError:
            pass
    return found


def test_gc_of_layers_that_come_back(kelp):
    kelp("run", "-d", "--name", "user", *NONE, "busybox", "sleep", "100")
    before = layers_of(kelp)
    kelp("store", "gc", "--layers")
    assert layers_of(kelp) == before  # a container stands on them
    kelp("rm", "-f", "-t", "0", "user")
    assert "1 unpacked layers" in kelp("store", "gc", "--layers").out
    assert layers_of(kelp) == []
    assert kelp("run", "--rm", *NONE, "busybox", "echo", "back").out == "back\n"


def test_disk_use(kelp):
    kelp("run", "--name", "user", "-v", "vol:/v", *NONE, "busybox", "sh", "-c",
         "head -c 100000 /dev/zero > /f; head -c 50000 /dev/zero > /v/f")
    rows = {row["Type"]: row for row in json.loads(kelp("system", "df", "--format", "json").out)}
    assert rows["Images"]["Total"] == 1 and rows["Images"]["Active"] == 1
    assert rows["Containers"]["RawSize"] >= 100_000 and rows["Local Volumes"]["RawSize"] >= 50_000
    stored = sum(path.stat().st_size for path in (kelp.store / "blobs/sha256").iterdir())
    assert rows["Images"]["RawSize"] > stored  # and the unpacked layers
    out = kelp("system", "df").lines
    assert out[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"] and len(out) == 4
    out = kelp("system", "df", "-v").out
    for word in ("localhost/busybox", "user", "vol", "UNIQUE SIZE", "Blobs:"):
        assert word in out
    assert kelp("system", "df", "--format", "{{.Type}}").lines[0] == "Images"


def test_image_tree(kelp, place):
    base = images.busybox_layer()
    child = Image([base, LayerTar().file("child", "1"), LayerTar().file("top", "2")])
    kelp("load", "-q", "-i", child.write_archive(place / "c.tar", "localhost/child:1"))
    out = kelp("image", "tree", "child:1").lines
    assert out[0] == f"Image ID: {child.id[:12]}" and out[3] == "Image Layers" and len(out) == 7
    assert out[4].startswith("├── ID: ") and "Top Layer of: [localhost/busybox:latest]" in out[4]
    assert out[6].startswith("└── ID: ") and "Top Layer of: [localhost/child:1]" in out[6]
    out = kelp("image", "tree", "--whatrequires", "busybox").out
    assert f"Image {child.id[:12]} [localhost/child:1]" in out


def test_layers_from_before_a_crash_are_not_trusted(kelp):
    kelp("run", "--rm", *NONE, "busybox", "true")
    end = time.monotonic() + 20
    (directory,) = layers_of(kelp)
    while not (directory / "synced").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert (directory / "synced").exists()  # made durable in the background
    (directory / "synced").unlink()
    info = json.loads((directory / "layer.json").read_text())
    (directory / "layer.json").write_text(json.dumps({**info, "boot": "0" * 32}))  # as if the machine had been off
    (directory / "diff/etc/passwd").write_text("half a fi")
    assert kelp("run", "--rm", *NONE, "busybox", "head", "-1", "/etc/passwd").out.startswith("root:")


def test_another_id_map_is_unpacked_without_stopping_others(kelp, place):
    """Its layers at once, and no other command waits for them: the locks of the two layers are held here meanwhile."""
    assert kelp("run", "--rm", *NONE, "--userns", "keep-id", "busybox", "true").err == ""  # nothing was copied from anywhere
    (key,) = {path.name for path in layers_of(kelp) if path.parent.name != "mount-points"} - {"full"}
    image = Image([LayerTar().directory("bin").file("bin/x", "x"), LayerTar().file("y", "y")], {"Cmd": ["/none"]})
    kelp("load", "-q", "-i", image.write_archive(place / "two.tar", "localhost/two:1"))
    first, second = (diff.split(":")[1] for diff in image.config["rootfs"]["diff_ids"])
    chains = [first, hashlib.sha256(f"sha256:{first} sha256:{second}".encode()).hexdigest()]
    paths = [str(kelp.store / "locks" / f"layer-{chain}-{key}") for chain in chains]
    held = [open(path, "w") for path in paths]
    for file in held:
        fcntl.flock(file, fcntl.LOCK_EX)
    waiting = kelp.start("create", "--name", "slow", *NONE, "--userns", "keep-id", "two:1")
    try:
        until("all layers asked for at once", lambda: len(opened_by_kelp_image(paths)) == min(2, os.cpu_count()), 60)
        kelp("images")
        kelp("ps", "-a")
        kelp("run", "--rm", *NONE, "busybox", "true")
        kelp("run", "--rm", *NONE, "--userns", "keep-id", "busybox", "true")
        kelp("tag", "busybox", "other:1")
        kelp("load", "-q", "-i", Image([LayerTar().file("z", "z")]).write_archive(place / "three.tar", "localhost/three:1"))
        kelp("rmi", "three:1", "other:1")
        kelp("store", "verify", "-q")
        assert waiting.poll() is None and not (kelp.store / "layers" / chains[0] / key).exists()
    finally:
        for file in held:
            file.close()
    waiting.wait(timeout=120)
    assert waiting.returncode == 0
    assert all((kelp.store / "layers" / chain / key / "diff").is_dir() for chain in chains)


def opened_by_kelp_image(paths):
    """Which of the files some kelp-image of this test has open."""
    found = set()
    for pid, _, name in processes.descendants():
        if name != "kelp-image":
            continue
        try:
            found |= {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")} & set(paths)
        except OSError:
            continue
    return found
