"""What the application does, without HTTP and Ray: hold the models, decide, record, describe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np

from campaigns.errors import EnvironmentProblem, UpdraftError, choices
from campaigns.spec import Campaign
from serving.batching import Batcher, Full, Pending
from serving.decider import Assessed, Model, Policy, Unit, assess, decide, require_dial
from serving.events import EventStore
from serving.inputs import Refused, complete, read_units
from serving.records import Decision, Feature, OutcomeRecord, OutcomeReport
from serving.schemas import DecisionRequest
from serving.transaction import RequestConflict, Transaction

log = logging.getLogger(__name__)

Online = Callable[[Sequence[str]], Mapping[str, np.ndarray]]  # unit ids [N] -> each feature [N]

BATCH, WAITING = 512, 20_000  # units


@dataclass(frozen=True, eq=False)
class Deployed:
    """A campaign as it is served now."""

    model: Model
    version: str
    online: Online | None

    @property
    def campaign(self) -> Campaign:
        return self.model.campaign

    @property
    def policy(self) -> Policy:
        return Policy.of(self.model, self.version)


@dataclass(frozen=True, eq=False)
class Job:
    """A request that was found good."""

    deployed: Deployed
    units: list[Unit]
    request_id: str | None
    body: str


class Service:
    """One replica's share of the work; thread-safe.

    Args:
        store: Where decisions and outcomes go.
        load_model: The model of (campaign name, version).
        token: Whoever changes state must send it.
        online: The online feature store of a campaign, or None where it has none.
        roll_back: Moves a campaign back by one version, everywhere; returns that version.
    """

    def __init__(
        self,
        store: EventStore,
        load_model: Callable[[str, str], Model],
        *,
        token: str,
        online: Callable[[Campaign], Online | None] = lambda campaign: None,
        roll_back: Callable[[str], str] | None = None,
    ) -> None:
        self.store, self.token = store, token
        self._load_model, self._online, self._roll_back = load_model, online, roll_back
        self._deployed: dict[str, Deployed] = {}
        self._faults: dict[str, str] = {}
        self._batcher: Batcher[Job, list[Decision]] = Batcher(
            self._decide, batch=BATCH, waiting=WAITING
        )

    def configure(self, versions: Mapping[str, str]) -> None:
        """Serve these campaigns at these versions.

        Everything is loaded before anything is swapped, so that a request always finds a model. Once
        something is served, a version that can't be loaded leaves the one before in place.
        :meth:`fault` tells of it.

        Raises:
            Exception: A version can't be loaded and nothing is served yet: this replica mustn't start.
        """
        deployed, faults = {}, {}
        for name, version in versions.items():
            before = self._deployed.get(name)
            try:
                same = before is not None and before.version == version
                deployed[name] = before if before and same else self._deploy(name, version)
            except Exception as error:
                if not self._deployed:
                    raise
                log.exception("campaign %s: version %s can't be served", name, version)
                faults[name] = f"version {version} can't be served: {error}"
                if before is not None:
                    deployed[name] = before
        self._deployed, self._faults = deployed, faults

    def _deploy(self, name: str, version: str) -> Deployed:
        model = self._load_model(name, version)
        self.store.register(model.campaign)
        nobody = Unit("", dict.fromkeys(model.campaign.features.names))
        assess(model, [nobody])  # a model that can't answer isn't swapped in
        require_dial(model)
        return Deployed(model, version, self._online(model.campaign))

    @property
    def campaigns(self) -> list[str]:
        return sorted(self._deployed)

    def find(self, name: str) -> Deployed:
        """The campaign as served now.

        Raises:
            Refused: 404, with those there are; 503 where it should be served and can't.
        """
        if name not in self._deployed:
            if name in self._faults:
                raise Refused(503, f"{name}: {self._faults[name]}")
            raise Refused(
                404,
                f"no campaign {name[:100]!r} is served here; there is {choices(self.campaigns)}",
            )
        return self._deployed[name]

    def decide(self, name: str, request: DecisionRequest) -> Future[list[Decision]]:
        """Decisions for the request's units, in their order; done when they are durable.

        Raises:
            Refused: 404, 422, or 503 where too much is waiting.
        """
        deployed = self.find(name)
        units = read_units(request, deployed.campaign)
        job = Job(deployed, units, request.request_id, request.body if request.request_id else "")
        try:
            return self._batcher.submit(job, len(units))
        except Full as error:
            raise Refused(503, "too many requests are waiting; try again in a second") from error

    def record_outcomes(self, records: Sequence[OutcomeRecord]) -> OutcomeReport:
        """As :meth:`serving.events.EventStore.record_outcomes`."""
        return self.store.record_outcomes(records)

    def roll_back(self, name: str) -> str:
        """Serve the version before, on every replica; returns it.

        Raises:
            Refused: 404 or 501.
            UpdraftError: There is no version before, or it can't be served.
        """
        self.find(name)
        if self._roll_back is None:
            raise Refused(501, "this service has no registry to roll back in")
        return self._roll_back(name)

    def fault(self, name: str) -> str | None:
        """Why the campaign isn't served as it should be, or None."""
        return self._faults.get(name)

    def close(self) -> None:
        """Finish what waits."""
        self._batcher.close()
        self.store.close()

    def _decide(self, batch: list[Pending[Job, list[Decision]]]) -> None:
        ordered = sorted(batch, key=lambda pending: pending.job.deployed.campaign.name)
        for _, group in groupby(ordered, key=lambda pending: id(pending.job.deployed)):
            waiting = list(group)
            try:
                self._decide_for(waiting[0].job.deployed, waiting)
            except UpdraftError as error:
                for pending in waiting:
                    pending.fail(error)

    def _decide_for(
        self, deployed: Deployed, batch: Sequence[Pending[Job, list[Decision]]]
    ) -> None:
        """One campaign's requests: the model is asked before the campaign is locked."""
        units = _fresh([unit for pending in batch for unit in pending.job.units], deployed)
        assessed = assess(deployed.model, units)
        with self.store.transaction(deployed.campaign.name) as writer:
            results = _choose(batch, assessed, deployed, writer)
        for pending, result in zip(batch, results):  # durable from here on
            if isinstance(result, RequestConflict):
                pending.fail(result)
            else:
                pending.future.set_result(result)


def _choose(
    batch: Sequence[Pending[Job, list[Decision]]],
    assessed: Assessed,
    deployed: Deployed,
    writer: Transaction,
) -> list[list[Decision] | RequestConflict]:
    """Decide on each request in its turn, and write all of it down."""
    now = datetime.now(UTC)
    ledger = writer.ledger_of(deployed.campaign, now)
    results: list[list[Decision] | RequestConflict] = []
    start = 0
    for pending in batch:
        job = pending.job
        rows = slice(start, start + len(job.units))
        start = rows.stop
        try:
            made = writer.find(job.request_id, job.body) if job.request_id else None
        except RequestConflict as conflict:
            results.append(conflict)
            continue
        if made is None:
            made = decide(assessed[rows], deployed.policy, ledger, now)
            ledger = ledger.plus(made)
            writer.add(made, job.request_id, job.body)
        results.append(made)
    return results


def _fresh(units: Sequence[Unit], deployed: Deployed) -> list[Unit]:
    """The units with every feature; those that weren't given are read in one go."""
    campaign, online = deployed.campaign, deployed.online
    names = campaign.features.names
    lacking = [unit.unit_id for unit in units if any(name not in unit.features for name in names)]
    known: dict[str, dict[str, Feature]] = {}
    if lacking and online is not None:
        ids = list(dict.fromkeys(lacking))
        try:
            columns = online(ids)
        except Exception as error:
            raise EnvironmentProblem(
                f"campaign {campaign.name!r}: the feature store can't be read ({error}); "
                "give every feature in the request, or try again"
            ) from error
        values = {name: list(_plain(columns[name])) for name in names}
        known = {unit: {name: values[name][row] for name in names} for row, unit in enumerate(ids)}
    return [complete(unit, campaign, known.get(unit.unit_id, {})) for unit in units]


def _plain(column: Any) -> Iterable[Feature]:
    """Values as they are logged: numbers, words, None."""
    for value in np.asarray(column).tolist():
        yield None if value is None or value != value else value
