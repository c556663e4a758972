"""A stand-in for Kaggle on 127.0.0.1 that the real client talks to, written from that client's source.

The client is sent here by environment variables alone: ``KAGGLE_API_ENVIRONMENT=LOCALHOST`` makes it speak
plain HTTP to "localhost", and ``HTTP_PROXY`` delivers those requests, with absolute URLs, to our port.
It cannot prove what the real service answers; it does prove what the client makes of such answers.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

TOKEN = "a-good-token"
USERNAME, KEY = "tester", "a-good-key"
ETAG = '"version-1"'
LAST_MODIFIED = "Wed, 01 Jul 2020 00:00:00 GMT"


@dataclass
class KaggleServer:
    """What the server does, set by a test, and what it was asked.

    ``archives``: bodies of successive downloads, the last one repeated. ``error``: (status, message) in place
    of a download. ``drop_after``: bytes after which successive transfers break off; None, or nothing left in
    the list: they do not. ``delay``: seconds between chunks. ``mapping``: body of ``mapping_url``, None: 404.
    """

    archives: list[bytes] = field(default_factory=list)
    error: tuple[int, str] | None = None
    error_headers: dict[str, str] = field(default_factory=dict)
    drop_after: list[int | None] = field(default_factory=list)
    delay: float = 0.0
    mapping: bytes | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)  # (last part of the URL, Range header)
    bytes_sent: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def mapping_url(self) -> str:
        return f"{self.url}/mapping.json"

    def count(self, name: str) -> int:
        return sum(requested == name for requested, _ in self.requests)

    @property
    def ranges(self) -> list[str]:
        return [value for name, value in self.requests if name == "archive.zip" and value]

    def environment(self) -> dict[str, str]:
        """Variables that send every request of the client, and by mistake any other, to this server."""
        proxies = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
        return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST"} | dict.fromkeys(proxies, self.url)

    def start(self) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server


def _handler(state: KaggleServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:  # noqa: N802  the name that http.server calls
            name = self.note()
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if name == "IntrospectToken":
                good = body["token"] == TOKEN
                self.send_json(200, {"active": good, "username": USERNAME if good else ""})
            elif not self.signed_in():
                self.send_json(401, {"code": 401, "message": "Unauthorized"})
            elif state.error:
                status, message = state.error
                self.send_json(status, {"code": status, "message": message}, state.error_headers)
            else:
                self.send_response(302)
                self.send_header("Location", "http://localhost/blob/archive.zip")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def do_GET(self) -> None:  # noqa: N802
            if self.note() == "archive.zip":
                self.send_archive()
            elif state.mapping is None:
                self.send_json(404, {"code": 404, "message": "no such file"})
            else:
                self.send_body(200, state.mapping, {"Content-Type": "application/json"})

        def note(self) -> str:
            name = urlsplit(self.path).path.rsplit("/", 1)[1]
            state.requests.append((name, self.headers.get("Range", "")))
            return name

        def signed_in(self) -> bool:
            basic = base64.b64encode(f"{USERNAME}:{KEY}".encode()).decode()
            return self.headers.get("Authorization") in (f"Bearer {TOKEN}", f"Basic {basic}")

        def send_json(self, status: int, content: dict, headers: dict[str, str] | None = None) -> None:
            headers = {"Content-Type": "application/json", **(headers or {})}
            self.send_body(status, json.dumps(content).encode(), headers)

        def send_archive(self) -> None:
            body = state.archives.pop(0) if len(state.archives) > 1 else state.archives[0]
            headers = {"ETag": ETAG, "Last-Modified": LAST_MODIFIED, "Accept-Ranges": "bytes"}
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(wanted[1]) if wanted and self.headers.get("If-Range") == ETAG else 0
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            drop = state.drop_after.pop(0) if state.drop_after else None
            self.send_body(206 if start else 200, body[start:], headers, drop)

        def send_body(self, status: int, body: bytes, headers: dict[str, str], drop: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for start in range(0, len(body[:drop]), 65536):
                chunk = body[:drop][start : start + 65536]
                self.wfile.write(chunk)
                state.bytes_sent += len(chunk)
                threading.Event().wait(state.delay)  # tests make time.sleep do nothing

    return Handler
