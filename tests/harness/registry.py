"""A real registry on the loopback: Debian's docker-registry, with plain HTTP or TLS, open or with a password."""

import pathlib
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

from . import needs, processes

CONFIG = """version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http:
  addr: "{host}:{port}"
{tls}{auth}"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def make_certificate(directory):
    """A certificate authority of our own and a certificate for localhost signed by it."""
    directory = pathlib.Path(directory)
    run = lambda *argv: subprocess.run(["openssl", *argv], cwd=directory, check=True, capture_output=True)
    run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
        "-subj", "/CN=kelp test authority", "-addext", "basicConstraints=critical,CA:TRUE")
    run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (directory / "server.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    run("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
        "-extfile", "server.ext", "-out", "server.crt")
    return directory / "ca.crt", directory / "server.crt", directory / "server.key"


class Registry:
    def __init__(self, directory, tls=False, user=None, password=None, auth_lines="", host="127.0.0.1"):
        program = needs.find_program("docker-registry")
        if program is None:
            needs.skip("program:docker-registry")
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.tls, self.user, self.password, self.ca, self.host = tls, user, password, None, host
        self.port = free_port()
        tls_lines = ""
        if tls:
            self.ca, certificate, key = make_certificate(self.dir)
            tls_lines = f"  tls: {{certificate: {certificate}, key: {key}}}\n"
        if user:
            done = subprocess.run(["htpasswd", "-Bbn", user, password], capture_output=True, text=True, check=True)
            (self.dir / "htpasswd").write_text(done.stdout)
            auth_lines = f"auth:\n  htpasswd: {{realm: test, path: {self.dir / 'htpasswd'}}}\n"
        (self.dir / "config.yml").write_text(
            CONFIG.format(host=host, root=self.dir / "data", port=self.port, tls=tls_lines, auth=auth_lines))
        self.log = open(self.dir / "log", "wb")
        self.process = subprocess.Popen([program, "serve", str(self.dir / "config.yml")], stdout=self.log,
                                        stderr=self.log, stdin=subprocess.DEVNULL)
        processes.expect(self.process.pid)
        self._wait_ready()

    @property
    def address(self):
        return f"localhost:{self.port}" if self.tls else f"{self.host}:{self.port}"

    def _wait_ready(self):
        url = f"http{'s' if self.tls else ''}://{self.address}/v2/"
        context = ssl.create_default_context(cafile=str(self.ca)) if self.tls else None
        end = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(url, timeout=2, context=context).close()
                return
            except urllib.error.HTTPError:
                return  # 401: it is there and wants a password
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise RuntimeError((self.dir / "log").read_text()) from None
                time.sleep(0.05)

    def blob_path(self, digest):
        hexadecimal = digest.split(":")[1]
        return self.dir / f"data/docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"

    def push(self, source, name):
        """Copies an image (a skopeo source: oci:DIR:TAG, oci-archive:FILE:TAG) here; returns its full name."""
        if needs.find_program("skopeo") is None:
            needs.skip("program:skopeo")
        argv = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
        if self.user:
            argv += ["--dest-creds", f"{self.user}:{self.password}"]
        subprocess.run([*argv, str(source), f"docker://{self.address}/{name}"], check=True, capture_output=True)
        return f"{self.address}/{name}"

    def stop(self):
        self.process.kill()
        self.process.wait()
        processes.forget(self.process.pid)
        self.log.close()
