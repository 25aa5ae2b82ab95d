"""A registry in a few lines of Python that can be told to misbehave, and that remembers what it was asked."""

import base64
import http.server
import json
import socket
import threading
import time

from .images import OCI_MANIFEST, digest


class HostileRegistry:
    """Serves images of harness.images over plain HTTP on the loopback.

    documents   (repository, reference) → (media type, bytes), also under digests
    blobs       digest → bytes
    faults      digest → a function (handler, data, start) that sends the answer itself
    requests    (method, path, headers) of every request
    """

    def __init__(self):
        self.documents, self.blobs, self.faults, self.requests = {}, {}, {}, []
        self.user = self.token = self.redirect_blobs_to = None
        self.fail_next = []  # statuses to answer the next requests with
        self.ranges = True
        self.scheme = "http"  # https once the socket of its server speaks TLS
        self.busy = None      # a harness.busy.Busy
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer._answer(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def add(self, image, name, manifest=None, media_type=OCI_MANIFEST):
        """Serves an image under repository:tag; `manifest` (bytes) in place of its own. Returns the full name."""
        repository, tag = name.split(":")
        if manifest is None:
            manifest = json.dumps(image.manifest).encode()
        self.blobs.update(image.blobs if image else {})
        for reference in (tag, digest(manifest)):
            self.documents[repository, reference] = (media_type, manifest)
        return f"{self.address}/{name}"

    def asked(self, part):
        """How often a GET for a path with `part` in it came."""
        return sum(1 for method, path, _ in self.requests if method == "GET" and part in path)

    # The answers

    def _answer(self, handler):
        self.requests.append((handler.command, handler.path, dict(handler.headers)))
        if self.fail_next:
            return self.send(handler, self.fail_next.pop(0), b"")
        if self.busy and self.busy.now():
            return self.send(handler, 429, b"", self.busy.headers())
        path = handler.path.split("?")[0]
        if path == "/token":
            return self._give_token(handler)
        if not path.startswith("/v2/"):
            return self.send(handler, 404, b"")
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            challenge = f'Bearer realm="{self.scheme}://{self.address}/token",service="hostile"'
            return self.send(handler, 401, b"{}", {"WWW-Authenticate": challenge})
        if path == "/v2/":
            return self.send(handler, 200, b"{}")
        for kind in ("/manifests/", "/blobs/", "/tags/"):
            if kind in path:
                repository, _, reference = path[len("/v2/"):].rpartition(kind)
                return getattr(self, "_" + kind.strip("/"))(handler, repository, reference)
        return self.send(handler, 404, b"")

    def _give_token(self, handler):
        wanted = "Basic " + base64.b64encode(self.user.encode()).decode() if self.user else None
        if wanted and handler.headers.get("Authorization") != wanted:
            return self.send(handler, 401, b"{}")
        return self.send(handler, 200, json.dumps({"token": self.token}).encode())

    def _manifests(self, handler, repository, reference):
        if (repository, reference) not in self.documents:
            return self.send(handler, 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        media_type, data = self.documents[repository, reference]
        return self.send(handler, 200, data, {"Content-Type": media_type})

    def _tags(self, handler, repository, _):
        tags = sorted(tag for name, tag in self.documents if name == repository and ":" not in tag)
        if not tags:
            return self.send(handler, 404, b"{}")
        return self.send(handler, 200, json.dumps({"name": repository, "tags": tags}).encode())

    def _blobs(self, handler, repository, reference):
        if reference not in self.blobs:
            return self.send(handler, 404, b"{}")
        if self.redirect_blobs_to:
            return self.send(handler, 307, b"", {"Location": f"http://{self.redirect_blobs_to}{handler.path}"})
        data, start = self.blobs[reference], 0
        asked = handler.headers.get("Range")
        if asked and self.ranges:
            start = int(asked.removeprefix("bytes=").split("-")[0])
        if reference in self.faults:
            return self.faults[reference](handler, data, start)
        return self.send_from(handler, data, start)

    def send_from(self, handler, data, start):
        if start == 0:
            return self.send(handler, 200, data)
        return self.send(handler, 206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})

    @staticmethod
    def send(handler, status, data, headers=None):
        handler.send_response(status)
        for key, value in (headers or {}).items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)

    # Faults

    def replace(self, reference, data):
        """Sends other bytes than the digest promises."""
        self.faults[reference] = lambda handler, _, start: self.send(handler, 200, data)

    def break_off(self, reference, after, times=1):
        """Breaks the connection after so many bytes, the first `times` times."""
        left = [times]

        def fault(handler, data, start):
            if left[0] == 0:
                return self.send_from(handler, data, start)
            left[0] -= 1
            rest = data[start:]
            handler.send_response(206 if start else 200)
            if start:
                handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            handler.send_header("Content-Length", str(len(rest)))
            handler.end_headers()
            handler.wfile.write(rest[:after])
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True

        self.faults[reference] = fault

    def slow(self, reference, chunk, pause):
        """Sends the blob in small pieces."""

        def fault(handler, data, start):
            rest = data[start:]
            handler.send_response(206 if start else 200)
            if start:
                handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            handler.send_header("Content-Length", str(len(rest)))
            handler.end_headers()
            for at in range(0, len(rest), chunk):
                try:
                    handler.wfile.write(rest[at:at + chunk])
                    handler.wfile.flush()
                except OSError:
                    handler.close_connection = True
                    return
                time.sleep(pause)

        self.faults[reference] = fault
