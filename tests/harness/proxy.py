"""A proxy on the loopback: tunnels for TLS (CONNECT), plain HTTP, and a password where one is asked for."""

import base64
import http.client
import http.server
import select
import socket
import threading


class Proxy:
    """routes    "host:port" as clients say → "host:port" where it is; nothing else is reached
    user      "name:password" that clients must give, None = nobody is asked
    requests  (method, target, headers) of every request to the proxy itself; what goes through a tunnel it does not see
    """

    def __init__(self):
        self.routes, self.user, self.requests = {}, None, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_CONNECT(self):
                outer._tunnel(self)

            def do_GET(self):
                outer._pass_on(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def _route(self, handler, target):
        """Where it leads, or None when the request has been refused."""
        self.requests.append((handler.command, target, dict(handler.headers)))
        wanted = "Basic " + base64.b64encode(self.user.encode()).decode() if self.user else None
        if wanted and handler.headers.get("Proxy-Authorization") != wanted:
            self._refuse(handler, 407, {"Proxy-Authenticate": 'Basic realm="proxy"'})
        elif target not in self.routes:
            self._refuse(handler, 502)
        else:
            return self.routes[target]
        return None

    @staticmethod
    def _refuse(handler, status, headers=None):
        handler.send_response(status)
        for key, value in (headers or {}).items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _tunnel(self, handler):
        there = self._route(handler, handler.path)
        if there is None:
            return
        host, port = there.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as far:
            handler.send_response(200)
            handler.end_headers()
            other = {far: handler.connection, handler.connection: far}
            while True:
                for ready in select.select(list(other), [], [])[0]:
                    try:
                        data = ready.recv(65536)
                        other[ready].sendall(data)
                    except OSError:
                        data = b""
                    if not data:
                        handler.close_connection = True
                        return

    def _pass_on(self, handler):
        target, _, path = handler.path.removeprefix("http://").partition("/")
        there = self._route(handler, target)
        if there is None:
            return
        far = http.client.HTTPConnection(there)
        far.request("GET", "/" + path, headers={key: value for key, value in handler.headers.items()
                                                if not key.lower().startswith("proxy-")})
        answer = far.getresponse()
        body = answer.read()
        handler.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("connection", "content-length", "date", "server"):
                handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        far.close()
