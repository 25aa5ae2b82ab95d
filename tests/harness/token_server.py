"""A token server of the tests' own, for Debian's docker-registry: hands out signed bearer tokens to who is allowed.

The registry checks the signature by the certificate that it was given (`rootcertbundle`), so tokens are real JSON web
tokens, RS256, with the certificate in the header.
"""

import base64
import http.server
import json
import pathlib
import subprocess
import tempfile
import threading
import time
import urllib.parse


def _b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """users: name → (password, {repository: "pull,push"}); "" is whoever gives no name. requests: (user, scopes)."""

    def __init__(self, directory, users):
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.users, self.requests = users, []
        self.service, self.issuer = "test registry", "test issuer"
        self.key, self.certificate = self.dir / "token.key", self.dir / "token.crt"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(self.key), "-out",
                        str(self.certificate), "-days", "2", "-subj", "/CN=token"], check=True, capture_output=True)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer._answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.realm = f"http://127.0.0.1:{self.server.server_address[1]}/token"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def config(self):
        """Lines for the registry's configuration."""
        return (f"auth:\n  token: {{realm: '{self.realm}', service: '{self.service}', issuer: '{self.issuer}', "
                f"rootcertbundle: {self.certificate}}}\n")

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def _answer(self, handler):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)
        user, password = "", ""
        given = handler.headers.get("Authorization", "")
        if given.startswith("Basic "):
            user, _, password = base64.b64decode(given[6:]).decode().partition(":")
        scopes = query.get("scope", [])
        self.requests.append((user, scopes))
        if user and (user not in self.users or self.users[user][0] != password):
            return self._send(handler, 401, {})
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":", 2)
            allowed = self.users.get(user, ("", {}))[1]
            granted = [a for a in actions.split(",") if a in allowed.get(name, allowed.get("*", "")).split(",")]
            if granted:
                access.append({"type": kind, "name": name, "actions": granted})
        return self._send(handler, 200, {"token": self._token(user, access)})

    def _token(self, user, access):
        der = subprocess.run(["openssl", "x509", "-in", str(self.certificate), "-outform", "DER"], check=True,
                             capture_output=True).stdout
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": user, "aud": self.service, "exp": now + 300, "nbf": now - 10, "iat": now,
                  "jti": str(len(self.requests)), "access": access}
        signed = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
        with tempfile.NamedTemporaryFile() as file:
            file.write(signed.encode())
            file.flush()
            signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", str(self.key), file.name], check=True,
                                       capture_output=True).stdout
        return f"{signed}.{_b64(signature)}"

    @staticmethod
    def _send(handler, status, document):
        data = json.dumps(document).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
