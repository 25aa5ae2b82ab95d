"""`kelp pull`: real registries on the loopback, and a hostile one."""

import hashlib
import json
import os
import pathlib
import signal
import ssl
import subprocess
import time

import pytest

from harness import images
from harness.hostile_registry import HostileRegistry
from harness.images import OCI_INDEX, Image, LayerTar, busybox_image, digest
from harness.registry import make_certificate
from harness.waiting import until

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
PLAIN = "--tls-verify=false"


@pytest.fixture
def hostile():
    made = HostileRegistry()
    yield made
    made.stop()


def small_image(seed="x", size=1000, **more):
    """One layer with a file of bytes that do not compress."""
    data = b"".join(hashlib.sha256(f"{seed}{n}".encode()).digest() for n in range(size // 32 + 1))[:size]
    return Image([LayerTar().directory("d").file("d/f", data).file("seed", str(seed))], {"Cmd": ["/none"]}, **more)


def inventory(kelp):
    """Every file of the store with its content, but for locks, marks of the background sync and what a download left
    to resume. A store that was only made, with nothing in it, is no change. An earlier container's directory is removed
    after its end was told: the trash must be empty first."""
    trash = kelp.store / "trash"
    until("an empty trash", lambda: not (trash.is_dir() and os.listdir(trash)), 60)
    found = {}
    for path in sorted(kelp.store.rglob("*")):
        if path.is_file() and not {"locks", "partial", "synced"} & set(path.parts):
            found[str(path.relative_to(kelp.store))] = path.read_bytes()
    if b'"manifests":[]' in found.get("index.json", b""):
        for name in ("index.json", "oci-layout", "version"):
            del found[name]
    return found


def check_blobs(kelp):
    """Each blob has its digest, index.json names only what is there, and nothing is half unpacked."""
    for path in (kelp.store / "blobs/sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    for entry in json.loads((kelp.store / "index.json").read_text())["manifests"]:
        manifest = json.loads((kelp.store / "blobs/sha256" / entry["digest"].split(":")[1]).read_text())
        for part in [manifest["config"], *manifest["layers"]]:
            assert (kelp.store / "blobs/sha256" / part["digest"].split(":")[1]).stat().st_size == part["size"]


def refused(kelp, name, says, *options):
    """A pull that fails with one line and leaves the store as it was."""
    kelp("images")
    before = inventory(kelp)
    result = kelp.fails("pull", "-q", PLAIN, *options, name, says=says)
    assert inventory(kelp) == before
    return result


# From a real registry


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_pull_from_a_registry(bare_kelp, registry, place, compression):
    layout = busybox_image([LayerTar().directory("more").file("more/f", "hello\n")],
                           compression=compression).write_layout(place / "layout")
    name = registry.push(f"oci:{layout}:latest", f"plain-{compression}:1")
    result = bare_kelp("pull", PLAIN, name)
    image = json.loads(bare_kelp("image", "inspect", name).out)[0]
    assert result.text.splitlines()[-1] == image["Id"]
    check_blobs(bare_kelp)
    assert bare_kelp("run", "--rm", "--network", "none", name, "cat", "/more/f").out == "hello\n"


def test_skopeo_reads_the_store(bare_kelp, registry, busybox_layout):
    name = registry.push(f"oci:{busybox_layout}:latest", "skopeo:1")
    bare_kelp("pull", "-q", PLAIN, name)
    done = subprocess.run(["skopeo", "inspect", f"oci:{bare_kelp.store}:{name}"], capture_output=True, text=True,
                          check=True)
    assert json.loads(done.stdout)["Os"] == "linux"


def test_pull_over_https(bare_kelp, tls_registry, busybox_layout):
    name = tls_registry.push(f"oci:{busybox_layout}:latest", "tls:1")
    bare_kelp.fails("pull", "-q", name, says="certificate", hint="certs.d")
    certs = bare_kelp.config / "containers/certs.d" / tls_registry.address
    certs.mkdir(parents=True)
    (certs / "ca.crt").write_bytes(tls_registry.ca.read_bytes())
    bare_kelp("pull", "-q", name)
    check_blobs(bare_kelp)


def test_pull_over_https_without_verification(bare_kelp, tls_registry, busybox_layout):
    bare_kelp("pull", "-q", PLAIN, tls_registry.push(f"oci:{busybox_layout}:latest", "tls:2"))


def test_a_client_certificate(bare_kelp, hostile, place):
    """Where the registry asks for one, that of certs.d is shown; a certificate without its key is named."""
    authority, certificate, key = make_certificate(place)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    name = hostile.add(small_image(), "app:1")
    hostile.server.socket = context.wrap_socket(hostile.server.socket, server_side=True)
    certs = bare_kelp.config / "containers/certs.d" / hostile.address
    certs.mkdir(parents=True)
    (certs / "ca.crt").write_bytes(authority.read_bytes())
    bare_kelp.fails("pull", "-q", "--retry", "0", name)
    assert hostile.requests == []
    (certs / "me.cert").write_bytes(certificate.read_bytes())
    bare_kelp.fails("pull", "-q", "--retry", "0", name, says="me.key")
    (certs / "me.key").write_bytes(key.read_bytes())
    bare_kelp("pull", "-q", name)
    check_blobs(bare_kelp)


def test_plain_http_needs_to_be_allowed(bare_kelp, registry, busybox_layout):
    name = registry.push(f"oci:{busybox_layout}:latest", "http:1")
    bare_kelp.fails("pull", "-q", name, says="HTTPS", hint="--tls-verify=false")
    conf = bare_kelp.config / "containers/registries.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n')
    bare_kelp("pull", "-q", name)


def test_pull_with_a_password(bare_kelp, password_registry, busybox_layout):
    name = password_registry.push(f"oci:{busybox_layout}:latest", "secret:1")
    bare_kelp.fails("pull", "-q", PLAIN, name, says="authentication is required", hint="--creds")
    bare_kelp.fails("pull", "-q", PLAIN, "--creds", "someone:wrong", name, says="password is wrong")
    bare_kelp("pull", "-q", PLAIN, "--creds", "someone:secret", name)


@pytest.mark.parametrize("where", ["XDG_RUNTIME_DIR", "docker", "authfile"])
def test_pull_with_an_auth_file(bare_kelp, password_registry, busybox_layout, where):
    name = password_registry.push(f"oci:{busybox_layout}:latest", "secret:2")
    path = {"XDG_RUNTIME_DIR": bare_kelp.runtime_dir / "containers/auth.json",
            "docker": bare_kelp.home / ".docker/config.json", "authfile": bare_kelp.dir / "a.json"}[where]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {password_registry.address: {"auth": "c29tZW9uZTpzZWNyZXQ="}}}))
    bare_kelp("pull", "-q", PLAIN, *(["--authfile", path] if where == "authfile" else []), name)


def test_pull_with_a_credential_helper(bare_kelp, password_registry, busybox_layout, place):
    name = password_registry.push(f"oci:{busybox_layout}:latest", "secret:3")
    (place / "bin").mkdir()
    helper = place / "bin/docker-credential-kelptest"
    helper.write_text("""#!/bin/sh
[ "$1" = get ] && read -r server
[ "$server" = "$WANTED" ] && echo '{"Username": "someone", "Secret": "secret"}' && exit
echo 'credentials not found in native keychain'
exit 1
""")
    helper.chmod(0o755)
    env = {"PATH": f"{place}/bin:{bare_kelp.env['PATH']}", "WANTED": password_registry.address}
    path = bare_kelp.home / ".docker/config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"credHelpers": {password_registry.address: "kelptest"}}))
    bare_kelp("pull", "-q", PLAIN, name, env=env)
    bare_kelp.fails("pull", "-q", PLAIN, name, env={**env, "WANTED": "other"}, says="authentication is required")
    path.write_text(json.dumps({"credsStore": "kelptest"}))
    bare_kelp("pull", "-q", PLAIN, name, env=env)


def test_a_proxy_from_the_environment(bare_kelp, hostile):
    hostile.add(small_image(), "app:1")
    bare_kelp("pull", "-q", PLAIN, f"{hostile.address}/app:1",
              env={"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"})
    bare_kelp.fails("pull", "-q", PLAIN, "--retry", "0", "plain.invalid:80/app:1",
                    env={"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
                    says="Connection refused")


def test_policies(bare_kelp, registry, place):
    first = small_image("first").write_layout(place / "one")
    second = small_image("second").write_layout(place / "two")
    name = registry.push(f"oci:{first}:latest", "moving:1")
    bare_kelp.fails("pull", "-q", PLAIN, "--policy", "never", name, says="image not known")
    old = bare_kelp("pull", "-q", PLAIN, name).text
    registry.push(f"oci:{second}:latest", "moving:1")
    assert bare_kelp("pull", "-q", PLAIN, "--policy", "missing", name).text == old
    new = bare_kelp("pull", "-q", PLAIN, "--policy", "newer", name).text
    assert new != old
    assert bare_kelp("pull", "-q", PLAIN, name).text == new
    bare_kelp.fails("pull", "-q", "--policy", "sometimes", name, says="policy")


# Documents, from the hostile registry when it behaves


def test_docker_manifests_and_platforms(bare_kelp, hostile):
    own = os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64")
    entries = []
    for architecture in (own, "s390x"):
        image = small_image(architecture, architecture=architecture)
        for layer in image.manifest["layers"]:
            layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        image.manifest["mediaType"] = DOCKER_MANIFEST
        image.manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
        data = json.dumps(image.manifest).encode()
        hostile.add(image, f"many:{architecture}", data, DOCKER_MANIFEST)
        entries.append({"mediaType": DOCKER_MANIFEST, "digest": digest(data), "size": len(data),
                        "platform": {"os": "linux", "architecture": architecture}})
    listing = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries}).encode()
    name = hostile.add(None, "many:1", listing, DOCKER_LIST)
    bare_kelp("pull", "-q", PLAIN, name)
    assert json.loads(bare_kelp("image", "inspect", name).out)[0]["Architecture"] == own
    bare_kelp("pull", "-q", PLAIN, "--platform", "linux/s390x", name)
    assert json.loads(bare_kelp("image", "inspect", name).out)[0]["Architecture"] == "s390x"
    bare_kelp.fails("pull", "-q", PLAIN, "--platform", "linux/mips", name, says=f"linux/{own}")


def test_by_digest(bare_kelp, hostile):
    image = small_image()
    hostile.add(image, "app:1")
    name = f"{hostile.address}/app@{image.descriptor()['digest']}"
    bare_kelp("pull", "-q", PLAIN, name)
    assert json.loads(bare_kelp("image", "inspect", name).out)[0]["Id"].endswith(image.id)


def test_all_tags(bare_kelp, hostile):
    for tag in ("a", "b", "c"):
        hostile.add(small_image(tag), f"app:{tag}")
    bare_kelp("pull", "-q", PLAIN, "--all-tags", f"{hostile.address}/app")
    assert len(bare_kelp("images", "-q").lines) == 3


def test_another_tag_of_a_pulled_image_is_one_question(bare_kelp, hostile):
    image = small_image()
    entry = {**image.descriptor(), "platform": {"os": "linux", "architecture": "amd64"}}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    for tag in ("1", "2"):
        hostile.add(image, f"app:{tag}")
        hostile.documents["app", tag] = hostile.documents["app", digest(index)] = (OCI_INDEX, index)
    bare_kelp("pull", "-q", PLAIN, f"{hostile.address}/app:1")
    before = len(hostile.requests)
    bare_kelp("pull", "-q", PLAIN, f"{hostile.address}/app:2")
    # /v2/ finds out whether this insecure registry speaks TLS; over HTTPS nobody asks.
    assert [path for _, path, _ in hostile.requests[before:]] == ["/v2/", "/v2/app/manifests/2"]


def test_the_same_blob_twice_in_one_image(bare_kelp, hostile):
    layer = LayerTar().file("same", "x").bytes()
    name = hostile.add(Image([layer, layer, LayerTar().file("last", "y")]), "twice:1")
    bare_kelp("pull", "-q", PLAIN, name)
    assert hostile.asked(digest(images.compress(layer, "gzip"))) == 1
    check_blobs(bare_kelp)


def test_tokens(bare_kelp, hostile):
    hostile.user, hostile.token = "me:secret", "abc"
    name = hostile.add(small_image(), "app:1")
    refused(bare_kelp, name, "authentication is required")
    refused(bare_kelp, name, "password is wrong", "--creds", "me:other")
    bare_kelp("pull", "-q", PLAIN, "--creds", "me:secret", name)
    assert any("scope=repository%3Aapp%3Apull" in path for _, path, _ in hostile.requests)


def test_a_redirect_gets_no_credentials(bare_kelp, hostile):
    other = HostileRegistry()
    try:
        image = small_image()
        hostile.token = "abc"
        name = hostile.add(image, "app:1")
        other.add(image, "app:1")
        hostile.redirect_blobs_to = other.address
        bare_kelp("pull", "-q", PLAIN, name)
        assert other.requests and not any("Authorization" in headers for _, _, headers in other.requests)
    finally:
        other.stop()


def test_mirrors_and_aliases(bare_kelp, hostile):
    hostile.add(small_image(), "m/team/app:1")
    conf = bare_kelp.config / "containers/registries.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(f"""unqualified-search-registries = ["far.invalid"]
[aliases]
"short" = "far.invalid/team/app"
[[registry]]
location = "far.invalid"
[[registry.mirror]]
location = "{hostile.address}/m"
insecure = true
[[registry]]
location = "no.invalid"
blocked = true
""")
    bare_kelp("pull", "-q", "short:1")
    bare_kelp("image", "exists", "far.invalid/team/app:1")
    bare_kelp.fails("pull", "-q", "no.invalid/x", says="blocked")
    conf.write_text("[[registry]]\ninsecure = true\n")
    bare_kelp.fails("pull", "-q", "far.invalid/x", says="registries.conf: line 1")


# What goes wrong on the way


def test_unreachable(bare_kelp, hostile):
    name = hostile.add(small_image(), "app:1")
    hostile.stop()
    refused(bare_kelp, name, "cannot connect to .*: Connection refused", "--retry", "1")


def test_unknown_images(bare_kelp, hostile):
    refused(bare_kelp, f"{hostile.address}/nothing:1", "has no such image")
    for name in ("UPPER", "a//b", "x:y:z", "", "a@sha256:12"):
        bare_kelp.fails("pull", "-q", name)


def test_errors_that_pass(bare_kelp, hostile):
    name = hostile.add(small_image(), "app:1")
    hostile.fail_next = [503, 429]
    bare_kelp("pull", "-q", PLAIN, name)
    hostile.fail_next = [500] * 20
    refused(bare_kelp, name, "500", "--retry", "1", "--retry-delay", "10ms")


def test_a_broken_download_is_resumed(bare_kelp, hostile):
    image = small_image(size=600_000)
    name = hostile.add(image, "app:1")
    blob = image.layers[0]["digest"]
    hostile.break_off(blob, 100_000, times=3)
    bare_kelp("pull", "-q", PLAIN, name)
    starts = [headers.get("Range") for _, path, headers in hostile.requests if blob in path]
    assert starts == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]
    check_blobs(bare_kelp)


def test_a_broken_download_without_ranges(bare_kelp, hostile):
    image = small_image(size=600_000)
    name = hostile.add(image, "app:1")
    hostile.ranges = False
    hostile.break_off(image.layers[0]["digest"], 100_000)
    bare_kelp("pull", "-q", PLAIN, name)
    check_blobs(bare_kelp)


def test_a_killed_pull_goes_on_where_it_was(bare_kelp, hostile):
    image = small_image(size=2_000_000)
    name = hostile.add(image, "app:1")
    blob = image.layers[0]["digest"]
    hostile.slow(blob, 50_000, 0.05)
    pull = bare_kelp.start("pull", "-q", PLAIN, name)
    # Half a megabyte is there, as the part of a download and as a file that is being unpacked.
    until("half a megabyte", lambda: tree_size(bare_kelp.cache) + tree_size(bare_kelp.store) >= 500_000, 60)
    for child in [*_children(pull.pid), pull.pid]:
        os.kill(child, signal.SIGKILL)
    pull.wait()
    assert bare_kelp("images", "-q").text == ""
    del hostile.faults[blob]
    bare_kelp("pull", "-q", PLAIN, name)
    last = [headers.get("Range") for _, path, headers in hostile.requests if blob in path][-1]
    assert last and int(last.removeprefix("bytes=").rstrip("-")) >= 200_000
    check_blobs(bare_kelp)


def tree_size(top):
    """Bytes in the files below a directory in which others work."""
    total = 0
    for directory, _, files in os.walk(top):
        for name in files:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except FileNotFoundError:
                pass
    return total


def _children(pid):
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    direct = [int(word) for word in done.stdout.split()]
    return [*direct, *(grandchild for child in direct for grandchild in _children(child))]


def test_two_pulls_at_once_fetch_each_blob_once(bare_kelp, hostile):
    image = Image([LayerTar().file(f"f{n}", os.urandom(300_000)) for n in range(3)], {"Cmd": ["/none"]})
    name = hostile.add(image, "app:1")
    for layer in image.layers:
        hostile.slow(layer["digest"], 50_000, 0.05)
    pulls = [bare_kelp.start("pull", "-q", PLAIN, name) for _ in range(3)]
    said = [pull.communicate(timeout=30) for pull in pulls]
    assert [pull.returncode for pull in pulls] == [0, 0, 0], said
    assert [hostile.asked(layer["digest"]) for layer in image.layers] == [1, 1, 1]
    check_blobs(bare_kelp)


def test_a_damaged_partial_download_is_started_over(bare_kelp, hostile):
    image = small_image(size=400_000)
    name = hostile.add(image, "app:1")
    blob = image.layers[0]["digest"]
    hostile.break_off(blob, 100_000, times=1)
    bare_kelp.fails("pull", "-q", PLAIN, "--retry", "0", name)
    partial = [path for path in [*bare_kelp.cache.rglob("*"), *bare_kelp.store.rglob("*")]
               if path.is_file() and path.stat().st_size == 100_000]
    assert len(partial) == 1
    partial[0].write_bytes(b"\0" * 100_000)
    bare_kelp("pull", "-q", PLAIN, name)
    check_blobs(bare_kelp)


def test_memory_stays_bounded(bare_kelp, hostile):
    layers = [LayerTar().file("big", os.urandom(30 << 20)) for _ in range(4)]
    image = Image(layers, compression="none")
    name = hostile.add(image, "big:1")
    for layer in image.layers:
        hostile.slow(layer["digest"], 1 << 20, 0.02)
    pull = bare_kelp.start("pull", "-q", PLAIN, name)
    peak = 0
    while pull.poll() is None:
        for child in _children(pull.pid):
            try:
                status = pathlib.Path(f"/proc/{child}/status").read_text()
            except OSError:
                continue
            peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.02)
    assert pull.returncode == 0
    assert 0 < peak < 64 << 10, f"{peak} kB"


# Bad input


def test_wrong_digests(bare_kelp, hostile):
    image = small_image(size=5000)
    name = hostile.add(image, "app:1")
    layer, config = image.layers[0]["digest"], image.manifest["config"]["digest"]
    size = image.layers[0]["size"]
    hostile.replace(layer, b"\0" * size)
    refused(bare_kelp, name, f"{layer}: wrong digest")
    hostile.faults = {}
    hostile.replace(config, b"{" + b" " * (len(image.blobs[config]) - 2) + b"}")
    refused(bare_kelp, name, f"{config}: wrong digest")
    hostile.faults = {}
    hostile.documents["app", "sha256:" + "a" * 64] = hostile.documents["app", "1"]
    refused(bare_kelp, f"{hostile.address}/app@sha256:{'a' * 64}", "wrong digest")
    bare_kelp("pull", "-q", PLAIN, name)


def test_sizes_that_lie(bare_kelp, hostile):
    image = small_image(size=5000)
    name = hostile.add(image, "app:1")
    layer = image.layers[0]["digest"]
    hostile.replace(layer, image.blobs[layer][:-100])
    refused(bare_kelp, name, "truncated")
    hostile.replace(layer, image.blobs[layer] + b"more")
    refused(bare_kelp, name, "longer than")


def test_a_config_that_lies(bare_kelp, hostile):
    image = small_image()
    image.config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
    data = json.dumps(image.config).encode()
    image.blobs[digest(data)] = data
    image.manifest["config"].update(digest=digest(data), size=len(data))
    refused(bare_kelp, hostile.add(image, "app:1"), "but the image configuration says")
    image.config["rootfs"]["diff_ids"] = []
    data = json.dumps(image.config).encode()
    image.blobs[digest(data)] = data
    image.manifest["config"].update(digest=digest(data), size=len(data))
    refused(bare_kelp, hostile.add(image, "app:2"), "diff_ids")


MANIFEST = {"schemaVersion": 2, "mediaType": images.OCI_MANIFEST}
CONFIG = {"mediaType": images.OCI_CONFIG, "digest": "sha256:" + "1" * 64, "size": 2}


@pytest.mark.parametrize("document", [
    b"", b"[]", b"{}", b"{", b"\xff\xfe", b'"manifest"', b"[" * 100_000,
    json.dumps({"schemaVersion": 1, "fsLayers": [], "history": []}).encode(),
    json.dumps({**MANIFEST, "config": CONFIG}).encode(),
    json.dumps({**MANIFEST, "config": CONFIG, "layers": {}}).encode(),
    json.dumps({**MANIFEST, "config": 1, "layers": []}).encode(),
    json.dumps({**MANIFEST, "config": {**CONFIG, "digest": "sha256:../../x"}, "layers": []}).encode(),
    json.dumps({**MANIFEST, "config": {**CONFIG, "size": -1}, "layers": []}).encode(),
    json.dumps({**MANIFEST, "config": {**CONFIG, "size": 1 << 40}, "layers": []}).encode(),
    json.dumps({**MANIFEST, "config": CONFIG, "layers": [{**CONFIG, "mediaType": "text/html"}]}).encode(),
    json.dumps({**MANIFEST, "config": CONFIG, "layers": [CONFIG] * 600}).encode(),
    json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode(),
    json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [1]}).encode(),
], ids=range(18))
def test_malformed_manifests(bare_kelp, hostile, document):
    media_type = OCI_INDEX if OCI_INDEX.encode() in document else images.OCI_MANIFEST
    refused(bare_kelp, hostile.add(None, "app:1", document, media_type), None)


def test_a_manifest_without_end(bare_kelp, hostile):
    refused(bare_kelp, hostile.add(None, "app:1", b" " * (5 << 20)), "larger than")


@pytest.mark.parametrize("layer, says", [
    (b"this is no archive at all" * 50, None),
    (LayerTar().file("../escape", "x"), r"\.\."),
    (LayerTar().file("/../../escape", "x"), r"\.\."),
    (LayerTar().symlink("link", "../../../tmp").file("link/escape", "x"), "link"),
    (LayerTar().symlink("link", "../../..").hardlink("hard", "link/etc/passwd"), "hard|link"),
    (LayerTar().hardlink("hard", "../../../etc/passwd"), r"\.\.|hard"),
], ids=["garbage", "dotdot", "absolute-dotdot", "through-symlink", "hardlink-through-symlink", "hardlink-dotdot"])
def test_bad_archives(bare_kelp, hostile, layer, says):
    refused(bare_kelp, hostile.add(Image([layer]), "app:1"), says)
    assert not pathlib.Path("/tmp/escape").exists()


def test_a_truncated_archive(bare_kelp, hostile):
    whole = LayerTar().file("big", os.urandom(100_000)).bytes()
    refused(bare_kelp, hostile.add(Image([whole[:50_000]]), "app:1"), None)
    image = small_image()
    packed = image.blobs[image.layers[0]["digest"]][:-20]  # the gzip stream is cut, the digest is right
    image.blobs[digest(packed)] = packed
    image.layers[0].update(digest=digest(packed), size=len(packed))
    refused(bare_kelp, hostile.add(image, "app:2"), "truncated")


def test_one_bad_layer_among_good_ones(bare_kelp, hostile):
    good = [LayerTar().file(f"f{n}", os.urandom(50_000)) for n in range(4)]
    image = Image([*good, LayerTar().file("../escape", "x")])
    name = hostile.add(image, "app:1")
    bare_kelp.fails("pull", "-q", PLAIN, name, says=r"\.\.")
    assert bare_kelp("images", "-a", "-q").text == ""
    check_blobs(bare_kelp)


def test_error_texts_cannot_paint_the_terminal(bare_kelp, hostile):
    hostile.fail_next = []
    hostile.documents["app", "1"] = ("application/json\x1b[31m", b"{}")
    result = bare_kelp("pull", "-q", PLAIN, f"{hostile.address}/app:1", code=125)
    assert "\x1b" not in result.err
