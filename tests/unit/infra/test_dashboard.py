"""The dashboard asks for metrics that the service exports, with labels that they have."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

from serving.service import Service
from serving.status import Monitor
from tests.unit.infra.manifests import INFRA

BOARD: dict[str, Any] = json.loads(
    (INFRA / "components" / "monitoring" / "updraft.json").read_text()
)


def exported() -> set[str]:
    """Every series that /metrics may hold, of a service that serves nothing yet."""
    monitor = Monitor(cast(Service, SimpleNamespace(campaigns=[])), "replica")
    monitor.observe("/v1/outcomes", 200, 0.1)
    names = set()
    for family in text_string_to_metric_families(monitor.text().decode()):
        names |= {sample.name for sample in family.samples}
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return names


def queries() -> list[str]:
    asked = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
    return asked + [
        variable["query"]["query"]
        for variable in BOARD["templating"]["list"]
        if variable["type"] == "query"
    ]


def test_every_metric_asked_for_is_exported() -> None:
    asked = {name for query in queries() for name in re.findall(r"updraft_\w+", query)}
    assert len(asked) >= 10
    assert asked <= exported()


def test_the_route_asked_for_is_one_of_the_service() -> None:
    from serving.app import create_app

    app = create_app(cast(Service, SimpleNamespace(campaigns=[], token="token")))
    routes = {getattr(route, "path", "") for route in app.routes}
    asked = {route for query in queries() for route in re.findall(r'route="([^"]+)"', query)}
    assert asked
    assert asked <= routes


def test_panels_have_their_own_place_and_number() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not own & cells, panel["title"]
        assert max(x for x, _ in own) < 24
        cells |= own
    numbers = [panel["id"] for panel in BOARD["panels"]]
    assert len(numbers) == len(set(numbers))
