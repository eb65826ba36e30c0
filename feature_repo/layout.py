"""What lies in the folder of a feature repository, and the two files that Feast people look for."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import yaml

from campaigns.settings import Settings
from campaigns.spec import Campaign
from feature_repo.database import plain_url

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
    log={log},
)
'''


def config_text(campaign: Campaign, settings: Settings) -> str:
    """feature_store.yaml: DuckDB offline, SQLite online, a file as registry; or the servers of the settings.

    Their addresses hold passwords, so they stay in the environment, as for Feast's own command line.
    """
    registry: dict[str, Any] = {"path": REGISTRY}
    offline: dict[str, Any] = {"type": "feature_repo.asof.AsofOfflineStore"}
    online: dict[str, Any] = {"type": "sqlite", "path": ONLINE_STORE}
    if settings.feast_database:
        registry = {"registry_type": "sql", "path": "${UPDRAFT_FEAST_DATABASE}"}
        offline = {"type": "feature_repo.lateral.LateralOfflineStore"}
        offline["url"] = "${UPDRAFT_FEAST_DATABASE}"
    if settings.feast_online:
        online = {"type": "feature_repo.redis_store.UrlRedisOnlineStore"}
        online["url"] = "${UPDRAFT_FEAST_ONLINE}"
    config = {
        "project": campaign.name,
        "provider": "local",
        "registry": {**registry, "cache_ttl_seconds": 60},
        "offline_store": offline,
        "online_store": online,
        "entity_key_serialization_version": 3,
    }
    return yaml.safe_dump(config, sort_keys=False)


def config_values(campaign: Campaign, settings: Settings) -> dict[str, Any]:
    """What :func:`config_text` says once the addresses are in it."""
    values: dict[str, Any] = yaml.safe_load(config_text(campaign, settings))
    if settings.feast_database:
        url = plain_url(settings.feast_database)
        values["offline_store"]["url"] = url
        values["registry"]["path"] = url.replace("postgresql:", "postgresql+psycopg:", 1)
    if settings.feast_online:
        values["online_store"]["url"] = settings.feast_online
    return values


def definitions_text(campaign: Campaign, log: Path | str) -> str:
    """feature_definitions.py: the campaign's features, spelled out, and where their log is."""
    return _DEFINITIONS.format(
        name=campaign.name,
        unit=campaign.unit,
        numeric=campaign.features.numeric,
        categorical=campaign.features.categorical,
        log=repr(log) if isinstance(log, str) else f"Path({str(log)!r})",
    )


def holds(folder: Path, texts: dict[str, str], settings: Settings) -> bool:
    """Whether the folder has these files, and the stores that are files.

    A folder that was moved has not: the definitions name the log's absolute path.
    """
    files = [] if settings.feast_database else [REGISTRY]
    files += [] if settings.feast_online else [ONLINE_STORE]
    return all((folder / name).exists() for name in files) and all(
        _read(folder / name) == text for name, text in texts.items()
    )


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
