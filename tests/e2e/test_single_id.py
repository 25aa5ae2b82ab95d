"""Single-ID mode: no subordinate ids, or no way to map them. What Debian packages do with users and owners works, or
seems to."""

import subprocess
import urllib.request

import pytest

from harness import images, needs
from harness.programs import Kelp
from harness.waiting import until


class SingleId(Kelp):
    """kelp for a caller whose newuidmap cannot do anything: no_new_privs takes the set-user-id bit from it."""

    def argv(self, *args):
        return ["setpriv", "--no-new-privs", *super().argv(*args)]


@pytest.fixture
def single(kelp_factory):
    made = kelp_factory()
    made.__class__ = SingleId
    return made


def warnings_of(result):
    return [line for line in result.err.splitlines() if line.startswith("kelp: warning:")]


def package(place):
    """A package as Debian's are: a user of its own, files of several owners, a set-group-id program, a daemon's directory."""
    root = place / "grown"
    for directory in ("DEBIAN", "usr/bin", "var/lib/grown"):
        (root / directory).mkdir(parents=True)
    (root / "DEBIAN/control").write_text("Package: grown\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <n@example.org>\n"
                                         "Description: grows\n")
    (root / "DEBIAN/postinst").write_text(
        "#!/bin/sh\nset -e\nuseradd --system --home-dir /var/lib/grown --shell /usr/sbin/nologin grown\n"
        "chown grown:grown /var/lib/grown\nchmod 2755 /usr/bin/grow\nchgrp mail /usr/bin/grow\n"
        "su -s /bin/sh grown -c 'echo by grown >/var/lib/grown/file'\n")
    (root / "DEBIAN/postinst").chmod(0o755)
    (root / "usr/bin/grow").write_text("#!/bin/sh\ncat /var/lib/grown/file\n")
    (root / "usr/bin/grow").chmod(0o755)
    repository = place / "repository"
    repository.mkdir()
    archive = repository / "grown_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(root), str(archive)], check=True, capture_output=True)
    import hashlib
    data = archive.read_bytes()
    (repository / "Packages").write_text(
        (root / "DEBIAN/control").read_text() + f"Filename: ./{archive.name}\nSize: {len(data)}\n"
        f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n")
    for path in (repository, *repository.iterdir()):
        path.chmod(0o755)
    return repository


def test_apt_get_install(single, nginx_archive, place):
    needs.need("program:dpkg-deb")
    single("load", "-q", "-i", nginx_archive, timeout=300)
    repository = package(place)
    script = ("set -e; rm -rf /etc/apt/sources.list /etc/apt/sources.list.d; "
              "echo 'deb [trusted=yes] file:/repository ./' >/etc/apt/sources.list; "
              "apt-get -q update; apt-get -qy install grown; grow; dpkg --verify; dpkg-query -W -f '${db:Status-Abbrev}' grown; echo; "
              "apt-get -qy purge grown; test ! -e /usr/bin/grow")
    result = single("run", "--rm", "--network", "none", "-v", f"{repository}:/repository:ro", "nginx", "sh", "-c", script, timeout=300)
    assert "by grown" in result.lines and "ii " in result.out.splitlines(), result
    assert len(warnings_of(result)) == 1, result


def test_nginx_as_packaged(single, nginx_archive):
    needs.need("tun")
    needs.need("program:slirp4netns")
    from harness.registry import free_port
    single("load", "-q", "-i", nginx_archive, timeout=300)
    port = free_port()
    result = single("run", "-d", "--name", "web", "-p", f"{port}:80", "nginx")
    assert len(warnings_of(result)) == 1, result

    def page():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
        except OSError:
            return b""
    until("the page", lambda: b"grown by kelp" in page())
    single("stop", "-t", "5", "web")
    assert single("inspect", "--format", "{{.State.ExitCode}}", "web").text == "0"


def test_postgres_as_packaged(single):
    """It refuses to run as root, and wants its data to be its own."""
    single("load", "-q", "-i", images.debian_postgres_archive(), timeout=300)
    result = single("run", "-d", "--name", "db", "--network", "none", "--tmpfs", "/run/postgresql", "debian-postgres", "sh", "-c",
                    "exec /usr/lib/postgresql/*/bin/postgres -D /var/lib/postgresql/*/main -c ssl=off "
                    "-c config_file=$(echo /etc/postgresql/*/main/postgresql.conf)", timeout=300)
    assert len(warnings_of(result)) == 1, result

    def ask():
        return single("exec", "db", "psql", "-At", "-c", "create table if not exists t (n int); select 6 * 7", code=None)
    until("the database", lambda: "42" in ask().out, seconds=60)
    assert single("exec", "db", "id", "-un").text == "postgres"
    single("stop", "-t", "10", "db")
    assert single("inspect", "--format", "{{.State.ExitCode}}", "db").text == "0"
