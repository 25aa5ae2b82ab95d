"""`import` of a URL: from a server on the loopback that answers well, slowly, wrongly or not at all."""

import base64
import gzip
import http.server
import json
import pathlib
import threading

import pytest

from harness import images, needs
from harness.registry import free_port
from harness.waiting import until

NONE = ("--network", "none")


def root_tar():
    """busybox, and something for it to show."""
    return gzip.compress(images.LayerTar().directory("bin").file("bin/busybox", pathlib.Path(needs.find_program("busybox")).read_bytes(), mode=0o755)
                         .symlink("bin/cat", "busybox").file("made", "by import\n").bytes(), 1)


class Server:
    def __init__(self):
        self.archive, self.seen, self.hold, outer = root_tar(), [], threading.Event(), self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.address}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request):
        path, archive = request.path.partition("?")[0], self.archive
        self.seen.append((request.path, request.headers.get("Authorization")))
        known = path in ("/root.tar.gz", "/no-length", "/slow", "/huge", "/moved", "/not-a-tar")
        request.send_response(404 if not known else 302 if path == "/moved" else 200)
        if path == "/moved":
            request.send_header("Location", "/root.tar.gz")
        if path in ("/root.tar.gz", "/slow"):
            request.send_header("Content-Length", len(archive))
        if path == "/huge":
            request.send_header("Content-Length", 1 << 60)
        request.end_headers()
        try:
            if path == "/slow":
                request.wfile.write(archive[:300_000])
                request.wfile.flush()
                self.hold.wait(60)
                request.wfile.write(archive[300_000:])
            elif path == "/not-a-tar":
                request.wfile.write(b"<html>this is no archive" * 100)
            elif known and path != "/moved":
                request.wfile.write(archive)
        except OSError:
            pass  # the other side is gone

    def end(self):
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.end()


def partial(kelp):
    directory = kelp.store / "partial"
    return list(directory.iterdir()) if directory.is_dir() else []


@pytest.mark.parametrize("path", ["root.tar.gz", "no-length", "moved"])
def test_an_archive_is_fetched(bare_kelp, server, path):
    result = bare_kelp("import", f"{server.url}/{path}", "got:1")
    assert f"Downloading from {server.url}/{path}" in result.err and result.text.startswith("sha256:")
    assert bare_kelp("run", "--rm", *NONE, "got:1", "cat", "/made").text == "by import"
    assert partial(bare_kelp) == []


def test_what_is_secret_in_a_url_is_not_kept(bare_kelp, server):
    bare_kelp("import", "-q", f"HTTP://a%40b:p%3aw@{server.address}/root.tar.gz?key=hush#part", "got")
    assert server.seen == [("/root.tar.gz?key=hush", "Basic " + base64.b64encode(b"a@b:p:w").decode())]
    history = json.loads(bare_kelp("image", "inspect", "got").out)[0]["History"]
    assert history[0]["created_by"].endswith("/root.tar.gz") and "hush" not in str(history) and "p%3aw" not in str(history)


def test_refusals(bare_kelp, server):
    bare_kelp.fails("import", "-q", f"{server.url}/nothing.tar", says="nothing.tar: the server answers with status 404")
    bare_kelp.fails("import", "-q", f"{server.url}/huge", says="to be written, but only")
    bare_kelp.fails("import", "-q", f"{server.url}/not-a-tar", says="not a tar archive")
    bare_kelp.fails("import", "-q", "ftp://127.0.0.1/x.tar", says="http and https only")
    bare_kelp.fails("import", "-q", f"http://127.0.0.1:{free_port()}/x.tar", says="cannot connect to 127.0.0.1:.*: Connection refused")
    assert partial(bare_kelp) == [] and bare_kelp("images", "-q").text == ""


def test_progress_on_a_terminal(bare_kelp, server):
    shown = bare_kelp.terminal("import", f"{server.url}/slow", "got")
    shown.expect("fetching")
    server.hold.set()
    shown.expect("sha256:")
    assert shown.wait() == 0


def test_what_a_killed_import_leaves_is_swept(bare_kelp, server):
    child = bare_kelp.start("import", f"{server.url}/slow", "got")
    until("fetching", lambda: any(path.stat().st_size for path in partial(bare_kelp)))
    child.kill()
    child.wait()
    server.hold.set()
    until("given up", lambda: bare_kelp("store", "gc", code=None) and partial(bare_kelp) == [])
