"""What every request passes first: who may change state, how long a body may be, how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.answers import refusal
from serving.token import is_token

MAX_BODY = 4 * 1024 * 1024
DRAINED = 64 * 1024 * 1024  # of a body that is too long, so that its sender gets to read why
READING = frozenset({"GET", "HEAD", "OPTIONS"})

Observe = Callable[[str, int, float], None]  # route, status, seconds


class Guard:
    """ASGI middleware: 401 without the token (except for reading), 413 for a body that is too long."""

    def __init__(self, app: ASGIApp, *, token: str, observe: Observe) -> None:
        self._app, self._token, self._observe = app, token, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        scope = {**scope, "headers": _as_json(scope)}
        try:
            await self._answer(scope, receive, watched)
        finally:
            # The route's template, not the path: what outsiders send makes no new time series.
            route = getattr(scope.get("route"), "path", "other")
            self._observe(route, status, time.perf_counter() - start)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        if body is None:
            answer = refusal(
                413, f"the body is longer than {MAX_BODY:,} bytes; send several requests"
            )
            await answer(scope, receive, send)
        elif scope["method"] not in READING and not self._trusted(scope):
            answer = refusal(401, "this needs the header 'Authorization: Bearer <token>'")
            answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, send)
        else:
            await self._app(scope, _replay(body, receive), send)

    def _trusted(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name.lower() == b"authorization":
                kind, _, given = value.decode("latin-1").partition(" ")
                return bool(kind.lower() == "bearer") and is_token(given.strip(), self._token)
        return False


def _as_json(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers, with the body as what it is taken for (``curl -d`` calls it a form)."""
    others = [pair for pair in scope["headers"] if pair[0].lower() != b"content-type"]
    return [*others, (b"content-type", b"application/json")]


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None where it is too long."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":  # whoever sent it is gone
            break
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY:
            parts.append(part)
        if not message.get("more_body", False) or size > DRAINED:
            break
    return b"".join(parts) if size <= MAX_BODY else None


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body once more."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
