"""Images made from nothing but Python: OCI layouts and archives, well-formed or broken on purpose."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile

from . import needs

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class LayerTar:
    """A layer as a tar archive, one call per entry."""

    def __init__(self):
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)

    def _add(self, name, kind, data=None, mode=0o644, uid=0, gid=0, link="", xattrs=None, size=None):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid, info.linkname = kind, mode, uid, gid, link
        info.mtime = 1_600_000_000
        info.size = len(data) if data is not None else 0
        info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
        self._tar.addfile(info, io.BytesIO(data) if data is not None else None)
        return self

    def directory(self, name, mode=0o755, **more):
        return self._add(name, tarfile.DIRTYPE, mode=mode, **more)

    def file(self, name, data=b"", mode=0o644, **more):
        return self._add(name, tarfile.REGTYPE, data if isinstance(data, bytes) else data.encode(), mode, **more)

    def symlink(self, name, target, **more):
        return self._add(name, tarfile.SYMTYPE, link=target, mode=0o777, **more)

    def hardlink(self, name, target, **more):
        return self._add(name, tarfile.LNKTYPE, link=target, **more)

    def fifo(self, name, **more):
        return self._add(name, tarfile.FIFOTYPE, **more)

    def whiteout(self, name):
        directory, _, base = name.rpartition("/")
        return self.file(f"{directory}/.wh.{base}" if directory else f".wh.{base}")

    def opaque(self, directory):
        return self.file(f"{directory}/.wh..wh..opq")

    def bytes(self):
        self._tar.close()
        return self._buffer.getvalue()


def compress(data, how):
    if how == "none":
        return data
    if how == "gzip":
        return gzip.compress(data, 1, mtime=0)
    if how == "zstd":
        return subprocess.run(["zstd", "-q", "-1"], input=data, capture_output=True, check=True).stdout
    raise ValueError(how)


class Image:
    """Layers and a config, written as an OCI layout."""

    def __init__(self, layers, config=None, compression="gzip", architecture="amd64", history=True, pack=None):
        """pack: makes the bytes of a layer's blob from those of its archive, of the kind that `compression` names."""
        suffix = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}[compression]
        self.blobs, self.layers, diff_ids = {}, [], []
        for layer in layers:
            plain = layer if isinstance(layer, bytes) else layer.bytes()
            diff_ids.append(digest(plain))
            packed = pack(plain) if pack else compress(plain, compression)
            self.layers.append({"mediaType": OCI_LAYER + suffix, "digest": digest(packed), "size": len(packed)})
            self.blobs[digest(packed)] = packed
        self.config = {"architecture": architecture, "os": "linux", "config": config or {},
                       "rootfs": {"type": "layers", "diff_ids": diff_ids}, "created": "2024-01-01T00:00:00Z"}
        if history:
            self.config["history"] = [{"created": "2024-01-01T00:00:00Z", "created_by": "test"} for _ in layers]
        config_data = json.dumps(self.config).encode()
        self.blobs[digest(config_data)] = config_data
        self.id = digest(config_data).split(":")[1]
        self.manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": self.layers,
                         "config": {"mediaType": OCI_CONFIG, "digest": digest(config_data), "size": len(config_data)}}

    def descriptor(self, name=None):
        data = json.dumps(self.manifest).encode()
        self.blobs[digest(data)] = data
        entry = {"mediaType": OCI_MANIFEST, "digest": digest(data), "size": len(data)}
        if name:
            entry["annotations"] = {REF_NAME: name}
        return entry

    def write_layout(self, directory, name="latest"):
        """Writes an OCI layout; returns its path."""
        directory = pathlib.Path(directory)
        (directory / "blobs/sha256").mkdir(parents=True)
        entry = self.descriptor(name)
        for key, data in self.blobs.items():
            (directory / "blobs/sha256" / key.split(":")[1]).write_bytes(data)
        (directory / "index.json").write_text(json.dumps(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}))
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return directory

    def write_archive(self, path, name="latest"):
        """Writes an oci-archive; returns its path."""
        path = pathlib.Path(path)
        layout = self.write_layout(path.with_suffix(".layout"), name)
        with tarfile.open(path, "w") as tar:
            for member in sorted(layout.rglob("*")):
                tar.add(member, str(member.relative_to(layout)), recursive=False)
        shutil.rmtree(layout)
        return path


def busybox_layer():
    """The static busybox with a link for each of its commands, and the few files that programs expect."""
    path = needs.find_program("busybox")
    if path is None:
        needs.skip("program:busybox")
    commands = subprocess.run([path, "--list"], capture_output=True, text=True, check=True).stdout.split()
    layer = LayerTar()
    for name in ("bin", "etc", "home", "proc", "root", "sys", "dev", "var", "usr", "usr/bin", "usr/sbin", "sbin"):
        layer.directory(name, mode=0o700 if name == "root" else 0o755)
    layer.directory("tmp", mode=0o1777)
    layer.directory("var/spool")
    layer.directory("home/app", uid=1000, gid=1000)
    layer.file("bin/busybox", pathlib.Path(path).read_bytes(), mode=0o755)
    for name in commands:
        if name != "busybox":
            layer.symlink(f"bin/{name}", "/bin/busybox")
    layer.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n"
                             "app:x:1000:1000:app:/home/app:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    layer.file("etc/group", "root:x:0:\ndaemon:x:1:\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n")
    layer.file("home/app/owned", "by app\n", uid=1000, gid=1000)
    return layer


def busybox_image(extra_layers=(), config=None, **more):
    return Image([busybox_layer(), *extra_layers],
                 {"Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], **(config or {})}, **more)


def many_layers_image(count):
    layers = [LayerTar().directory("layers").file(f"layers/{n}", f"{n}\n") for n in range(count - 1)]
    return busybox_image(layers)


def _mirror():
    """Package source of this host, when it is a Debian; else Debian's own."""
    done = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
                          capture_output=True, text=True)
    for line in done.stdout.splitlines():
        uri, _, release = line.partition(" ")
        if release in ("bookworm", "trixie"):
            return uri, release
    return "http://deb.debian.org/debian", "bookworm"


NGINX_SITE = """server {
  listen 80 default_server;
  location / { root /srv/www; index index.html; }
  location /who { default_type text/plain; return 200 "$remote_addr\\n"; }
}
"""


def _debian_archive(name, packages, config, layers=(), compression="gzip"):
    """A Debian with packages, as an oci-archive; made once and kept in the cache."""
    path = needs.cache_dir() / f"{name}.tar"
    if path.exists():
        return path
    if needs.find_program("mmdebstrap") is None:
        needs.skip("program:mmdebstrap")
    uri, release = _mirror()
    tree = needs.cache_dir() / f"{name}.{os.getpid()}.root.tar"
    done = subprocess.run(["mmdebstrap", "--variant=apt", f"--include={','.join(packages)}", "--mode=unshare",
                           '--dpkgopt=path-exclude=/usr/share/doc/*', '--dpkgopt=path-exclude=/usr/share/man/*',
                           '--dpkgopt=path-exclude=/usr/share/locale/*', release, str(tree), uri],
                          capture_output=True, text=True, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    if done.returncode != 0:
        needs.skip("package-mirror", done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "mmdebstrap failed")
    path_variable = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    image = Image([tree.read_bytes(), *layers], {"Env": [path_variable], **config}, compression=compression)
    tree.unlink()
    temporary = image.write_archive(needs.cache_dir() / f"{name}.{os.getpid()}.tar", f"{name}:latest")
    temporary.rename(path)
    return path


def debian_postgres_archive():
    return _debian_archive("debian-postgres", ["postgresql"], {"User": "postgres"}, compression="zstd")


def debian_programs_archive():
    """What people run by hand: an editor, two languages, and a database that is small."""
    return _debian_archive("debian-programs", ["vim-tiny", "python3-minimal", "nodejs", "redis-server"], {"Cmd": ["bash"]},
                           compression="zstd")


def debian_nginx_archive():
    """A Debian with nginx from packages, as an oci-archive of two layers; made once and kept in the cache."""
    path = needs.cache_dir() / "debian-nginx-2.tar"
    if path.exists():
        return path
    if needs.find_program("mmdebstrap") is None:
        needs.skip("program:mmdebstrap")
    uri, release = _mirror()
    tree = needs.cache_dir() / f"debian-nginx.{os.getpid()}.root.tar"
    done = subprocess.run(["mmdebstrap", "--variant=minbase", "--include=nginx-light", "--mode=unshare",
                           '--dpkgopt=path-exclude=/usr/share/doc/*', '--dpkgopt=path-exclude=/usr/share/man/*',
                           '--dpkgopt=path-exclude=/usr/share/locale/*', release, str(tree), uri],
                          capture_output=True, text=True, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    if done.returncode != 0:
        needs.skip("package-mirror", done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "mmdebstrap failed")
    site = LayerTar()
    site.directory("srv/www").file("srv/www/index.html", "<h1>grown by kelp</h1>\n")
    site.file("etc/nginx/sites-enabled/default", NGINX_SITE)
    site.symlink("var/log/nginx/access.log", "/dev/stdout").symlink("var/log/nginx/error.log", "/dev/stderr")
    config = {"Cmd": ["nginx", "-g", "daemon off;"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT",
              "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    image = Image([tree.read_bytes(), site], config)
    tree.unlink()
    temporary = image.write_archive(needs.cache_dir() / f"debian-nginx.{os.getpid()}.tar", "nginx:latest")
    temporary.rename(path)
    return path
