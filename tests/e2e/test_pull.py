"""`kelp pull`: real registries on the loopback, and a hostile one."""

import hashlib
import json
import lzma
import os
import pathlib
import signal
import ssl
import struct
import subprocess

import pytest

from harness import cost, images, needs
from harness.busy import Busy
from harness.hostile_registry import HostileRegistry
from harness.images import OCI_INDEX, Image, LayerTar, busybox_image, digest
from harness.proxy import Proxy
from harness.registry import make_certificate
from harness.uploading_registry import UploadingRegistry
from harness.waiting import until

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
PLAIN = "--tls-verify=false"


@pytest.fixture
def hostile():
    made = HostileRegistry()
    yield made
    made.stop()


@pytest.fixture
def more_registries():
    made = [HostileRegistry() for _ in range(2)]
    yield made
    for one in made:
        one.stop()


@pytest.fixture
def proxy():
    made = Proxy()
    yield made
    made.stop()


def speak_tls(hostile, place):
    """Returns the certificate of the authority that a client has to trust."""
    authority, certificate, key = make_certificate(place)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hostile.server.socket = context.wrap_socket(hostile.server.socket, server_side=True)
    hostile.scheme = "https"
    return authority


def trust(kelp, registry, authority):
    certs = kelp.config / "containers/certs.d" / registry
    certs.mkdir(parents=True)
    (certs / "ca.crt").write_bytes(authority.read_bytes())


def write_registries_conf(kelp, text):
    conf = kelp.config / "containers/registries.conf"
    conf.parent.mkdir(parents=True, exist_ok=True)
    conf.write_text(text)


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
    trust(bare_kelp, tls_registry.address, tls_registry.ca)
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
    trust(bare_kelp, hostile.address, authority)
    certs = bare_kelp.config / "containers/certs.d" / hostile.address
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


def test_a_tunnel_through_a_proxy(bare_kelp, hostile, proxy, place):
    """The registry is where only the proxy finds it. What is said in the tunnel is TLS from end to end, and the
    password of either is told to nobody else."""
    hostile.user, hostile.token = "me:secret", "abc"
    hostile.add(small_image(), "app:1")
    trust(bare_kelp, "localhost:1", speak_tls(hostile, place))
    name = "localhost:1/app:1"
    proxy.routes = {"localhost:1": hostile.address, hostile.address: hostile.address}
    pull = ("pull", "-q", "--retry", "0", "--creds", "me:secret", name)
    bare_kelp.fails(*pull, says="Connection refused")
    bare_kelp(*pull, env={"https_proxy": f"http://{proxy.address}"})
    check_blobs(bare_kelp)
    assert {(method, target) for method, target, _ in proxy.requests} == {("CONNECT", target) for target in proxy.routes}
    assert any(headers.get("Authorization") == "Bearer abc" for _, _, headers in hostile.requests)
    bare_kelp("rmi", name)
    proxy.user = "us er:p@ss"
    bare_kelp.fails(*pull, env={"https_proxy": f"http://{proxy.address}"}, says="localhost:1: the proxy .*407", hint="PASSWORD")
    bare_kelp.fails(*pull, env={"https_proxy": f"http://us%20er:other@{proxy.address}"}, says="407")
    done = bare_kelp("--log-level", "debug", *pull, env={"https_proxy": f"http://us%20er:p%40ss@{proxy.address}"})
    check_blobs(bare_kelp)
    assert "p@ss" not in done.err and "p%40ss" not in done.err
    assert not any("Authorization" in headers for _, _, headers in proxy.requests)
    assert not any("Proxy-Authorization" in headers for _, _, headers in hostile.requests)


def test_plain_http_through_a_proxy(bare_kelp, hostile, proxy):
    hostile.add(small_image(), "app:1")
    proxy.routes, proxy.user = {"plain.invalid:81": hostile.address}, "me:secret"
    pull = ("pull", "-q", PLAIN, "--retry", "0", "plain.invalid:81/app:1")
    both = {"http_proxy": f"http://me:secret@{proxy.address}", "https_proxy": f"http://me:secret@{proxy.address}"}
    bare_kelp.fails(*pull, env={**both, "http_proxy": f"http://{proxy.address}"}, says="proxy", hint="http_proxy")
    bare_kelp(*pull, env=both)
    check_blobs(bare_kelp)
    assert ("GET", "plain.invalid:81") in {(method, target) for method, target, _ in proxy.requests}


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


def test_the_second_registry_of_the_search_list(bare_kelp, hostile, more_registries):
    """An image with a short name is that of the first registry which has it; one that is away is passed over."""
    second, last = more_registries
    for each in more_registries:
        each.add(small_image(each.address), "team/app:1")
    search = lambda *there: write_registries_conf(bare_kelp, f"unqualified-search-registries = {json.dumps(there)}\n")
    search(hostile.address, second.address, last.address)
    bare_kelp("pull", "-q", PLAIN, "team/app:1")
    assert bare_kelp("images", "--format", "{{.Repository}}:{{.Tag}}").lines == [f"{second.address}/team/app:1"]
    assert hostile.asked("/v2/team/app/manifests/1") == 1 and last.requests == []
    result = bare_kelp.fails("pull", "-q", PLAIN, "team/none:1", says="no such image")
    assert all(f"{each.address}/team/none:1" in result.err for each in (hostile, second, last))
    search("127.0.0.1:1", last.address)
    bare_kelp("pull", "-q", PLAIN, "--retry", "0", "team/app:1")
    bare_kelp("image", "exists", f"{last.address}/team/app:1")


def test_which_mirror_is_asked(bare_kelp, hostile, more_registries):
    by_digest, by_tag = more_registries
    image = small_image()
    for each in (hostile, by_digest, by_tag):
        each.add(image, "app:1")
    tagged, exact = "far.invalid/app:1", f"far.invalid/app@{image.descriptor()['digest']}"

    def conf(more="", kinds=("digest-only", "tag-only")):
        write_registries_conf(bare_kelp, f"""[[registry]]
prefix = "far.invalid"
location = "{hostile.address}"
insecure = true
{more}
""" + "".join(f"""[[registry.mirror]]
location = "{each.address}"
insecure = true
pull-from-mirror = "{kind}"
""" for each, kind in zip(more_registries, kinds)))

    def asked(name):
        for each in (hostile, by_digest, by_tag):
            each.requests.clear()
        bare_kelp("pull", "-q", name)
        bare_kelp("rmi", "-a", "-f")
        return [each for each in (hostile, by_digest, by_tag) if each.requests]

    conf()
    assert asked(tagged) == [by_tag]
    assert asked(exact) == [by_digest]
    conf(kinds=("all", "all"))
    assert asked(tagged) == asked(exact) == [by_digest]
    conf("mirror-by-digest-only = true", kinds=("all", "all"))
    assert asked(tagged) == [hostile]
    assert asked(exact) == [by_digest]
    conf()
    by_digest.documents.clear()
    assert asked(exact) == [hostile, by_digest]  # it does not have it


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


@pytest.mark.parametrize("say", ["seconds", "date"])
def test_a_registry_that_says_when_to_come_back(bare_kelp, hostile, say):
    """Neither sooner, when there is but one more try, nor when the user thinks."""
    name = hostile.add(small_image(), "app:1")
    hostile.busy = Busy(1, say)
    bare_kelp("pull", "-q", PLAIN, "--retry", "1", "--retry-delay", "10ms", name)
    hostile.busy = Busy(1, say)
    bare_kelp("pull", "-q", PLAIN, "--retry", "1", "--retry-delay", "1h", name)


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


def zstd(*options):
    needs.need("program:zstd")
    return lambda plain: subprocess.run(["zstd", "-q", *options], input=plain, capture_output=True, check=True).stdout


def xz(dictionary):
    return lambda plain: lzma.compress(plain, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": dictionary}])


def large_layers(kind):
    if kind == "none":
        return Image([LayerTar().file("big", os.urandom(30 << 20)) for _ in range(4)], compression="none")
    if kind == "gzip":
        return Image([LayerTar().file("big", os.urandom(10 << 20)).file("zeros", b"\0" * (40 << 20)) for _ in range(4)])
    if kind == "xz":  # a dictionary as xz -9 has it, and it is filled
        return Image([LayerTar().file("big", os.urandom(4 << 20)).file("zeros", b"\0" * (80 << 20)) for _ in range(3)],
                     pack=xz(64 << 20))
    # Each of them wants a window of 128 MiB and fills it, and the end is that of the beginning once more.
    noise = os.urandom(90 << 20)
    layers = [LayerTar().file(f"{n}", noise).file("again", noise[n:]) for n in range(1, 3)]
    return Image(layers, compression="zstd", pack=zstd("-1", "--long=27"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "gzip", "zstd", "xz"])
def test_memory_stays_bounded(bare_kelp, hostile, kind):
    image = large_layers(kind)
    name = hostile.add(image, "big:1")
    pull = cost.measure(bare_kelp.argv("pull", "-q", PLAIN, name), bare_kelp.env, bare_kelp.dir)
    assert pull.code == 0, pull.out
    assert 0 < pull.memory < 64, f"{pull.memory} MiB"
    check_blobs(bare_kelp)


@pytest.mark.parametrize("kind,says", [("zstd", "window of more than 128 MiB"), ("xz", "dictionary of more than 128 MiB")])
def test_a_window_beyond_measure(bare_kelp, hostile, kind, says):
    pack = {"zstd": lambda plain: zstd("-1", "--long=28")(plain), "xz": xz(192 << 20)}[kind]
    refused(bare_kelp, hostile.add(Image([LayerTar().file("f", "x")], pack=pack), "app:1"), says)


@pytest.mark.parametrize("cut,says", [(lambda packed: packed[:-20], "truncated: the xz data ends too early"),
                                      (lambda packed: packed + b"something else", "damaged xz data"),
                                      (lambda packed: packed[:40] + b"\0\0\0\0" + packed[44:], "damaged xz data")])
def test_bad_xz(bare_kelp, hostile, cut, says):
    image = Image([LayerTar().file("f", os.urandom(1000))], pack=lambda plain: cut(xz(1 << 20)(plain)))
    refused(bare_kelp, hostile.add(image, "app:1"), says)


def test_xz_in_several_streams(bare_kelp, hostile):
    """As `xz` of several files or pxz writes them, with padding between."""
    def pack(plain):
        return xz(1 << 20)(plain[:700]) + bytes(8) + xz(16 << 20)(plain[700:])
    name = hostile.add(Image([LayerTar().file("f", "some words")], pack=pack), "app:1")
    bare_kelp("pull", "-q", PLAIN, name)
    check_blobs(bare_kelp)
    made = bare_kelp("create", "-q", "--network", "none", name, "x").text
    bare_kelp("cp", f"{made}:/f", "words")
    assert (bare_kelp.dir / "words").read_text() == "some words"


def skippable(data):
    return struct.pack("<II", 0x184D2A50, len(data)) + data


def chunked(plain):
    """As zstd:chunked writes a layer: a frame for each piece, then frames that decoders skip, with a list of the files
    and with where that is."""
    pack = zstd("-3")
    frames = b"".join(pack(plain[at:at + 700]) for at in range(0, len(plain), 700))
    toc = json.dumps({"version": 1, "entries": [{"type": "dir", "name": "d/"}, {"type": "reg", "name": "d/f"}]}).encode()
    packed = pack(toc)
    footer = struct.pack("<QQQQ", len(frames) + 8, len(packed), len(toc), 1) + b"GNUlInUx"
    return frames + skippable(packed) + skippable(footer)


@pytest.mark.parametrize("pack", [chunked, lambda plain: skippable(b"size") + chunked(plain)], ids=["chunked", "skipped-first"])
def test_zstd_chunked_is_zstd(bare_kelp, hostile, pack):
    image = small_image(size=5000, compression="zstd", pack=pack)
    (layer,) = image.layers
    layer["annotations"] = {"io.github.containers.zstd-chunked.manifest-checksum": digest(b"x"),
                            "io.github.containers.zstd-chunked.manifest-position": "1:2:3:1"}
    name = hostile.add(image, "app:1")
    bare_kelp("pull", "-q", PLAIN, name)
    check_blobs(bare_kelp)
    (tree,) = (bare_kelp.store / "layers").glob("*/*/diff")
    assert (tree / "seed").read_text() == "x" and (tree / "d/f").stat().st_size == 5000
    uploads = UploadingRegistry()
    try:
        bare_kelp("push", "-q", PLAIN, name, f"{uploads.address}/app:1")
        assert digest(uploads.manifests["app", "1"][1]) == image.descriptor()["digest"]
        assert uploads.blobs["app", layer["digest"]] == image.blobs[layer["digest"]]
    finally:
        uploads.stop()
    cut = Image([LayerTar().file("f", "x")], compression="zstd", pack=lambda plain: pack(plain)[:-5])
    refused(bare_kelp, hostile.add(cut, "cut:1"), "truncated")


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
