"""The HTTP side of ``kube_server``: reads requests, writes answers whole or as streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from kube_rules import Refused

if TYPE_CHECKING:
    from kube_server import KubeServer


class Handler(BaseHTTPRequestHandler):
    """Reads a request, asks the KubeServer, writes what it says."""

    protocol_version = "HTTP/1.1"
    kube: KubeServer

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.body = json.loads(raw) if raw else None
        fault = self.kube.fault(self.command, self.path)
        try:
            fault(self) if fault else self.kube.respond(self)
        except Refused as error:
            self.answer(error)

    do_GET = do_POST = do_DELETE = do_PUT = _serve  # noqa: N815

    def answer(self, told: Any, headers: dict[str, str] | None = None) -> None:
        refused = isinstance(told, Refused)
        body = told.body() if refused else json.dumps(told).encode()
        try:
            self.send_response(told.status if refused else 200)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def stream(self, pieces: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # cut by a test, or the client left
            self.close_connection = True
            self.connection.close()

    def log_message(self, *args: object) -> None:
        """Quiet."""
