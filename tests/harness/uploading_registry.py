"""A registry in Python that images can be pushed to, and that can be told to refuse, to hang up, and to be small."""

import base64
import http.server
import json
import os
import re
import socket
import threading
import urllib.parse

from .images import digest


class UploadingRegistry:
    """Plain HTTP on the loopback.

    requests       (method, path) of every request; ("GET", "status") for a question about an upload
    blobs          (repository, digest) → bytes
    manifests      (repository, reference) → (media type, bytes)
    mounted        digests that were taken from another repository
    fail_next      statuses to answer the next requests with
    max_body       larger bodies are refused with 413
    break_patches  so many PATCH requests are cut in the middle
    search         results of /v1/search, None = there is no such thing
    user           "name:password" that everybody must give, None = nobody is asked
    headers        those of every request, in the order of `requests`
    uploads_at     another one of these, at which uploads are to be made: the answer to POST names its address
    redirect       (methods, another one): requests for uploads by these methods are sent there with status 307
    busy           method → a harness.busy.Busy: when uploads by it are answered with 429
    """

    def __init__(self):
        self.requests, self.blobs, self.manifests, self.mounted, self.fail_next = [], {}, {}, [], []
        self.uploads, self.max_body, self.break_patches, self.search = {}, 1 << 40, 0, None
        self.user, self.headers, self.uploads_at, self.redirect, self.busy = None, [], None, ((), None), {}
        self.lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer._answer(self)

            do_HEAD = do_PUT = do_POST = do_PATCH = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def serve_uploads_of(self, other):
        """Both have the same storage behind them."""
        self.uploads, self.blobs = other.uploads, other.blobs

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def _answer(self, handler):
        url = urllib.parse.urlsplit(handler.path)
        query = urllib.parse.parse_qs(url.query)
        length = int(handler.headers.get("Content-Length", 0))
        with self.lock:
            self.requests.append((handler.command, handler.path))
            self.headers.append(dict(handler.headers))
        if length > self.max_body:
            self._send(handler, 413, {"Connection": "close"})
            handler.close_connection = True
            return None
        if handler.command == "PATCH" and self.break_patches > 0:
            self.break_patches -= 1
            key = url.path.rsplit("/", 1)[1]
            self.uploads[key][1].extend(handler.rfile.read(length // 2))
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return None
        body = handler.rfile.read(length)
        if self.fail_next:
            return self._send(handler, self.fail_next.pop(0))
        if self.user and handler.headers.get("Authorization") != "Basic " + base64.b64encode(self.user.encode()).decode():
            return self._send(handler, 401, {"WWW-Authenticate": 'Basic realm="uploads"'})
        if url.path == "/v2/":
            return self._send(handler, 200)
        if url.path == "/v1/search" and self.search is not None:
            return self._send(handler, 200, body=json.dumps({"results": self.search}).encode())
        for pattern, method in ((r"/v2/(.+)/manifests/([^/]+)", self._manifest), (r"/v2/(.+)/blobs/uploads/(.*)", self._upload),
                                (r"/v2/(.+)/blobs/(sha256:[0-9a-f]+)", self._blob)):
            match = re.fullmatch(pattern, url.path)
            if match:
                return method(handler, match[1], match[2], query, body)
        return self._send(handler, 404)

    def _manifest(self, handler, repository, reference, _, body):
        if handler.command == "PUT":
            for key in (reference, digest(body)):
                self.manifests[repository, key] = (handler.headers["Content-Type"], body)
            return self._send(handler, 201, {"Docker-Content-Digest": digest(body)})
        if (repository, reference) not in self.manifests:
            return self._send(handler, 404)
        media_type, text = self.manifests[repository, reference]
        return self._send(handler, 200, {"Content-Type": media_type}, text)

    def _blob(self, handler, repository, reference, *_):
        data = self.blobs.get((repository, reference))
        return self._send(handler, 404) if data is None else self._send(handler, 200, body=data)

    def _upload(self, handler, repository, key, query, body):
        methods, other = self.redirect
        if handler.command in methods:
            return self._send(handler, 307, {"Location": f"http://{other.address}{handler.path}"})
        busy = self.busy.get(handler.command)
        if busy and busy.now():
            return self._send(handler, 429, busy.headers())
        if handler.command == "POST":
            blob = self.blobs.get((query.get("from", [""])[0], query.get("mount", [""])[0]))
            if blob is not None:
                self.blobs[repository, query["mount"][0]] = blob
                self.mounted.append(query["mount"][0])
                return self._send(handler, 201)
            key = os.urandom(8).hex()
            self.uploads[key] = (repository, bytearray())
            place = f"http://{self.uploads_at.address}" if self.uploads_at else ""
            return self._send(handler, 202, {"Location": f"{place}/v2/{repository}/blobs/uploads/{key}?state=1", "Range": "0-0"})
        if key not in self.uploads:
            return self._send(handler, 404)
        data = self.uploads[key][1]
        place = {"Location": f"/v2/{repository}/blobs/uploads/{key}?state={len(data)}"}
        if handler.command == "GET":
            self.requests.append(("GET", "status"))
            self.headers.append({})
            return self._send(handler, 204, {**place, "Range": f"0-{max(0, len(data) - 1)}"})
        if handler.command == "PATCH":
            start = int(handler.headers["Content-Range"].split("-")[0])
            if start != len(data):
                return self._send(handler, 416, {**place, "Range": f"0-{max(0, len(data) - 1)}"})
            data.extend(body)
            return self._send(handler, 202, {**place, "Range": f"0-{len(data) - 1}"})
        data.extend(body)
        if digest(bytes(data)) != query["digest"][0]:
            return self._send(handler, 400, body=b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        self.blobs[repository, query["digest"][0]] = bytes(data)
        del self.uploads[key]
        return self._send(handler, 201)

    @staticmethod
    def _send(handler, status, headers=None, body=b""):
        handler.send_response(status)
        for key, value in (headers or {}).items():
            handler.send_header(key, value)
        if status != 204:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD" and status != 204:
            handler.wfile.write(body)
