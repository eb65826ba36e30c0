"""The bearer token that whoever changes state must send."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from pathlib import Path

from campaigns.errors import EnvironmentProblem
from campaigns.settings import Settings

FILE = "token"


def token(settings: Settings) -> str:
    """The token of the settings, else the one kept in the home: made at its first use, mode 0600.

    Raises:
        EnvironmentProblem: The settings' token or the kept one is empty.
    """
    if settings.token is not None:
        kept, where = settings.token.get_secret_value(), "UPDRAFT_TOKEN"
    else:
        path = settings.folder("secrets") / FILE
        if not path.exists():
            _make(path)
        kept, where = path.read_text(encoding="utf-8").strip(), str(path)
    if not kept:
        raise EnvironmentProblem(f"{where}: is empty; a token has at least one character")
    return kept


def is_token(given: str, token: str) -> bool:
    """Whether they are the same, in a time that says nothing about where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())


def _make(path: Path) -> None:
    """Write a whole new token, unless another process was faster."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    with contextlib.suppress(FileExistsError):
        os.link(unfinished, path)
    unfinished.unlink()
