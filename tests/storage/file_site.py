"""A loopback HTTP server of a few files, with byte ranges, a password and faults on demand.

Also speaks as much of the Hugging Face hub's API as reading one dataset takes.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

REPO = "someone/corpus"


class FileSite:
    """The server; ``script`` holds what happens to the next GETs of files, one entry each.

    An entry is a status, ``drop`` (the connection is closed without a reply), ``cut`` (half of the
    body, then closed) or ``ok``; after the last one all is well.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.script: list[int | str] = []
        #: What "Authorization" must be; None for nothing.
        self.authorization: str | None = None
        self.num_gets = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def entry(self, name: str) -> dict[str, object]:
        """A file as the hub describes it."""
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": "0" * 40}

    def api(self, path: str) -> object:
        """Answer a GET of the hub's API: the repository, or its files."""
        if "/tree/" in path:
            return [self.entry(name) for name in sorted(self.files)]
        return {"id": REPO, "sha": "0" * 40, "siblings": [], "private": False, "tags": []}


def _handler_of(site: FileSite) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one class
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.serve(with_body=False)

        def do_GET(self) -> None:
            self.serve()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
            self.say([site.entry(name) for name in asked if name in site.files])

        def serve(self, *, with_body: bool = True) -> None:
            path = unquote(urlsplit(self.path).path)
            if site.authorization not in (None, self.headers.get("Authorization")):
                self.reply(401, f"no: {self.headers.get('Authorization')}".encode())
            elif path.startswith("/api/"):
                self.say(site.api(path))
            else:
                name = path.removeprefix(f"/datasets/{REPO}/resolve/main/").lstrip("/")
                self.file(name, with_body=with_body)

        def file(self, name: str, *, with_body: bool) -> None:
            if name not in site.files:
                self.reply(404, b"")
                return
            step: int | str = "ok"
            if with_body:
                site.num_gets += 1
                step = site.script.pop(0) if site.script else "ok"
            if isinstance(step, int):
                self.reply(step, b"please wait")
                return
            if step == "drop":
                self.close_connection = True
                return
            content = site.files[name]
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            status = 200
            if asked is not None:
                status, content = 206, content[int(asked[1]) : int(asked[2]) + 1]
            sent = content[: len(content) // 2] if step == "cut" else content
            self.reply(status, sent if with_body else b"", num_bytes=len(content))

        def say(self, document: object) -> None:
            self.reply(200, json.dumps(document).encode())

        def reply(self, status: int, content: bytes, num_bytes: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(num_bytes or len(content)))
            self.send_header("Content-Type", "application/json")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", '"one"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            del args

    return Handler


@contextmanager
def serve_files(files: dict[str, bytes]) -> Iterator[FileSite]:
    """Run a site in a thread of this process."""
    site = FileSite(files)
    thread = threading.Thread(target=site.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.server.shutdown()
        thread.join(timeout=30)
        site.server.server_close()
