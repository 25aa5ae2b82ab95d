"""`kelp push`, `login`, `search`, `manifest`: Debian's docker-registry on the loopback, one of our own that misbehaves,
and skopeo, which has to see the same digests."""

import base64
import hashlib
import json
import os
import socket
import subprocess

import pytest

from harness import images, needs
from harness.busy import Busy
from harness.images import Image, LayerTar, digest
from harness.registry import Registry
from harness.token_server import TokenServer
from harness.uploading_registry import UploadingRegistry

PLAIN = "--tls-verify=false"


def skopeo(*args):
    needs.need("program:skopeo")
    done = subprocess.run(["skopeo", "--insecure-policy", *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def remote(name, *more):
    """What skopeo says about an image in a registry: its raw manifest and its digest."""
    raw = skopeo("inspect", PLAIN, "--raw", *more, f"docker://{name}").encode()
    return json.loads(raw), digest(raw)


def noise(seed, size):
    return b"".join(hashlib.sha256(f"{seed}{n}".encode()).digest() for n in range(size // 32 + 1))[:size]


def small_image(seed="x", size=1000, **more):
    return Image([LayerTar().directory("d").file("d/f", noise(seed, size)).file("seed", str(seed))],
                 {"Cmd": ["/none"]}, **more)


def load(kelp, image, place, name):
    kelp("load", "-q", "-i", image.write_archive(place / f"{abs(hash(name))}.tar", name))
    return name


@pytest.fixture
def uploads():
    made = UploadingRegistry()
    yield made
    made.stop()


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_an_image_of_dockers_shape_is_pushed_as_one(bare_kelp, registry, place, compression):
    """commit -f docker, whatever the image below is packed with, and a commit of OCI's shape from that again."""
    load(bare_kelp, images.busybox_image(compression=compression), place, "localhost/base:1")
    bare_kelp("run", "--name", "c", "--network", "none", "base:1", "sh", "-c", "echo here > /here")
    bare_kelp("commit", "-q", "-f", "docker", "-m", "a word", "-a", "me", "c", "dock:1")
    bare_kelp("push", "-q", PLAIN, "dock:1", f"{registry.address}/dock:{compression}")
    manifest, _ = remote(f"{registry.address}/dock:{compression}")
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert manifest["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    assert {layer["mediaType"] for layer in manifest["layers"]} <= {"application/vnd.docker.image.rootfs.diff.tar.gzip",
                                                                    "application/vnd.docker.image.rootfs.diff.tar"}
    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{registry.address}/dock:{compression}", f"dir:{place}/copy")
    seen = json.loads(bare_kelp("image", "inspect", "dock:1").out)[0]
    assert (seen["ManifestType"], seen["Comment"]) == (manifest["mediaType"], "a word")
    assert json.loads(skopeo("inspect", "--config", "--raw", f"dir:{place}/copy"))["comment"] == "a word"
    bare_kelp("create", "--name", "d", "--network", "none", "dock:1", "true")
    bare_kelp("commit", "-q", "-m", "another", "d", "again:1")
    seen = json.loads(bare_kelp("image", "inspect", "again:1").out)[0]
    assert seen["Comment"] == "another" and seen["ManifestType"] == images.OCI_MANIFEST
    text = (bare_kelp.store / "blobs/sha256" / seen["Digest"].removeprefix("sha256:")).read_text()
    assert "docker" not in text
    assert bare_kelp("run", "--rm", "--network", "none", "again:1", "cat", "/here").text == "here"


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_what_was_pulled_is_pushed_with_the_same_digests(bare_kelp, registry, place, compression):
    layout = images.busybox_image([LayerTar().file("how", compression)], compression=compression).write_layout(
        place / "layout", "x")
    source = registry.push(f"oci:{layout}:x", f"from-{compression}:1")
    bare_kelp("pull", "-q", PLAIN, source)
    target = f"{registry.address}/to-{compression}:2"
    bare_kelp("push", "-q", PLAIN, "--digestfile", place / "digest", source, target)
    assert remote(target) == remote(source)
    assert (place / "digest").read_text() == remote(source)[1]


def test_a_name_is_its_own_destination(bare_kelp, registry, place):
    name = load(bare_kelp, small_image(), place, f"{registry.address}/own:1")
    bare_kelp("push", "-q", PLAIN, name)
    assert skopeo("inspect", PLAIN, f"docker://{name}")
    load(bare_kelp, small_image("y"), place, "localhost/nameless:1")
    bare_kelp.fails("push", "-q", PLAIN, bare_kelp("images", "-q", "nameless").text, says="where to", hint="REGISTRY")
    bare_kelp.fails("push", "-q", PLAIN, "no-such-image", says="image not known")


def test_push_of_docker_manifests(bare_kelp, registry, busybox_layout):
    source = f"{registry.address}/v2s2:1"
    skopeo("copy", "-q", "-f", "v2s2", "--dest-tls-verify=false", f"oci:{busybox_layout}:latest", f"docker://{source}")
    bare_kelp("pull", "-q", PLAIN, source)
    bare_kelp("push", "-q", PLAIN, source, f"{registry.address}/v2s2-again:1")
    assert remote(f"{registry.address}/v2s2-again:1") == remote(source)
    bare_kelp("push", "-q", PLAIN, "--format", "oci", source, f"{registry.address}/as-oci:1")
    manifest, _ = remote(f"{registry.address}/as-oci:1")
    assert manifest["mediaType"] == images.OCI_MANIFEST and manifest["config"]["mediaType"] == images.OCI_CONFIG
    assert [layer["digest"] for layer in manifest["layers"]] == [layer["digest"] for layer in remote(source)[0]["layers"]]
    bare_kelp("push", "-q", PLAIN, "--format", "v2s2", f"{registry.address}/v2s2:1", f"{registry.address}/back:1")
    assert remote(f"{registry.address}/back:1") == remote(source)


def test_compression_on_the_way(bare_kelp, registry, place):
    needs.need("program:zstd")
    name = load(bare_kelp, small_image(size=200_000), place, "localhost/gz:1")
    as_is, zstd, back = (f"{registry.address}/comp:{tag}" for tag in ("as-is", "zstd", "back"))
    bare_kelp("push", "-q", PLAIN, "--compression-format", "zstd", name, as_is)  # what is packed stays
    bare_kelp("push", "-q", PLAIN, "--compression-format", "zstd", "--compression-level", "10", "--force-compression", name,
              zstd)
    assert [layer["mediaType"][-4:] for layer in remote(as_is)[0]["layers"]] == ["gzip"]
    assert [layer["mediaType"][-4:] for layer in remote(zstd)[0]["layers"]] == ["zstd"]
    assert remote(zstd)[0]["config"] == remote(as_is)[0]["config"]
    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{zstd}", f"dir:{place}/zstd")  # checks every digest
    bare_kelp.fails("push", "-q", PLAIN, "--format", "v2s2", zstd.replace("zstd", "nothing"), says="not known")
    bare_kelp("pull", "-q", PLAIN, zstd)
    bare_kelp.fails("push", "-q", PLAIN, "--format", "v2s2", zstd, back, says="v2s2 has no zstd", hint="--format oci")
    for bad in (["--compression-level", "99"], ["--compression-format", "lzma"], ["--force-compression"]):
        bare_kelp.fails("push", "-q", PLAIN, *bad, name, back)


def test_an_imported_image_is_packed_on_the_way(bare_kelp, registry, place):
    (place / "tree.tar").write_bytes(LayerTar().file("f", b"a" * 500_000).bytes())
    bare_kelp("import", "-q", place / "tree.tar", "localhost/imported:1")
    target = f"{registry.address}/imported:1"
    bare_kelp("push", "-q", PLAIN, "imported:1", target)
    (layer,) = remote(target)[0]["layers"]
    assert layer["mediaType"].endswith("gzip") and layer["size"] < 10_000
    bare_kelp("pull", "-q", PLAIN, target)
    assert bare_kelp("image", "inspect", "--format", "{{.Id}}", target).text == bare_kelp(
        "image", "inspect", "--format", "{{.Id}}", "imported:1").text


def test_nothing_is_sent_twice(bare_kelp, uploads, place):
    name = load(bare_kelp, small_image(size=50_000), place, f"{uploads.address}/first:1")
    bare_kelp("push", "-q", PLAIN, name)
    sent = len(uploads.requests)
    bare_kelp("push", "-q", PLAIN, name, f"{uploads.address}/first:2")
    assert not [r for r in uploads.requests[sent:] if r[0] in ("POST", "PATCH")]
    assert [r for r in uploads.requests[sent:] if r[0] == "PUT"] == [("PUT", "/v2/first/manifests/2")]
    sent = len(uploads.requests)
    bare_kelp("push", "-q", PLAIN, name, f"{uploads.address}/second:1")  # the layer is taken from `first`
    layer = json.loads(uploads.manifests["second", "1"][1])["layers"][0]["digest"]
    assert ("POST", f"/v2/second/blobs/uploads/?mount={layer.replace(':', '%3A')}&from=first") in uploads.requests[sent:]
    assert layer in uploads.mounted


def test_pieces_where_a_body_is_too_large(bare_kelp, uploads, place):
    uploads.max_body = 9 << 20
    name = load(bare_kelp, small_image(size=20 << 20), place, f"{uploads.address}/big:1")
    bare_kelp("push", "-q", PLAIN, name)
    assert [r[0] for r in uploads.requests].count("PATCH") >= 3
    layer = json.loads(uploads.manifests["big", "1"][1])["layers"][0]
    assert digest(uploads.blobs["big", layer["digest"]]) == layer["digest"]


def test_a_broken_upload_goes_on_where_it_was(bare_kelp, uploads, place):
    uploads.max_body = 9 << 20
    uploads.break_patches = 2
    name = load(bare_kelp, small_image(size=30 << 20), place, f"{uploads.address}/broken:1")
    bare_kelp("push", "-q", PLAIN, "--retry-delay", "10ms", name)
    layer = json.loads(uploads.manifests["broken", "1"][1])["layers"][0]
    assert digest(uploads.blobs["broken", layer["digest"]]) == layer["digest"]
    assert uploads.break_patches == 0 and ("GET", "status") in uploads.requests


def test_errors_that_pass_and_errors_that_do_not(bare_kelp, uploads, place):
    name = load(bare_kelp, small_image(), place, f"{uploads.address}/busy:1")
    uploads.fail_next = [503, 429, 500]
    bare_kelp("push", "-q", PLAIN, "--retry-delay", "10ms", name)
    uploads.fail_next = [503] * 50
    bare_kelp.fails("push", "-q", PLAIN, "--retry", "2", "--retry-delay", "10ms", name, f"{uploads.address}/busy:2", says="503")
    uploads.fail_next = [403] * 3
    bare_kelp.fails("push", "-q", PLAIN, name, f"{uploads.address}/busy:3", says="denied")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_uploads_to_who_says_when_to_come_back(bare_kelp, uploads, place, method):
    uploads.max_body, uploads.busy = 9 << 20, {method: Busy(1)}
    name = load(bare_kelp, small_image(size=20 << 20 if method == "PATCH" else 1000), place, f"{uploads.address}/busy:1")
    bare_kelp("push", "-q", PLAIN, "--retry", "1", "--retry-delay", "10ms", name)
    uploads.busy = {method: Busy(1)}
    uploads.blobs.clear()
    bare_kelp("push", "-q", PLAIN, "--retry", "1", "--retry-delay", "1h", name)
    layer = json.loads(uploads.manifests["busy", "1"][1])["layers"][0]
    assert digest(uploads.blobs["busy", layer["digest"]]) == layer["digest"]


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "pieces"])
@pytest.mark.parametrize("how", ["place", "redirect", "redirect-all"])
def test_uploads_to_another_host_get_no_credentials(bare_kelp, uploads, place, how, pieces):
    """By the place that an upload was given, or by redirects (307) on the way."""
    store = UploadingRegistry()
    try:
        uploads.user = "me:secret"
        store.serve_uploads_of(uploads)
        if how == "place":
            uploads.uploads_at = store
        else:
            uploads.redirect = (("PUT", "PATCH") if how == "redirect" else ("PUT", "PATCH", "POST"), store)
        if pieces:
            store.max_body = 9 << 20
        name = load(bare_kelp, small_image(size=20 << 20 if pieces else 1000), place, f"{uploads.address}/far:1")
        bare_kelp("push", "-q", PLAIN, "--creds", "me:secret", name)
        layer = json.loads(uploads.manifests["far", "1"][1])["layers"][0]
        assert digest(uploads.blobs["far", layer["digest"]]) == layer["digest"]
        assert ({"PUT", "PATCH"} if pieces else {"PUT"}) <= {method for method, _ in store.requests}
        assert not any("Authorization" in headers for headers in store.headers)
        assert any("Authorization" in headers for headers in uploads.headers)
    finally:
        store.stop()


def test_a_password_and_tls(bare_kelp, password_registry, tls_registry, place):
    name = load(bare_kelp, small_image(), place, "localhost/auth:1")
    target = f"{password_registry.address}/pushed:1"
    bare_kelp.fails("push", "-q", PLAIN, name, target, says="authentication is required", hint="creds|login")
    bare_kelp.fails("push", "-q", PLAIN, "--creds", "someone:wrong", name, target, says="password is wrong")
    bare_kelp("push", "-q", PLAIN, "--creds", "someone:secret", name, target)
    target = f"{tls_registry.address}/pushed:1"
    bare_kelp.fails("push", "-q", name, target, says="certificate", hint="certs.d")
    (place / "certs").mkdir()
    (place / "certs/ca.crt").write_bytes(tls_registry.ca.read_bytes())
    bare_kelp("push", "-q", "--cert-dir", place / "certs", name, target)


def test_a_blocked_registry(bare_kelp, place):
    name = load(bare_kelp, small_image(), place, "localhost/blocked:1")
    conf = bare_kelp.config / "containers/registries.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text('[[registry]]\nlocation = "blocked.example"\nblocked = true\n')
    bare_kelp.fails("push", "-q", name, "blocked.example/x:1", says="blocked", hint="blocked = true")


# Tokens


@pytest.fixture(scope="module")
def token_registry(session_dir):
    server = TokenServer(session_dir / "tokens", {
        "": ("", {"*": "pull"}), "writer": ("w", {"app": "pull,push", "other": "pull,push"}), "reader": ("r", {"*": "pull"})})
    made = Registry(session_dir / "registry-token", auth_lines=server.config())
    made.tokens = server
    yield made
    made.stop()
    server.stop()


def test_tokens_are_asked_for_what_is_needed(bare_kelp, token_registry, place):
    name = load(bare_kelp, small_image(), place, "localhost/tok:1")
    target = f"{token_registry.address}/app:1"
    bare_kelp("push", "-q", PLAIN, "--creds", "writer:w", name, target)
    assert ("writer", ["repository:app:pull,push"]) in token_registry.tokens.requests
    bare_kelp("tag", name, target)
    bare_kelp("push", "-q", PLAIN, "--creds", "writer:w", name, f"{token_registry.address}/other:1")
    user, scopes = token_registry.tokens.requests[-1]
    assert set(scopes) == {"repository:other:pull,push", "repository:app:pull"}
    bare_kelp.fails("push", "-q", PLAIN, "--creds", "reader:r", name, f"{token_registry.address}/app:2",
                    says="denied|required|wrong")
    bare_kelp("rmi", "-f", name, target)
    bare_kelp("pull", "-q", PLAIN, target)  # nobody in particular may read
    assert token_registry.tokens.requests[-1] == ("", ["repository:app:pull"])


def test_login_with_tokens(bare_kelp, token_registry):
    address = token_registry.address
    bare_kelp.fails("login", PLAIN, "-u", "writer", "--password-stdin", address, stdin="no\n", says="wrong")
    assert "Login Succeeded" in bare_kelp("login", PLAIN, "-u", "writer", "--password-stdin", address, stdin="w\n").out


# Login


def test_login_and_logout(bare_kelp, password_registry, place):
    address = password_registry.address
    auth = bare_kelp.runtime_dir / "containers/auth.json"
    bare_kelp.fails("login", "--get-login", address, says="not logged into")
    bare_kelp.fails("login", PLAIN, "-u", "someone", "--password-stdin", address, stdin="wrong\n", says="wrong")
    assert not auth.exists()
    assert bare_kelp("login", PLAIN, "-u", "someone", "--password-stdin", address, stdin="secret\n").text == "Login Succeeded!"
    assert json.loads(auth.read_text())["auths"] == {address: {"auth": base64.b64encode(b"someone:secret").decode()}}
    assert auth.stat().st_mode & 0o777 == 0o600
    assert bare_kelp("login", "--get-login", address).text == "someone"
    assert "Already logged in" in bare_kelp("login", PLAIN, address).out
    name = load(bare_kelp, small_image(), place, "localhost/login:1")
    bare_kelp("push", "-q", PLAIN, name, f"{address}/logged-in:1")
    skopeo("inspect", PLAIN, "--authfile", auth, f"docker://{address}/logged-in:1")  # it reads what we wrote
    bare_kelp("logout", address)
    assert json.loads(auth.read_text())["auths"] == {}
    bare_kelp.fails("logout", address, says="not logged into")
    bare_kelp.fails("push", "-q", PLAIN, name, f"{address}/logged-in:2", says="authentication is required")


def test_where_login_keeps_them(bare_kelp, password_registry, place):
    address = password_registry.address
    login = ["login", PLAIN, "-u", "someone", "--password-stdin"]
    bare_kelp(*login, "--authfile", place / "a.json", address, stdin="secret")
    assert address in json.loads((place / "a.json").read_text())["auths"]
    bare_kelp(*login, "--compat-auth-file", place / "d.json", address, stdin="secret")
    bare_kelp(*login, address, stdin="secret", env={"REGISTRY_AUTH_FILE": str(place / "e.json")})
    bare_kelp(*login, address, stdin="secret", env={"XDG_RUNTIME_DIR": ""})
    assert (bare_kelp.config / "containers/auth.json").exists()
    for file in ("a.json", "d.json", "e.json"):
        document = json.loads((place / file).read_text())
        document["auths"]["kept.example"] = {"auth": "eDp5"}
        document["else"] = 1
        (place / file).write_text(json.dumps(document))
        option = "--compat-auth-file" if file == "d.json" else "--authfile"
        bare_kelp("logout", option, place / file, address)
        document = json.loads((place / file).read_text())
        assert list(document["auths"]) == ["kept.example"] and document["else"] == 1
    bare_kelp("logout", "--all", "--authfile", place / "a.json")
    assert json.loads((place / "a.json").read_text())["auths"] == {}


def test_login_with_a_credential_helper(bare_kelp, password_registry, place):
    (place / "bin").mkdir()
    helper = place / "bin/docker-credential-kelptest"
    helper.write_text(f"""#!/bin/sh
case $1 in
store) cat > {place}/kept ;;
get) read -r server; [ -f {place}/kept ] && cat {place}/kept && exit; echo 'credentials not found'; exit 1 ;;
erase) rm {place}/kept ;;
esac
""")
    helper.chmod(0o755)
    env = {"PATH": f"{place}/bin:{bare_kelp.env['PATH']}"}
    auth = place / "auth.json"
    auth.write_text(json.dumps({"credHelpers": {password_registry.address: "kelptest"}}))
    bare_kelp("login", PLAIN, "--authfile", auth, "-u", "someone", "--password-stdin", password_registry.address,
              stdin="secret", env=env)
    assert json.loads((place / "kept").read_text())["Secret"] == "secret"
    assert "secret" not in auth.read_text()
    assert bare_kelp("login", "--authfile", auth, "--get-login", password_registry.address, env=env).text == "someone"
    bare_kelp("logout", "--authfile", auth, password_registry.address, env=env)
    assert not (place / "kept").exists()


def test_login_asks_on_a_terminal(bare_kelp, password_registry):
    terminal = bare_kelp.terminal("login", PLAIN, password_registry.address)
    terminal.expect("Username: ")
    terminal.type("someone\n")
    terminal.expect("Password: ")
    terminal.type("secret\n")
    terminal.expect("Login Succeeded!")
    assert terminal.wait() == 0 and "secret" not in terminal.seen
    bare_kelp.fails("login", PLAIN, "localhost:1/x", says="no terminal", hint="--password-stdin")


# Search


def test_search(bare_kelp, registry, busybox_layout, uploads):
    for name in ("found/one:1", "found/two:1", "lost:1", "found/two:2"):
        registry.push(f"oci:{busybox_layout}:latest", name)
    out = bare_kelp("search", PLAIN, f"{registry.address}/found").lines
    assert out[0].split() == ["NAME", "DESCRIPTION"]
    assert [line.split()[0] for line in out[1:]] == [f"{registry.address}/found/one", f"{registry.address}/found/two"]
    assert len(bare_kelp("search", PLAIN, "--limit", "1", f"{registry.address}/found").lines) == 2
    assert bare_kelp("search", PLAIN, "--format", "{{.Name}}", f"{registry.address}/lost").text == f"{registry.address}/lost"
    tags = sorted(bare_kelp("search", PLAIN, "--list-tags", f"{registry.address}/found/two").lines, reverse=False)
    tags = [line for line in tags if "NAME" in line] + [line for line in tags if "NAME" not in line]
    assert [line.split() for line in tags] == [["NAME", "TAG"], [f"{registry.address}/found/two", "1"],
                                               [f"{registry.address}/found/two", "2"]]
    bare_kelp.fails("search", PLAIN, "--list-tags", f"{registry.address}/nothing", says="no such repository")
    uploads.search = [{"name": "a", "description": "first\x1b[31m", "star_count": 5, "is_official": True},
                      {"name": "b", "description": "second", "star_count": 1}]
    out = bare_kelp("search", PLAIN, "--filter", "stars=3", f"{uploads.address}/a").lines
    assert len(out) == 2 and "\x1b" not in out[1] and "first" in out[1]
    assert bare_kelp("search", PLAIN, "--filter", "is-official=false", "--format", "{{.Name}} {{.Stars}}",
                     f"{uploads.address}/a").text == f"{uploads.address}/b 1"
    bare_kelp.fails("search", PLAIN, "--filter", "nonsense=1", f"{uploads.address}/a", says="stars, is-official")


# Indexes


def test_manifest_lists(bare_kelp, registry, place):
    for architecture in ("amd64", "arm64"):
        load(bare_kelp, small_image(architecture, architecture=architecture), place, f"localhost/{architecture}:1")
    bare_kelp("manifest", "create", "both", "amd64:1")
    bare_kelp("manifest", "exists", "both")
    bare_kelp("manifest", "exists", "neither", code=1)
    bare_kelp.fails("manifest", "create", "both", says="already", hint="--amend")
    bare_kelp("manifest", "add", "--annotation", "who=me", "both", "arm64:1")
    document = json.loads(bare_kelp("manifest", "inspect", "both").out)
    assert [entry["platform"]["architecture"] for entry in document["manifests"]] == ["amd64", "arm64"]
    assert document["manifests"][1]["annotations"] == {"who": "me"}
    second = document["manifests"][1]["digest"]
    bare_kelp("manifest", "annotate", "--variant", "v8", "both", second)
    target = f"{registry.address}/multi:1"
    bare_kelp("manifest", "push", "-q", PLAIN, "--digestfile", place / "digest", "both", target)
    index, there = remote(target)
    assert there == (place / "digest").read_text()
    assert index["manifests"][1]["platform"] == {"architecture": "arm64", "os": "linux", "variant": "v8"}
    skopeo("copy", "-q", "--all", "--src-tls-verify=false", f"docker://{target}", f"oci:{place}/all:x")
    # What was pushed can be made the base of another, from the registry this time.
    bare_kelp("rmi", "-a")  # the index, too
    bare_kelp("manifest", "exists", "both", code=1)
    bare_kelp.fails("manifest", "inspect", PLAIN, "localhost:1/nothing", says="connect")
    assert json.loads(bare_kelp("manifest", "inspect", PLAIN, f"docker://{target}").out) == index
    bare_kelp("manifest", "create", PLAIN, "--all", "again", f"docker://{target}")
    assert bare_kelp("images", "-q", "--filter", "manifest=false").text == ""
    bare_kelp("manifest", "push", "-q", PLAIN, "--rm", "again", f"{registry.address}/multi-again:1")
    assert remote(f"{registry.address}/multi-again:1")[0]["manifests"] == index["manifests"]
    bare_kelp("manifest", "exists", "again", code=1)


def attested_index(place):
    """An OCI layout whose index names an image and what build tools attach to it: an attestation, and an artifact
    whose types nobody has heard of."""
    image = small_image("attested")
    entry = image.descriptor()
    blobs = dict(image.blobs)

    def put(data):
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        blobs[digest(data)] = data
        return {"digest": digest(data), "size": len(data)}

    def manifest(config_type, config, layer_type, layer):
        return put({"schemaVersion": 2, "mediaType": images.OCI_MANIFEST,
                    "config": {"mediaType": config_type, **put(config)},
                    "layers": [{"mediaType": layer_type, **put(layer)}]})

    unknown = {"architecture": "unknown", "os": "unknown"}
    attestation = manifest(images.OCI_CONFIG, {**unknown, "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest(b"x")]}},
                           "application/vnd.in-toto+json", {"_type": "statement"})
    artifact = manifest("application/vnd.example.thing.v3+json", {}, "application/vnd.example.data", noise("a", 70_000))
    index = put({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [
        {**entry, "platform": {"architecture": "amd64", "os": "linux"}},
        {"mediaType": images.OCI_MANIFEST, **attestation, "platform": unknown,
         "annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
        {"mediaType": images.OCI_MANIFEST, **artifact, "platform": unknown}]})
    layout = place / "attested"
    (layout / "blobs/sha256").mkdir(parents=True)
    for key, data in blobs.items():
        (layout / "blobs/sha256" / key.split(":")[1]).write_bytes(data)
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": images.OCI_INDEX, **index, "annotations": {images.REF_NAME: "x"}}]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout, blobs


def test_an_index_may_have_several_names(bare_kelp):
    bare_kelp("manifest", "create", "one")
    bare_kelp("tag", "one", "two", "example.com/three:3")
    text = bare_kelp("manifest", "inspect", "one").out
    assert bare_kelp("manifest", "inspect", "two").out == bare_kelp("manifest", "inspect", "example.com/three:3").out == text
    assert bare_kelp("rmi", "one").text == "Untagged: localhost/one:latest"
    assert bare_kelp("manifest", "inspect", "two").out == text
    bare_kelp.fails("tag", "one", "four", says="image not known")


@pytest.mark.parametrize("convert", [(), ("--compression-format", "zstd", "--force-compression")], ids=["kept", "packed-again"])
def test_an_index_with_artifacts_keeps_them_without_loss(bare_kelp, registry, place, convert):
    layout, blobs = attested_index(place)
    source = f"{registry.address}/attested:1"
    skopeo("copy", "-q", "--all", "--dest-tls-verify=false", f"oci:{layout}:x", f"docker://{source}")
    before, _ = remote(source)
    bare_kelp("manifest", "create", PLAIN, "--all", "again", f"docker://{source}")
    bare_kelp("store", "gc")
    bare_kelp("store", "verify")
    for key, data in blobs.items():
        path = bare_kelp.store / "blobs/sha256" / key.split(":")[1]
        assert path.read_bytes() == data if path.exists() else b'"manifests"' in data
    target = f"{registry.address}/attested-again:1"
    bare_kelp("manifest", "push", "-q", PLAIN, *convert, "again", target)
    after, _ = remote(target)
    assert after["manifests"][1:] == before["manifests"][1:]
    assert (after["manifests"][0] == before["manifests"][0]) == (not convert)
    skopeo("copy", "-q", "--all", "--src-tls-verify=false", f"docker://{target}", f"oci:{place}/copied:x")


def test_a_registry_on_ipv6(bare_kelp, place):
    try:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("::1", 0))
    except OSError:
        needs.skip("ipv6-loopback")
    registry = Registry(place / "six", host="[::1]")
    try:
        name = load(bare_kelp, small_image("six"), place, f"{registry.address}/six/image:1")
        bare_kelp("push", "-q", PLAIN, name)
        there = json.loads(bare_kelp("manifest", "inspect", PLAIN, f"docker://{name}").out)  # skopeo reads no such name
        bare_kelp("rmi", name)
        bare_kelp("pull", "-q", PLAIN, name)
        bare_kelp("save", "-q", "--format", "oci-dir", "-o", place / "out", name)
        assert json.loads(skopeo("inspect", "--raw", f"oci:{place}/out")) == there
    finally:
        registry.stop()


@pytest.mark.parametrize("how", ["gzip", "zstd"])
@pytest.mark.parametrize("shape", ["oci-archive", "oci-dir"])
def test_save_packs_again(bare_kelp, place, shape, how):
    name = load(bare_kelp, small_image("packed", 300_000, compression="none"), place, "localhost/packed:1")
    sizes = {}
    for level in ("1", "9"):
        out = place / f"{how}-{level}"
        bare_kelp("save", "-q", "--format", shape, "--compression-format", how, "--compression-level", level, "-o", out, name)
        transport = f"{'oci-archive' if shape == 'oci-archive' else 'oci'}:{out}:{name}"
        manifest = json.loads(skopeo("inspect", "--raw", transport))
        assert [layer["mediaType"].rsplit("+")[-1] for layer in manifest["layers"]] == [how]
        sizes[level] = manifest["layers"][0]["size"]
        # The same files: another tool unpacks and repacks them to the same diff ids.
        assert json.loads(skopeo("inspect", "--config", transport))["rootfs"] == small_image(
            "packed", 300_000, compression="none").config["rootfs"]
    assert sizes["9"] <= sizes["1"]
    bare_kelp.fails("save", "-q", "--compression-format", how, "-o", place / "x", name, says="plain tars", hint="oci-archive")
    bare_kelp.fails("save", "-q", "--format", shape, "--compression-format", how, "--compression-level", "99", "-o",
                    place / "x", name, says="level")


def test_manifest_remove_and_prune(bare_kelp, place):
    load(bare_kelp, small_image("a"), place, "localhost/a:1")
    load(bare_kelp, small_image("b"), place, "localhost/b:1")
    bare_kelp("manifest", "create", "l", "a:1", "b:1")
    first, second = (entry["digest"] for entry in json.loads(bare_kelp("manifest", "inspect", "l").out)["manifests"])
    bare_kelp("manifest", "remove", "l", first)
    bare_kelp.fails("manifest", "remove", "l", first, says="not in the index")
    bare_kelp("rmi", "a:1", "b:1")
    blobs = {path.name for path in (bare_kelp.store / "blobs/sha256").iterdir()}
    assert second.split(":")[1] in blobs and first.split(":")[1] not in blobs  # what the index names is kept
    bare_kelp("manifest", "rm", "l")
    assert not list((bare_kelp.store / "blobs/sha256").iterdir())
    bare_kelp.fails("manifest", "rm", "l", code=1, says="not known")  # as podman does
    bare_kelp("manifest", "rm", "--ignore", "l")


# Files


@pytest.mark.parametrize("transport", ["dir:{}", "oci:{}:v1", "oci-archive:{}:v1", "docker-archive:{}:localhost/app:v1"])
def test_transports_of_files(bare_kelp, kelp_factory, place, transport):
    image = images.busybox_image([LayerTar().file("t", transport)])
    name = load(bare_kelp, image, place, "localhost/app:1")
    target = transport.format(place / "out")
    bare_kelp("push", "-q", name, target)
    assert json.loads(skopeo("inspect", target))["Os"] == "linux"
    assert digest(skopeo("inspect", "--config", "--raw", target).encode()) == "sha256:" + image.id
    other = kelp_factory()
    identifier = other("pull", "-q", target).text
    assert identifier == image.id
    assert other("run", "--rm", "--network", "none", identifier, "cat", "/t").out == transport
    if transport.startswith(("oci", "dir")):
        assert other("image", "inspect", "--format", "{{.Digest}}", identifier).text == bare_kelp(
            "image", "inspect", "--format", "{{.Digest}}", name).text


def test_one_image_of_several(bare_kelp, kelp_factory, place):
    for n in (1, 2):
        bare_kelp("push", "-q", load(bare_kelp, small_image(n), place, f"localhost/n:{n}"), f"oci:{place}/layout:tag{n}")
    bare_kelp("save", "-q", "-m", "-o", place / "both.tar", "n:1", "n:2")
    other = kelp_factory()
    other("pull", "-q", f"oci:{place}/layout:tag2")
    assert len(other("images", "-q").lines) == 1
    other.fails("pull", "-q", f"oci:{place}/layout:tag3", says="no image \"tag3\"")
    other("pull", "-q", f"docker-archive:{place}/both.tar:localhost/n:1")
    assert sorted(line for line in other("images", "--format", "{{.Repository}}:{{.Tag}}").lines if "n:" in line) == [
        "localhost/n:1"]
    other.fails("push", "-q", "n:1", "containers-storage:x", says="not kept there", hint="docker://")


# Policy


@pytest.mark.parametrize("policy, says", [
    ({"default": [{"type": "reject"}]}, "rejected by .*default"),
    ({"default": [{"type": "insecureAcceptAnything"}]}, None),
    ({"default": [{"type": "reject"}], "transports": {"docker": {"HOST": [{"type": "insecureAcceptAnything"}]}}}, None),
    ({"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {"HOST/signed": [
        {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]}}}, "wants a signature .signedBy., which kelp cannot check"),
    ({"transports": {}}, "default is missing"),
], ids=["reject", "accept", "host", "signed", "broken"])
def test_policy_json(bare_kelp, registry, busybox_layout, policy, says):
    name = registry.push(f"oci:{busybox_layout}:latest", "signed/app:1")
    path = bare_kelp.config / "containers/policy.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(policy).replace("HOST", registry.address))
    if says:
        bare_kelp.fails("pull", "-q", PLAIN, name, says=says)
        assert bare_kelp("images", "-q").text == ""
    else:
        bare_kelp("pull", "-q", PLAIN, name)
    if policy.get("default", [{}])[0].get("type") == "reject":
        bare_kelp.fails("pull", "-q", f"oci:{busybox_layout}:latest", says="rejected by")


def lone_artifact(place, name):
    """An OCI layout of one manifest that is no image: a model, a chart, whatever."""
    config, data = b"{}", noise("a", 70_000)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_MANIFEST, "artifactType": "application/vnd.example.model",
                           "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(config), "size": 2},
                           "layers": [{"mediaType": "application/vnd.example.weights", "digest": digest(data), "size": len(data),
                                       "annotations": {"org.opencontainers.image.title": "weights.bin"}}],
                           "annotations": {"made": "here"}}).encode()
    layout = place / name
    (layout / "blobs/sha256").mkdir(parents=True)
    for blob in (config, data, manifest):
        (layout / "blobs/sha256" / digest(blob).split(":")[1]).write_bytes(blob)
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": images.OCI_MANIFEST, "digest": digest(manifest), "size": len(manifest),
         "annotations": {images.REF_NAME: "x"}}]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout, manifest, data


def test_a_lone_artifact(bare_kelp, registry, place):
    """What is no image is pulled, looked at, pushed and removed, and is the same byte for byte all the way."""
    layout, manifest, data = lone_artifact(place, "model")
    source, again = f"{registry.address}/model:1", f"{registry.address}/model-again:1"
    skopeo("copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:x", f"docker://{source}")
    assert bare_kelp("pull", "-q", PLAIN, source).text == digest(manifest)
    assert (bare_kelp.store / "blobs/sha256" / digest(manifest).split(":")[1]).read_bytes() == manifest
    bare_kelp("store", "gc")
    bare_kelp("store", "verify")
    for name in (source, digest(manifest), f"{registry.address}/model@{digest(manifest)}"):
        (found,) = json.loads(bare_kelp("image", "inspect", name).out)
        assert found["ArtifactType"] == "application/vnd.example.model" and found["RepoTags"] == [source]
        assert found["Layers"] == [{"MediaType": "application/vnd.example.weights", "Digest": digest(data), "Size": len(data),
                                    "Annotations": {"org.opencontainers.image.title": "weights.bin"}}]
    bare_kelp("image", "exists", source)
    bare_kelp("push", "-q", PLAIN, source, again)
    there, _ = remote(again)
    assert there == json.loads(manifest)
    bare_kelp.fails("push", "-q", source, f"oci:{place}/out", says="registries only")
    bare_kelp.fails("run", "--rm", PLAIN, source, "x", says="no container image but an artifact of the type",
                    hint="kelp pull keeps it")
    assert bare_kelp("images", "-q").text == ""
    assert bare_kelp("rmi", source).text == f"Untagged: {source}"
    assert not (bare_kelp.store / "blobs/sha256" / digest(data).split(":")[1]).exists()
    assert bare_kelp("pull", "-q", PLAIN, f"{registry.address}/model@{digest(manifest)}").text == digest(manifest)
    bare_kelp("image", "inspect", digest(manifest))
    bare_kelp("rmi", digest(manifest))
    assert not (bare_kelp.store / "blobs/sha256" / digest(data).split(":")[1]).exists()
