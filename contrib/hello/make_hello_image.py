#!/usr/bin/env python3
"""Packs one static program as an OCI image in an archive: make_hello_image.py PROGRAM OUT.tar VERSION

The same program gives the same bytes (no times, no owners, fixed order), so a build can be reproduced."""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

NAME = "localhost/hello:latest"


def tar_of(files):
    """A tar archive of (name, mode, bytes); bytes None: a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, mode, data in files:
            info = tarfile.TarInfo(name)
            info.mode = mode
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data or b""))
    return buffer.getvalue()


def digest(data):
    return hashlib.sha256(data).hexdigest()


def descriptor(media_type, data, **more):
    return {"mediaType": "application/vnd.oci.image." + media_type, "digest": "sha256:" + digest(data),
            "size": len(data), **more}


def architecture():
    machine = os.environ.get("KELP_TARGET_CPU") or os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm", "ppc64le": "ppc64le",
            "s390x": "s390x", "riscv64": "riscv64"}.get(machine, machine)


def main(program, output, version):
    layer = tar_of([("hello", 0o755, open(program, "rb").read())])
    packed = gzip.compress(layer, 9, mtime=0)
    created = "2026-11-01T00:00:00Z"  # of this form of the image; the time of the build would change its bytes
    config = json.dumps({
        "created": created, "architecture": architecture(), "os": "linux",
        "config": {"Entrypoint": ["/hello"], "WorkingDir": "/", "Env": ["PATH=/"],
                   "Labels": {"org.opencontainers.image.title": "hello", "org.opencontainers.image.version": version}},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest(layer)]},
        "history": [{"created": created, "created_by": "kelp: built-in image"}],
    }, sort_keys=True).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", config), "layers": [descriptor("layer.v1.tar+gzip", packed)],
    }, sort_keys=True).encode()
    index = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor("manifest.v1+json", manifest,
                                 annotations={"org.opencontainers.image.ref.name": NAME})],
    }, sort_keys=True).encode()
    files = [("blobs", 0o755, None), ("blobs/sha256", 0o755, None)]
    files += sorted((f"blobs/sha256/{digest(data)}", 0o644, data) for data in (packed, config, manifest))
    files += [("index.json", 0o644, index), ("oci-layout", 0o644, b'{"imageLayoutVersion":"1.0.0"}')]
    with open(output + ".new", "wb") as out:
        out.write(tar_of(files))
    os.replace(output + ".new", output)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
