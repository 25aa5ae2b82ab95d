"""Images: pull, load, save, tag, rmi, import; the store stays an OCI layout that other tools read."""

import json
import os
import re
import subprocess

import pytest

from harness import images, needs

NONE = ("--network", "none")


def run(kelp, image, *command, **more):
    return kelp("run", "--rm", *NONE, image, *command, **more)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_pull_by_compression(bare_kelp, registry, place, compression):
    if compression == "zstd":
        needs.need("program:zstd")
    image = images.busybox_image([images.LayerTar().file("how", compression)], compression=compression)
    name = registry.push(f"oci:{image.write_layout(place / 'l', 'x')}:x", f"by-{compression}:1")
    assert bare_kelp("pull", "-q", "--tls-verify=false", name).text == image.id
    assert run(bare_kelp, name, "cat", "/how").out == compression


def test_pull_docker_manifests(bare_kelp, registry, busybox_layout):
    needs.need("program:skopeo")
    name = f"{registry.address}/docker:1"
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", "-f", "v2s2", "--dest-tls-verify=false",
                    f"oci:{busybox_layout}:latest", f"docker://{name}"], check=True, capture_output=True)
    bare_kelp("pull", "-q", "--tls-verify=false", name)
    assert run(bare_kelp, name, "echo", "v2s2").out == "v2s2\n"


def test_pull_by_digest_and_again(bare_kelp, registry, busybox_layout):
    name = registry.push(f"oci:{busybox_layout}:latest", "twice:1")
    first = bare_kelp("pull", "-q", "--tls-verify=false", name).text
    assert bare_kelp("pull", "-q", "--tls-verify=false", name).text == first
    digest = json.loads(bare_kelp("image", "inspect", name).out)[0]["Digest"]
    assert bare_kelp("pull", "-q", "--tls-verify=false", name.rsplit(":", 1)[0] + "@" + digest).text == first


def test_pull_over_tls_with_a_trusted_authority(bare_kelp, tls_registry, busybox_layout):
    name = tls_registry.push(f"oci:{busybox_layout}:latest", "tls:1")
    directory = bare_kelp.config / "containers/certs.d" / tls_registry.address
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(tls_registry.ca.read_bytes())
    bare_kelp("pull", "-q", name)
    assert run(bare_kelp, name, "echo", "trusted").out == "trusted\n"


def test_pull_with_credentials(bare_kelp, password_registry, busybox_layout, place):
    name = password_registry.push(f"oci:{busybox_layout}:latest", "closed:1")
    bare_kelp("pull", "-q", "--tls-verify=false", "--creds", "someone:secret", name)
    bare_kelp("rmi", name)
    import base64
    auth = place / "auth.json"
    auth.write_text(json.dumps({"auths": {password_registry.address: {
        "auth": base64.b64encode(b"someone:secret").decode()}}}))
    bare_kelp("pull", "-q", "--tls-verify=false", "--authfile", auth, name)


def test_insecure_by_registries_conf(bare_kelp, registry, busybox_layout):
    name = registry.push(f"oci:{busybox_layout}:latest", "conf:1")
    directory = bare_kelp.config / "containers"
    directory.mkdir()
    (directory / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n')
    bare_kelp("pull", "-q", name)


def test_run_pulls_what_is_missing(bare_kelp, registry, busybox_layout):
    name = registry.push(f"oci:{busybox_layout}:latest", "auto:1")
    out = bare_kelp("run", "--rm", *NONE, "--tls-verify=false", name, "echo", "pulled")
    assert out.out == "pulled\n"


def test_platform_of_an_index(bare_kelp, registry, place):
    needs.need("program:skopeo")
    layout = place / "multi"
    descriptors = []
    for architecture in ("amd64", "arm64"):
        image = images.busybox_image([images.LayerTar().file("arch", architecture)], architecture=architecture)
        entry = image.descriptor()
        entry["platform"] = {"os": "linux", "architecture": architecture}
        (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        for key, data in image.blobs.items():
            (layout / "blobs/sha256" / key.split(":")[1]).write_bytes(data)
        descriptors.append(entry)
    index = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": descriptors}).encode()
    (layout / "blobs/sha256" / images.digest(index).split(":")[1]).write_bytes(index)
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": images.OCI_INDEX, "digest": images.digest(index), "size": len(index),
         "annotations": {images.REF_NAME: "multi"}}]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    name = f"{registry.address}/multi:1"
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", "--all", "--dest-tls-verify=false", f"oci:{layout}:multi",
                    f"docker://{name}"], check=True, capture_output=True)
    bare_kelp("pull", "-q", "--tls-verify=false", "--platform", "linux/amd64", name)
    assert run(bare_kelp, name, "cat", "/arch").out == "amd64"
    bare_kelp("pull", "-q", "--tls-verify=false", "--platform", "linux/arm64", name)
    assert json.loads(bare_kelp("image", "inspect", name).out)[0]["Architecture"] == "arm64"


def test_layer_semantics(bare_kelp, place):
    first = images.LayerTar()
    first.directory("d").file("d/gone", "1").file("d/kept", "1").directory("opaque").file("opaque/old", "1")
    first.file("replaced", "old").directory("becomes-file").file("becomes-file/x", "1").file("becomes-dir", "1")
    first.file("linked", "same").hardlink("link", "linked").symlink("sym", "linked").fifo("pipe")
    first.file("setuid", "x", mode=0o4755).file("private", "x", mode=0o600)
    second = images.LayerTar()
    second.whiteout("d/gone").directory("opaque").opaque("opaque").file("opaque/new", "2").file("replaced", "new")
    second.whiteout("becomes-file").file("becomes-file", "2").whiteout("becomes-dir").directory("becomes-dir")
    bare_kelp("load", "-q", "-i", images.busybox_image([first, second]).write_archive(place / "i.tar", "localhost/s:1"))
    script = ("ls /d /opaque; cat /replaced; echo; stat -c '%F' /becomes-file /becomes-dir /pipe; stat -c %h /linked; "
              "cat /link /sym; echo; stat -c %a /setuid /private")
    assert run(bare_kelp, "s:1", "sh", "-c", script).lines == [
        "/d:", "kept", "", "/opaque:", "new", "new", "regular file", "directory", "fifo", "2", "samesame", "4755", "600"]


def test_a_foreign_overlay_attribute_has_no_effect(bare_kelp, place):
    first = images.LayerTar().directory("d").file("d/f", "seen")
    second = images.LayerTar().directory("d", xattrs={"user.overlay.opaque": "y", "trusted.overlay.opaque": "y"})
    bare_kelp("load", "-q", "-i", images.busybox_image([first, second]).write_archive(place / "i.tar", "localhost/x:1"))
    assert run(bare_kelp, "x:1", "cat", "/d/f").out == "seen"


def test_a_large_sparse_file(bare_kelp, place):
    data = bytearray(64 << 20)
    data[-4:] = b"end\n"
    layer = images.LayerTar().file("sparse", bytes(data))
    bare_kelp("load", "-q", "-i", images.busybox_image([layer]).write_archive(place / "i.tar", "localhost/big:1"))
    assert run(bare_kelp, "big:1", "sh", "-c", "stat -c %s /sparse; tail -c 4 /sparse").out == f"{64 << 20}\nend\n"
    (kept,) = (bare_kelp.store / "layers").glob("*/*/diff/sparse")
    assert kept.stat().st_blocks * 512 < 4 << 20, "its holes take room"


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_archives_with_sparse_entries(bare_kelp, place, form):
    """As GNU tar writes them, in its old form and in that of POSIX; larger than the header's octal digits can say."""
    size = 9 << 30
    with (place / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(size - 3)
        file.write(b"end")
    subprocess.run(["tar", "-C", place, "--sparse", f"--format={form}", "-cf", place / "layer.tar", "sparse"], check=True)
    layer = (place / "layer.tar").read_bytes()
    assert len(layer) < 1 << 20
    bare_kelp("load", "-q", "-i", images.busybox_image([layer]).write_archive(place / "i.tar", "localhost/big:1"), timeout=120)
    out = run(bare_kelp, "big:1", "sh", "-c", "stat -c %s /sparse; head -c 5 /sparse; tail -c 3 /sparse").out
    assert out == f"{size}\nbeginend"
    (kept,) = (bare_kelp.store / "layers").glob("*/*/diff/sparse")
    assert kept.stat().st_blocks * 512 < 4 << 20, "its holes take room"


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_save_and_load(kelp, kelp_factory, place, form):
    target = place / "saved"
    kelp("save", "--format", form, "-o", target, "busybox")
    other = kelp_factory()
    assert "localhost/busybox:latest" in other("load", "-i", target).out
    assert run(other, "busybox", "echo", "moved").out == "moved\n"
    assert other("images", "-q", "--no-trunc").text == kelp("images", "-q", "--no-trunc").text


def test_skopeo_reads_what_was_saved(kelp, place):
    needs.need("program:skopeo")
    kelp("save", "--format", "oci-archive", "-o", place / "s.tar", "busybox")
    done = subprocess.run(["skopeo", "inspect", f"oci-archive:{place}/s.tar"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kelp("save", "-o", place / "d.tar", "busybox")
    done = subprocess.run(["skopeo", "inspect", f"docker-archive:{place}/d.tar"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_store_is_an_oci_layout(kelp):
    needs.need("program:skopeo")
    done = subprocess.run(["skopeo", "inspect", f"oci:{kelp.store}:localhost/busybox:latest"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((kelp.store / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_load_what_skopeo_made(bare_kelp, busybox_layout, place):
    needs.need("program:skopeo")
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", f"oci:{busybox_layout}:latest",
                    f"docker-archive:{place}/d.tar:localhost/made:1"], check=True, capture_output=True)
    bare_kelp("load", "-q", "-i", place / "d.tar")
    assert run(bare_kelp, "localhost/made:1", "echo", "x").out == "x\n"


def test_load_from_stdin(bare_kelp, busybox_archive):
    with open(busybox_archive, "rb") as stream:
        subprocess.run(bare_kelp.argv("load", "-q"), stdin=stream, env=bare_kelp.env, check=True, capture_output=True)
    assert run(bare_kelp, "busybox", "echo", "x").out == "x\n"


def test_tag_images_rmi(kelp):
    kelp("tag", "busybox", "localhost/other:2", "third")
    out = kelp("images").lines
    assert out[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert len(out) == 4 and len({line.split()[2] for line in out[1:]}) == 1
    image = kelp("images", "-q", "--no-trunc", "busybox").text.removeprefix("sha256:")
    kelp.fails("rmi", image[:12], says="force|more than one", code=None)
    kelp("rmi", "localhost/other:2")
    assert "other" not in kelp("images").out
    kelp("run", "-d", "--name", "user", *NONE, "busybox", "sleep", "100")
    kelp("rmi", "third")
    kelp("rmi", "busybox", code=2)
    kelp("rm", "-f", "-t", "0", "user")
    kelp("rmi", "busybox")
    assert len(kelp("images").lines) == 1
    assert not list((kelp.store / "blobs/sha256").iterdir()) or not json.loads(
        (kelp.store / "index.json").read_text())["manifests"]


def test_image_exists_inspect_history(kelp):
    kelp("image", "exists", "busybox")
    kelp("image", "exists", "nothing", code=1)
    record = json.loads(kelp("image", "inspect", "busybox").out)[0]
    assert record["RepoTags"] == ["localhost/busybox:latest"] and record["Os"] == "linux"
    assert record["Config"]["Cmd"] == ["sh"]
    assert len(kelp("image", "history", "busybox").lines) == 2
    # As `images` has it: what the layer takes when it is unpacked.
    assert kelp("history", "--format", "{{.Size}}", "busybox").text == kelp("images", "--format", "{{.Size}}").text


def test_import(bare_kelp, place):
    tree = images.busybox_layer().bytes()
    (place / "tree.tar").write_bytes(tree)
    bare_kelp("import", "-c", "CMD [\"echo\", \"imported\"]", place / "tree.tar", "localhost/imported:1")
    assert run(bare_kelp, "imported:1").out == "imported\n"


def test_hello_needs_no_registry(bare_kelp):
    assert "Hello from a container" in bare_kelp("run", "--rm", *NONE, "hello").out


def test_two_pulls_at_once(bare_kelp, registry, busybox_layout):
    name = registry.push(f"oci:{busybox_layout}:latest", "both:1")
    children = [bare_kelp.start("pull", "-q", "--tls-verify=false", name) for _ in range(4)]
    for child in children:
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
    bare_kelp.end_children()
    assert run(bare_kelp, name, "echo", "x").out == "x\n"


def test_a_removed_layer_directory_is_made_again(kelp):
    from harness import leaks
    run(kelp, "busybox", "true")
    leaks.remove_tree(kelp.store / "layers")
    assert run(kelp, "busybox", "echo", "again").out == "again\n"


def test_progress_on_a_terminal(bare_kelp, registry, place):
    """A bar of its own for each layer, full in the end; the picture is drawn over the one before."""
    more = [images.LayerTar().file(f"f{n}", os.urandom(3_000_000)) for n in range(2)]
    image = images.busybox_image(more)
    name = registry.push(f"oci:{image.write_layout(place / 'l', 'x')}:x", "bars:1")
    terminal = bare_kelp.terminal("pull", "--tls-verify=false", name)
    terminal.expect(f"(?m)^{image.id}\r$", timeout=60)
    assert terminal.wait() == 0
    # expect() took away what it had seen: once more, whole.
    bare_kelp("rmi", name)
    terminal = bare_kelp.terminal("pull", "--tls-verify=false", name)
    seen = terminal.expect(f"(?s).*\n{image.id}\r", timeout=60).group(0)
    assert terminal.wait() == 0
    assert len(image.layers) == 3 and "\x1b[3A" in seen
    last = re.split("\x1b\\[\\d+A", seen)[-1].splitlines()
    for layer in image.layers:
        assert any(layer["digest"].split(":")[1][:12] in line for line in last), seen
        bar = next(line for line in last if layer["digest"].split(":")[1][:12] in line)
        assert re.search(r"done +\[=+\]  (\S+ \w+) / \1", bar), last
    # Elsewhere a line for each, without a bar.
    bare_kelp("rmi", name)
    said = bare_kelp("pull", "--tls-verify=false", name).err
    assert "\x1b" not in said and "[=" not in said
    for layer in image.layers:
        assert f"Copied blob {layer['digest'].split(':')[1][:12]}" in said


def test_owners_outside_the_range_are_named(bare_kelp, place):
    needs.need("subids")
    layer = images.LayerTar().file("far", "x", uid=172761424)
    result = bare_kelp("load", "-q", "-i",
                       images.busybox_image([layer]).write_archive(place / "i.tar", "localhost/far:1"), code=None)
    if result.code == 0:
        result = run(bare_kelp, "far:1", "cat", "/far", code=None)
        assert result.code == 0 and result.out == "x" or "172761424" in result.err
    else:
        assert "172761424" in result.err
    assert os.path.isdir(bare_kelp.store)


def test_trees_of_all_images(bare_kelp, place):
    base = images.LayerTar().file("base", "x")
    for name, layers in (("one", [base]), ("two", [base, images.LayerTar().file("more", "y")])):
        bare_kelp("load", "-q", "-i", images.Image(layers, {"Cmd": ["/x"]}).write_archive(place / f"{name}.tar",
                                                                                         f"localhost/{name}:1"))
    out = bare_kelp("images", "--tree").text
    assert out.count("Image ID: ") == 2 and out.count("└── ID: ") == 2 and out.count("├── ID: ") == 1
    assert out.count("Top Layer of: [localhost/one:1]") == 2
    assert bare_kelp("images", "--tree", "two").text == bare_kelp("image", "tree", "two:1").text
    bare_kelp.fails("images", "--tree", "-q", says="--tree")
    bare_kelp("rmi", "--no-prune", "two:1")
    bare_kelp("image", "exists", "one:1")


def test_signatures_are_refused_clearly(bare_kelp):
    for command in (("trust", "show"), ("trust", "set", "default", "-t", "reject"), ("sign", "busybox")):
        bare_kelp.fails("image", *command, says="signatures", hint="policy.json")


def test_names_that_an_image_had(kelp, place):
    """podman's --history: the names now, then those it has lost."""
    kelp("tag", "busybox", "localhost/second:1")
    kelp("untag", "busybox", "localhost/second:1")
    kelp("tag", "busybox", "localhost/third:1")
    kelp("load", "-q", "-i", images.busybox_image([images.LayerTar().file("f", "new")]).write_archive(place / "n.tar", "localhost/third:1"))
    lines = kelp("images", "--history", "busybox").lines
    assert lines[0].split()[-1] == "HISTORY"
    assert lines[1].endswith("localhost/busybox:latest, localhost/second:1, localhost/third:1")
    assert "HISTORY" not in kelp("images").out
    assert kelp("images", "--format", "{{.History}}", "third").text == "localhost/third:1"
    (one,) = json.loads(kelp("images", "--format", "json", "busybox").out)
    assert one["History"] == ["localhost/busybox:latest", "localhost/second:1", "localhost/third:1"]
    (record,) = json.loads(kelp("image", "inspect", "busybox").out)
    assert record["NamesHistory"] == one["History"]
    kelp("tag", "busybox", "localhost/second:1")  # a name that comes back is no former one
    assert kelp("images", "--format", "{{.History}}", "second").text == \
        "localhost/busybox:latest, localhost/second:1, localhost/third:1"
