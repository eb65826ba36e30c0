"""Errors that are the user's to mend: one clear sentence each, and an exit code that says which kind.

Exit codes: 0 done; 1 a fault in Updraft; 2 campaign file or command; 3 data; 4 a check stopped the
run; 5 folder, port, lock or resources; 6 a service refused or is away; 130 interrupted.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable


class UpdraftError(Exception):
    """Base of every error that Updraft raises on purpose."""

    exit_code = 1


class CampaignError(UpdraftError):
    """The campaign file, or the way a command was called, is wrong."""

    exit_code = 2


class DataError(UpdraftError):
    """A table, a frame or an array is wrong."""

    exit_code = 3


class CheckFailed(UpdraftError):
    """A check on good-looking data (sample ratio, drift) says that it must not be used."""

    exit_code = 4


class EnvironmentProblem(UpdraftError):
    """The machine can't do it now: folder, port, lock or resources."""

    exit_code = 5


class RemoteError(UpdraftError):
    """A service that was called refused, answered nonsense or can't be reached."""

    exit_code = 6


# What the system says when a folder can't take what we write; everything else is our own fault.
_FOLDER_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def folder_problem(error: OSError) -> EnvironmentProblem | None:
    """A full or read-only folder as a sentence; None where the error is of another kind."""
    if error.errno not in _FOLDER_TROUBLE:
        return None
    where = error.filename or "the folder of UPDRAFT_HOME"
    return EnvironmentProblem(
        f"{where}: can't be written ({error.strerror}); free the disk, or point UPDRAFT_HOME elsewhere"
    )


def choices(options: Iterable[object]) -> str:
    """The options as people write them: ``'a', 'b' or 'c'``."""
    names = [f"'{option}'" for option in options]
    if len(names) < 2:
        return "".join(names) or "nothing"
    return f"{', '.join(names[:-1])} or {names[-1]}"
