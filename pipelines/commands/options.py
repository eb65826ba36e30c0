"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from campaigns.errors import DataError
from campaigns.loading import load_campaign
from campaigns.settings import Settings
from campaigns.sources import located
from campaigns.spec import Campaign

if TYPE_CHECKING:
    from models.uplift_model import UpliftModel

File = Annotated[Path, typer.Argument(metavar="CAMPAIGN", help="A campaign file (YAML).")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of search, weights, batches and bootstrap.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Training workers (UPDRAFT_WORKERS).")]
Port = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Port to listen on; default: a free one.")
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model", help="A saved model's folder, or a version or alias; default: the champion."
    ),
]


def open_model(campaign: Campaign, name: str | None, settings: Settings) -> tuple[UpliftModel, str]:
    """A model by its folder, or by its version or alias in the registry, and what to call it.

    Raises:
        DataError: The folder holds no model.
        CampaignError: The registry has no such version; lists those there are.
    """
    from models.uplift_model import UpliftModel

    if name is not None and (Path(name).is_dir() or "/" in name):
        if not Path(name).is_dir():
            raise DataError(f"{name}: is no folder of a saved model; give one, or a version")
        model = UpliftModel.load(Path(name))
        return model, f"{model.name} in {name}"
    from models.registry import CHAMPION, Registry

    wanted = name or CHAMPION
    model = Registry(settings).load(campaign.name, wanted)
    return model, f"{model.name}, version {model.meta['version']}"


def console(*, quiet: bool = False) -> Console:
    """Where people read; with JSON on standard output, progress goes to standard error."""
    return Console(stderr=quiet, highlight=False)


def open_campaign(file: Path, settings: Settings) -> Campaign:
    """The campaign of a file, with its source found."""
    return located(load_campaign(file), file.absolute().parent, settings)


def print_json(result: Any) -> None:
    """One JSON document on standard output; JSON has no NaN and no infinity, so those are null."""
    typer.echo(json.dumps(_jsonable(result), indent=2, default=str))


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
