"""Bad input: one clear line, exit status 125, and nothing changed on disk."""

import json
import os
import socket
import subprocess

import pytest

from harness import images, needs, programs
from harness.registry import free_port
from harness.waiting import until

NONE = ("--network", "none")


def snapshot(kelp):
    """Every file of the store with its size and what is in the small ones; locks and what a lookup may cache left out. Of an earlier container with
    --rm the end is told before its directory is removed: the trash must be empty first, without a further command."""
    trash = kelp.store / "trash"
    until("an empty trash", lambda: not (trash.is_dir() and os.listdir(trash)), 60)
    found = {}
    for directory, names, files in os.walk(kelp.store):
        for name in names + files:
            path = os.path.join(directory, name)
            # A marker that a background sync sets, and the part of a download that the next try goes on from.
            if "/locks" in path or name in ("version", "synced") or "/partial" in path:
                continue
            info = os.lstat(path)
            content = os.readlink(path) if os.path.islink(path) else ""
            if name in files and not content and info.st_size < 1 << 20 and os.access(path, os.R_OK):
                with open(path, "rb") as file:
                    content = file.read()
            found[os.path.relpath(path, kelp.store)] = (info.st_mode, info.st_size if name in files else 0, content)
    return found


@pytest.fixture
def refused(kelp):
    """Calls kelp.fails and holds the store before against the store after."""
    kelp("images")
    before = snapshot(kelp)

    def call(*args, **more):
        result = kelp.fails(*args, **more)
        assert snapshot(kelp) == before, f"the store changed:\n{result}"
        return result

    call.kelp = kelp
    return call


# --- command line ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments,says", [
    (("run", "--no-such-option", "busybox"), "no-such-option"),
    (("run", "--pull", "sometimes", "busybox"), "sometimes"),
    (("run", "--restart", "perhaps", "busybox"), "perhaps"),
    (("run", "--memory", "lots", "busybox"), "lots"),
    (("run", "--cpus", "-1", "busybox"), "-1"),
    (("run", "--network", "warp", "busybox"), "warp"),
    (("run", "--userns", "warp", "busybox"), "warp"),
    (("run", "--cap-add", "FLY", "busybox"), "(?i)fly"),
    (("run", "--ulimit", "nofile", "busybox"), "nofile"),
    (("run", "--ulimit", "nowhere=1", "busybox"), "nowhere"),
    (("run", "--security-opt", "warp=1", "busybox"), "warp"),
    (("run", "--security-opt", "seccomp=/absent.json", "busybox"), "/absent.json"),
    (("run", "-p", "99999:80", "busybox"), "99999"),
    (("run", "-p", "80:abc", "busybox"), "abc"),
    (("run", "-p", "1-3:1-2", "busybox"), "1-3"),
    (("run", "-v", "relative:also-relative", "busybox"), "also-relative"),
    (("run", "--mount", "type=warp,dst=/x", "busybox"), "warp"),
    (("run", "--mount", "type=bind,src=/tmp", "busybox"), "(?i)target|dst|destination|absolute path"),
    (("run", "--env-file", "/absent.env", "busybox"), "/absent.env"),
    (("run", "--name", "bad/name", "busybox"), "bad/name"),
    (("run", "--hostname", "x" * 65, "busybox"), "(?i)hostname"),
    (("run", "--stop-signal", "SIGWARP", "busybox"), "SIGWARP"),
    (("run", "--device", "/dev/absent", "busybox"), "/dev/absent"),
    (("run", "--add-host", "nocolon", "busybox"), "nocolon"),
    (("run", "--shm-size", "huge", "busybox"), "huge"),
    (("run", "--tmpfs", "relative", "busybox"), "relative"),
    (("run", "--sysctl", "kernel.pid_max=1", "busybox"), "kernel.pid_max"),
    (("run", "--uidmap", "0:1:x", "busybox"), "0:1:x"),
    (("run", "--detach-keys", "ctrl-\u00e9", "busybox"), "ctrl-"),
    (("run",), "(?i)image"),
    (("no-such-command",), "no-such-command"),
    (("stop", "-t", "soon", "x"), "soon"),
    (("ps", "--filter", "warp=1"), "warp"),
    (("logs", "--since", "eventually", "x"), "eventually|no such container|x"),
], ids=lambda value: value if isinstance(value, str) else "_".join(value[:3]))
def test_arguments(refused, arguments, says):
    if arguments[0] == "run" and len(arguments) > 1 and "--network" not in arguments and "-p" not in arguments:
        arguments = ("run", *NONE, *arguments[1:])
    refused(*arguments, says=says)


@pytest.mark.parametrize("name", ["UPPER", "a//b", "busybox:bad:tag", "@sha256:0", "busybox@sha256:123", ""])
def test_image_names(refused, name):
    refused("run", *NONE, name, "true")


def test_an_unknown_image(refused):
    refused("run", "--rm", *NONE, "localhost/unknown:1", "true", says="localhost/unknown")
    refused("rmi", "localhost/unknown:1", says="localhost/unknown", code=1)
    refused("tag", "localhost/unknown:1", "localhost/x:1", says="localhost/unknown")
    refused("save", "-o", "/dev/null", "localhost/unknown:1", says="localhost/unknown")


def test_a_field_that_no_row_has(kelp):
    kelp("create", *NONE, "busybox", "true")
    kelp.fails("ps", "-a", "--format", "{{.Warp}}", says="Warp")


def test_a_name_in_use(refused):
    kelp = refused.kelp
    kelp("create", "--name", "taken", *NONE, "busybox", "true")
    before = snapshot(kelp)
    kelp.fails("run", "--name", "taken", *NONE, "busybox", "true", says="taken")
    assert snapshot(kelp) == before


def test_a_port_in_use(refused):
    needs.need("tun")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        refused("run", "-d", "-p", f"127.0.0.1:{listener.getsockname()[1]}:80", "busybox", "true",
                says="in use", code=126)


# --- registries ------------------------------------------------------------------------------------------------------

def test_an_unreachable_registry(refused):
    address = f"127.0.0.1:{free_port()}"
    refused("pull", "-q", "--tls-verify=false", f"{address}/x:1", says="(?i)refused|connect")


def test_a_registry_without_the_image(refused, registry):
    refused("pull", "-q", "--tls-verify=false", f"{registry.address}/absent:1", says="absent")


def test_a_password_that_is_missing(refused, password_registry, busybox_layout):
    name = password_registry.push(f"oci:{busybox_layout}:latest", "closed:1")
    refused("pull", "-q", "--tls-verify=false", name, says="(?i)denied|unauthorized|authentication", hint="login|auth")
    refused("pull", "-q", "--tls-verify=false", "--creds", "someone:wrong", name, says="(?i)denied|unauthorized|password")


def test_a_certificate_nobody_trusts(refused, tls_registry, busybox_layout):
    name = tls_registry.push(f"oci:{busybox_layout}:latest", "trust:1")
    refused("pull", "-q", name, says="(?i)certificate")


def test_a_blob_that_changed_in_the_registry(refused, registry, place):
    image = images.busybox_image([images.LayerTar().file("x", "changed blob\n" * 1000)])
    name = registry.push(f"oci:{image.write_layout(place / 'l', 'latest')}:latest", "damaged:1")
    blob = registry.blob_path(image.layers[-1]["digest"])
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    refused("pull", "-q", "--tls-verify=false", name, says="(?i)digest|damaged|corrupt")


def test_a_blob_cut_short_in_the_registry(refused, registry, place):
    image = images.busybox_image([images.LayerTar().file("x", os.urandom(100000))])
    name = registry.push(f"oci:{image.write_layout(place / 'l', 'latest')}:latest", "short:1")
    blob = registry.blob_path(image.layers[-1]["digest"])
    blob.write_bytes(blob.read_bytes()[:5000])
    refused("pull", "-q", "--tls-verify=false", name)


# --- archives --------------------------------------------------------------------------------------------------------

def load_refused(refused, path, says=None):
    refused("load", "-q", "-i", path, says=says)


def test_files_that_are_no_archives(refused, place):
    (place / "text").write_text("not an archive\n" * 100)
    (place / "empty").write_bytes(b"")
    for name in ("text", "empty", "absent"):
        load_refused(refused, place / name, says=name)
    load_refused(refused, place, says=str(place))


def test_an_archive_cut_short(refused, busybox_archive, place):
    cut = place / "cut.tar"
    cut.write_bytes(busybox_archive.read_bytes()[:300000])
    load_refused(refused, cut)


def break_layout(place, change):
    image = images.busybox_image([images.LayerTar().file("second", "layer\n")])
    layout = image.write_layout(place / "layout", "localhost/broken:1")
    change(image, layout)
    return layout


def blob_file(layout, digest):
    return layout / "blobs/sha256" / digest.split(":")[1]


@pytest.mark.parametrize("how", ["digest", "short", "missing", "config", "manifest", "index", "version", "size", "diff_id",
                                 "layers"])
def test_broken_layouts(refused, place, how):
    def change(image, layout):
        index = json.loads((layout / "index.json").read_text())
        manifest_path = blob_file(layout, index["manifests"][0]["digest"])
        layer = blob_file(layout, image.layers[0]["digest"])
        if how == "digest":
            data = bytearray(layer.read_bytes())
            data[1000] ^= 1
            layer.write_bytes(data)
        elif how == "short":
            layer.write_bytes(layer.read_bytes()[:-100])
        elif how == "missing":
            layer.unlink()
        elif how == "config":
            blob_file(layout, image.manifest["config"]["digest"]).write_text("{broken")
        elif how == "manifest":
            manifest_path.write_text("[]")
        elif how == "index":
            (layout / "index.json").write_text('{"schemaVersion": 2, "manifests": 5}')
        elif how == "version":
            (layout / "oci-layout").write_text('{"imageLayoutVersion": "9.0.0"}')
        else:
            # Consistent digests, false contents.
            if how == "size":
                image.manifest["layers"][0]["size"] += 1
            elif how == "layers":
                image.manifest["layers"].pop()
            elif how == "diff_id":
                image.config["rootfs"]["diff_ids"][0] = "sha256:" + "0" * 64
                config = json.dumps(image.config).encode()
                image.manifest["config"] |= {"digest": images.digest(config), "size": len(config)}
                blob_file(layout, images.digest(config)).write_bytes(config)
            entry = image.descriptor("localhost/broken:1")
            blob_file(layout, entry["digest"]).write_bytes(image.blobs[entry["digest"]])
            index["manifests"] = [entry]
            (layout / "index.json").write_text(json.dumps(index))
    load_refused(refused, break_layout(place, change))


ESCAPES = {
    "dot-dot": lambda t: t.file("../../escaped", "x"),
    "dot-dot-inside": lambda t: t.directory("a").file("a/../../../escaped", "x"),
    "dot-dot-directory": lambda t: t.directory("../escaped-directory"),
    "symlink-up": lambda t: t.symlink("up", "../../../../../../tmp").file("up/kelp-escaped", "x"),
    "symlink-below": lambda t: t.directory("d").symlink("d/up", "../../../../../../../tmp").file("d/up/kelp-escaped", "x"),
    "hardlink": lambda t: t.hardlink("passwd", "/etc/passwd"),
    "hardlink-up": lambda t: t.hardlink("passwd", "../../../../../../etc/passwd"),
    "absolute": lambda t: t.file("/tmp/kelp-escaped", "x"),
    "whiteout-up": lambda t: t.file("../.wh.escaped"),
}


@pytest.mark.parametrize("how", ESCAPES)
def test_layers_that_reach_out_of_themselves(refused, place, how):
    """Refused with the name that does; what is outside is as it was."""
    layer = images.LayerTar()
    ESCAPES[how](layer)
    outside = refused.kelp.store.parent / "escaped"
    outside.write_text("untouched")
    archive = images.busybox_image([layer]).write_archive(place / "escape.tar", "localhost/escape:1")
    load_refused(refused, archive, says="out of the root|is not in the archive|the name is absolute|\\.\\.")
    assert not os.path.lexists("/tmp/kelp-escaped")
    assert outside.read_text() == "untouched" and not (outside.parent / "escaped-directory").exists()


def test_links_to_absolute_paths_mean_the_containers(kelp, place):
    """Any system has them; also one through which another entry is named."""
    layer = images.LayerTar().symlink("out", "/etc/passwd").symlink("up", "../../../../../../etc/passwd")
    layer.symlink("tmp-by-another-name", "/tmp").file("tmp-by-another-name/kelp-escaped", "inside\n")
    kelp("load", "-q", "-i", images.busybox_image([layer]).write_archive(place / "l.tar", "localhost/links:1"))
    inside = kelp("run", "--rm", *NONE, "links:1", "cat", "/out", "/up", "/etc/passwd").out
    assert kelp("run", "--rm", *NONE, "links:1", "cat", "/tmp/kelp-escaped").out == "inside\n"
    assert not os.path.lexists("/tmp/kelp-escaped")
    assert inside == inside[:len(inside) // 3] * 3 and inside.startswith("root:x:0:0:root:/root:/bin/sh\ndaemon")


def test_names_full_of_control_characters(kelp, place):
    layer = images.LayerTar().file("a\nb\x1b[31m\u2603", "odd\n").file("x" * 200, "long\n")
    kelp("load", "-q", "-i", images.busybox_image([layer]).write_archive(place / "odd.tar", "localhost/odd:1"))
    assert kelp("run", "--rm", *NONE, "odd:1", "sh", "-c", "cat /a*b*").out == "odd\n"


# --- a host that lacks something -------------------------------------------------------------------------------------

def test_a_newer_store_is_left_alone(kelp):
    version = kelp.store / "version"
    before = version.read_bytes()
    version.write_text("99\n")
    try:
        kelp.fails("ps", says="newer")
        assert version.read_text() == "99\n"
    finally:
        version.write_bytes(before)


def test_a_damaged_record_does_not_stop_the_others(kelp):
    good = kelp("create", "--name", "good", *NONE, "busybox", "echo", "fine").text
    bad = kelp("create", "--name", "bad", *NONE, "busybox", "true").text
    record = kelp.store / "containers" / bad / "record.json"
    before = record.read_bytes()
    record.write_text('{"schema": 1, "id"')
    result = kelp("ps", "-a", "-q", "--no-trunc", code=None)
    assert good in result.out
    assert kelp("start", "-a", "good").out == "fine\n"
    assert record.read_text() == '{"schema": 1, "id"'
    record.write_bytes(before)


def test_a_store_that_cannot_be_written(kelp):
    if os.getuid() == 0:
        needs.skip("ordinary-user")
    os.chmod(kelp.store, 0o500)
    os.chmod(kelp.store / "containers", 0o500)
    try:
        kelp.fails("create", *NONE, "busybox", "true", says="(?i)permission denied")
        kelp("ps", "-a")
    finally:
        os.chmod(kelp.store, 0o700)
        os.chmod(kelp.store / "containers", 0o700)


@pytest.mark.parametrize("lack,word", [("helpers", "newuidmap"), ("ranges", "/etc/subuid")])
def test_no_newuidmap_and_no_subordinate_ids(kelp, agent, lack, word):
    """One user is what can be had then, with one line that says why. What needs more is refused with that reason."""
    needs.need("subids")

    def lacking(*arguments):
        return agent("lacking", lack=[lack], argv=kelp.argv("run", "--rm", *NONE, *arguments), environment=kelp.env)

    code, out, err = lacking("busybox", "sh", "-c", "wc -l < /proc/self/uid_map")
    assert (code, out) == (0, "1\n"), err
    errors = [line for line in err.splitlines() if not line.startswith(("hint:", *programs.PROGRESS))]
    assert len(errors) <= 1 and (not errors or word in errors[0]), err
    before = snapshot(kelp)
    for options in (("--uidmap", "0:1:100"), ("--userns", "auto:size=1000")):
        code, out, err = lacking(*options, "busybox", "true")
        assert code == 125 and "ids" in err, err
        assert len([line for line in err.splitlines() if not line.startswith("hint:")]) <= 2, err
        assert snapshot(kelp) == before


def test_no_home(kelp):
    result = subprocess.run(kelp.argv("ps"), env={"PATH": "/usr/bin"}, capture_output=True, text=True)
    assert result.returncode in (0, 125) and len(result.stderr.splitlines()) <= 2


def test_a_mistyped_command_is_answered_with_the_nearest_one(kelp):
    for typed, meant in (("rnu", "run"), ("imagse", "images"), ("container lst", "container ls"), ("volume creat", "volume create")):
        kelp.fails(*typed.split(), says=typed.split()[-1], hint=f"did you mean 'kelp {meant}'")
    kelp.fails("run", "--nmae", "x", "busybox", says="--nmae; did you mean --name")
    kelp.fails("qqqqqqqqqq", says="qqqqqqqqqq", hint="--help")  # near to nothing
