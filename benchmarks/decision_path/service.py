"""The service that is measured: a campaign of game_bonus with an untrained MTMT, which costs what a trained one does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.decision_path.simulation import Costs
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.settings import Settings
from campaigns.worlds import world
from models.catalog import build
from models.dataset import fit_recipe
from models.registry import Registry
from models.uplift_model import UpliftModel
from serving.batching import Pending
from serving.events import EventStore
from serving.inputs import read_units
from serving.schemas import DecisionRequest
from serving.service import Job, Service
from serving.token import token

GAME = load_campaign(Path(__file__).resolve().parents[2] / "campaigns" / "game_bonus.yaml")
PATH = f"/v1/campaigns/{GAME.name}/decisions"
SIZES = (1, 4, 16, 64, 256)
REPLICAS = 2


def register(settings: Settings) -> dict[str, Any]:
    """Put the model into the registry; the features of a unit, to ask with."""
    frame = decision_frame(world("game_bonus").log(5000, seed=5), GAME, "world")
    recipe = fit_recipe(frame, GAME)
    net = build("mtmt", recipe.shape, {}, seed=0).eval()
    model = UpliftModel(
        "mtmt", {}, recipe.shape, recipe.encoder, recipe.scaler, net, GAME, price=0.1
    )
    folder = settings.folder("model")
    model.save(folder)
    registry = Registry(settings)
    registry.promote(GAME.name, registry.register(model, folder, {}))
    row = frame.iloc[0][GAME.features.names].to_dict()
    return {"features": {name: _plain(value) for name, value in row.items()}}


def batch_costs(settings: Settings, body: dict[str, Any], turns: int) -> dict[str, Any]:
    """Model, write and flush of a batch, measured in this process on an event store of its own.

    CPU is the thread's own. The flush is what the transaction's wall time has beyond it: the least of the
    turns, so that neither other processes nor the disk's bad moments count.
    """
    place = settings.model_copy(update={"home": settings.folder("calibration")})
    store = EventStore(place.event_store_url)
    service = Service(store, lambda name, version: Registry(settings).load(name, version), token="")
    service.configure({GAME.name: "1"})
    spent: list[tuple[float, float]] = []
    _timed(store, spent)
    model, write, flush = [], [], []
    for size in SIZES:
        found = []
        for turn in range(turns):
            batch = [_pending(service, body, f"{size}-{turn}-{each}") for each in range(size)]
            cpu = time.thread_time()
            service._decide(batch)
            whole = time.thread_time() - cpu
            for one in batch:
                one.future.result()
            wall, inside = spent.pop()
            found.append((whole - inside, inside, wall - inside))
        middle = np.median(found, axis=0)
        model.append(middle[0])
        write.append(middle[1])
        flush.append(np.min([each[2] for each in found]))
    service.close()
    file = place.root / "events" / "events.db"
    return {
        "model": _line(model),
        "write": _line(write),
        "flush": float(np.min(flush[:3])),
        "bytes": file.stat().st_size / (sum(SIZES) * turns),
    }


def _timed(store: EventStore, spent: list[tuple[float, float]]) -> None:
    """Have every transaction leave its wall and CPU seconds."""
    plain = store.transaction

    @contextmanager
    def transaction(campaign: str) -> Iterator[Any]:
        wall, cpu = time.perf_counter(), time.thread_time()
        with plain(campaign) as writer:
            yield writer
        spent.append((time.perf_counter() - wall, time.thread_time() - cpu))

    store.transaction = transaction  # type: ignore[method-assign]


def _pending(service: Service, body: dict[str, Any], unit: str) -> Pending[Job, Any]:
    request = DecisionRequest.model_validate({"units": [{**body, "unit_id": unit}]})
    deployed = service.find(GAME.name)
    return Pending(Job(deployed, read_units(request, GAME), None, ""), 1)


def _line(seconds: list[float]) -> tuple[float, float]:
    """Fixed part, and part of each decision: through the smallest and the largest batch."""
    each = max((seconds[-1] - seconds[0]) / (SIZES[-1] - SIZES[0]), 0.0)
    return max(seconds[0] - each, 0.0), each


@contextmanager
def counting_cpu(word: str) -> Iterator[list[float]]:
    """The CPU seconds that processes with this word in their command line take meanwhile, once it is left."""
    before, found = _cpu(word), list[float]()
    yield found
    after = _cpu(word)
    found.append(sum(after[pid] - before.get(pid, 0.0) for pid in after))


def _cpu(word: str) -> dict[int, float]:
    found = {}
    mine = psutil.Process().username()
    for process in psutil.process_iter(["cmdline", "cpu_times", "username"]):
        line, times = " ".join(process.info["cmdline"] or []), process.info["cpu_times"]
        if word in line and times and process.info["username"] == mine:
            found[process.pid] = times.user + times.system
    return found


def per_request(costs: dict[str, Any], used: dict[str, float]) -> Costs:
    """Service times: what a replica used beyond its batches of one is HTTP."""
    alone = sum(costs["model"]) + sum(costs["write"])
    return Costs(
        client=used["client"],
        proxy=used["proxy"],
        http=max(used["replica"] - alone, 0.0),
        model=costs["model"],
        write=costs["write"],
        flush=costs["flush"],
    )


def _plain(value: Any) -> Any:
    if value is None or value != value:
        return None
    return value if isinstance(value, str) else float(value)


def bearer(settings: Settings) -> str:
    """The service's token."""
    return token(settings)
