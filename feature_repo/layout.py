"""What lies in the folder of a feature repository, and the two files that Feast people look for."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import yaml

from campaigns.spec import Campaign

LOG = "log"
ONLINE_STORE = "online.db"
REGISTRY = "registry.db"
CONFIG = "feature_store.yaml"
DEFINITIONS = "feature_definitions.py"

_DEFINITIONS = '''"""The features of campaign {name!r}, for `feast plan`, `feast apply` and `feast ui` in this folder.

Updraft writes this file from the campaign: change the campaign, not this.
"""

from pathlib import Path

from feature_repo.definitions import define

entity, log, fresh, view, service = define(
    unit={unit!r},
    numeric={numeric!r},
    categorical={categorical!r},
    log=Path({log!r}),
)
'''


def config_text(campaign: Campaign) -> str:
    """feature_store.yaml: DuckDB offline, SQLite online, a file as registry."""
    config = {
        "project": campaign.name,
        "provider": "local",
        "registry": {"path": REGISTRY, "cache_ttl_seconds": 60},
        "offline_store": {"type": "feature_repo.asof.AsofOfflineStore"},
        "online_store": {"type": "sqlite", "path": ONLINE_STORE},
        "entity_key_serialization_version": 3,
    }
    return yaml.safe_dump(config, sort_keys=False)


def definitions_text(campaign: Campaign, folder: Path) -> str:
    """feature_definitions.py: the campaign's features, spelled out, and where their log is."""
    return _DEFINITIONS.format(
        name=campaign.name,
        unit=campaign.unit,
        numeric=campaign.features.numeric,
        categorical=campaign.features.categorical,
        log=str(folder / LOG),
    )


def is_applied(campaign: Campaign, folder: Path) -> bool:
    """Whether the folder holds the repository of the campaign as it is now, wholly applied, here.

    A folder that was moved is not: Feast's registry has the log's absolute path.
    """
    if not ((folder / REGISTRY).exists() and (folder / ONLINE_STORE).exists()):
        return False
    texts = {CONFIG: config_text(campaign), DEFINITIONS: definitions_text(campaign, folder)}
    return all(_read(folder / name) == text for name, text in texts.items())


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none of it."""
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
