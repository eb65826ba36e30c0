"""The ``updraft`` command line."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

import typer
from rich.console import Console

from campaigns.errors import UpdraftError, folder_problem
from pipelines.commands import (
    allocate,
    campaign,
    cluster,
    doctor,
    evaluate,
    experiment,
    local,
    simulate,
    upkeep,
)

INTERRUPTED = 130

# typer carries a click of its own; this is its UsageError, whatever module it lives in.
UsageError: Any = typer.BadParameter.__mro__[1]

HELP = """Decides whom to treat, with what, inside a budget, and keeps learning.

A campaign file says what is logged, what it is worth and what may be spent; Updraft learns who should
get what, decides over HTTP, and keeps exploring so that it can learn again.

\b
Begin with:
  updraft doctor                               what this machine lacks, and what mends it
  updraft demo                                 the whole loop on a simulated game
  updraft init mine --from table.parquet       a campaign file from your own table
  updraft check mine.yaml                      everything that is wrong with it, at once
  updraft run mine.yaml                        train, evaluate, and promote what wins

Exit codes: 0 done, 1 a fault of Updraft's own, 2 campaign file or command, 3 data, 4 a check stopped
the run, 5 folder, port, lock or resources, 6 a service refused or is away, 130 interrupted.
"""

app = typer.Typer(
    name="updraft",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for room in (campaign, local, evaluate, allocate, experiment, cluster, doctor, simulate, upkeep):
    room.register(app)


def main() -> None:
    """Run the command line: a user's mistake is one line and an exit code, never a stack trace."""
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell left SIGINT ignored
        signal.signal(number, _interrupt)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    errors = Console(stderr=True, soft_wrap=True)
    try:
        result: Any = typer.main.get_command(app).main(
            arguments, prog_name="updraft", standalone_mode=False
        )
        return result if isinstance(result, int) else 0
    except OSError as error:
        if (problem := folder_problem(error)) is None:
            raise
        errors.print(f"updraft: {problem}", style="red", markup=False, highlight=False)
        return problem.exit_code
    except UpdraftError as error:
        for line in str(error).splitlines():
            errors.print(f"updraft: {line}", style="red", markup=False, highlight=False)
        return error.exit_code
    except UsageError as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        errors.print("updraft: interrupted; everything that it started has ended", style="red")
        return INTERRUPTED


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
