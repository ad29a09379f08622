"""A program: moto's S3 API on a loopback port, with faults on demand; prints the port.

One request at a time: moto checks and writes in two steps, so only this makes its conditional put
atomic, as a real store's is. ``PUT /_faults`` takes the faults as one JSON object and answers with
those before it.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

NO_FAULTS: dict[str, Any] = {
    # Puts are done whatever their If-None-Match says, as some servers do.
    "ignores_conditions": False,
    # So many requests are answered "503 Slow Down" and not done.
    "num_busy": 0,
    # So many conditional puts that were done are not answered so.
    "num_lost": 0,
    # What is answered in their place: a status, or "drop" for a closed connection.
    "lost_as": "503 Slow Down",
}


class FaultyS3:
    """The WSGI application around moto's."""

    def __init__(self) -> None:
        self.api = DomainDispatcherApplication(create_backend_app)
        self.faults = dict(NO_FAULTS)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request."""
        if environ["PATH_INFO"] == "/_faults":
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            before = json.dumps(self.faults).encode()
            self.faults = {**NO_FAULTS, **json.loads(body)}
            start_response("200 OK", [("Content-Length", str(len(before)))])
            return [before]
        if self.faults["num_busy"]:
            self.faults["num_busy"] -= 1
            start_response("503 Slow Down", [("Content-Length", "0")])
            return []
        is_create = environ["REQUEST_METHOD"] == "PUT" and "HTTP_IF_NONE_MATCH" in environ
        if self.faults["ignores_conditions"]:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if not (is_create and self.faults["num_lost"]):
            return self.api(environ, start_response)
        return self._answer_or_lose(environ, start_response)

    def _answer_or_lose(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        answered: list[tuple[str, Any]] = []
        body = b"".join(
            self.api(environ, lambda status, headers, *_: answered.append((status, headers)))
        )
        status, headers = answered[-1]
        if status.startswith("200"):
            self.faults["num_lost"] -= 1
            status = self.faults["lost_as"]
            if status == "drop":
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                status = "200 OK"
            code = status.partition(" ")[2].replace(" ", "")
            body = f"<Error><Code>{code}</Code><Message>lost</Message></Error>".encode()
            headers = [("Content-Length", str(len(body))), ("Content-Type", "application/xml")]
        start_response(status, headers)
        return [body]


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, FaultyS3(), threaded=False)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
