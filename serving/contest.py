"""Challenger against champion on the same held-out rows, with everything that the decision rests on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from campaigns.frame_file import FrameFile
from campaigns.settings import Settings
from campaigns.spec import Campaign, SimulatorSource
from campaigns.worlds import world
from models.gate import Verdict, decide
from models.registry import Registry
from models.uplift_model import UpliftModel
from serving.evaluation import (
    NOBODY,
    HeldOut,
    PolicyScore,
    constant_policies,
    held_out,
    model_policy,
)
from serving.online_prices import online_dial, online_prices

CHALLENGER, CHAMPION = "challenger", "champion"


@dataclass(frozen=True)
class Evidence:
    """What earlier steps found, as they wrote it."""

    evaluation: dict[str, Any]
    sample_ratio: dict[str, Any]
    drift: dict[str, Any]

    @classmethod
    def read(cls, *, evaluation: Path, validation: Path, drift: Path) -> Evidence:
        """Read the steps' JSON files."""
        texts = (evaluation, validation, drift)
        return cls(*(json.loads(path.read_text(encoding="utf-8")) for path in texts))


@dataclass(frozen=True)
class Contest:
    """A finished contest.

    Attributes:
        campaign: What it was about.
        model: The challenger, with the price that it would be served at.
        champion: The champion's version, or None.
        scores: Every policy, the constant ones first.
        truth: What each policy truly earns per unit, where the campaign is simulated.
        verdict: The gate's.
        log: The rows that it was held on.
        evidence: What else is known.
    """

    campaign: Campaign
    model: UpliftModel
    champion: str | None
    scores: list[PolicyScore]
    truth: dict[str, float]
    verdict: Verdict
    log: HeldOut
    evidence: Evidence
    note: str = ""
    settings: Settings = field(default_factory=Settings)

    @property
    def promote(self) -> bool:
        return self.verdict.promote

    @property
    def reason(self) -> str:
        return f"{self.note}{self.verdict.reason}"

    def register(self, folder: Path, files: Mapping[str, Path]) -> str:
        """Put the challenger into the registry, with its metrics and reports; returns its version."""
        self.model.save(folder)
        metrics = {f"value.{score.name}": score.value.estimate for score in self.scores}
        metrics |= {"gain": self.verdict.gain.estimate, "gain_low": self.verdict.gain.low}
        for row in self.evidence.evaluation["table"]:
            estimate = row["interval"]["estimate"]
            if np.isfinite(estimate):
                name = row["metric"].replace("@", "_at_")
                metrics[f"{name}.{row['arm']}.{row['outcome']}"] = estimate
        return Registry(self.settings).register(self.model, folder, metrics, files)

    def to_dict(self, version: str | None = None) -> dict[str, Any]:
        """Everything that a summary shows, JSON-able."""
        return {
            "campaign": self.campaign.name,
            "campaign_hash": self.campaign.hash,
            "version": version,
            "champion": self.champion,
            "promote": self.promote,
            "deciding": CHALLENGER if self.promote else (CHAMPION if self.champion else NOBODY),
            "reason": self.reason,
            "gain": asdict(self.verdict.gain),
            "rows": len(self.log.rows),
            "budget_per_unit": self.log.budget_per_unit,
            "price": self.model.price,
            "policies": [self._policy(score) for score in self.scores],
            "sample_ratio": self.evidence.sample_ratio,
            "drift": self.evidence.drift,
        }

    def _policy(self, score: PolicyScore) -> dict[str, Any]:
        names = self.campaign.arm_table.names
        return {
            "name": score.name,
            "value": score.value.estimate,
            "low": score.value.low,
            "high": score.value.high,
            "confidence": score.value.confidence,
            "cost": score.cost,
            "mix": {arm: float(share) for arm, share in zip(names, score.mix)},
            "truth": self.truth.get(score.name),
            "warning": score.warning,
        }


def contest(
    folder: Path,
    file: FrameFile,
    campaign: Campaign,
    evidence: Evidence,
    settings: Settings,
    *,
    seed: int = 0,
) -> Contest:
    """Judge the challenger in ``folder`` against the champion, or against treating nobody.

    Args:
        folder: A saved :class:`UpliftModel`.
        file: The decision frame.
        campaign: With features spelled out.
        evidence: What earlier steps found.
        settings: Where the registry is.
        seed: Of the cross-fitted outcome model.
    """
    frame = file.without_features()
    log = held_out(frame, campaign, seed=seed, features=file)
    scores = constant_policies(log, frame, campaign)
    registry = Registry(settings)
    champion = registry.version_of(campaign.name, CHAMPION)
    note, rival = "", None
    if champion is not None:
        ruling = registry.load(campaign.name, champion)
        if _comparable(ruling, campaign):
            rival = model_policy(CHAMPION, ruling.predict(log.rows), log, campaign)
            scores.append(rival)
        else:
            note = (
                f"champion v{champion} answers for other arms or outcomes and can't be compared; "
            )
    challenger = UpliftModel.load(folder)
    predicted = challenger.predict(log.rows)
    mine = model_policy(CHALLENGER, predicted, log, campaign)
    scores.append(mine)
    nobody = next(score for score in scores if score.name == NOBODY)
    verdict = decide(
        mine.contributions,
        None if rival is None else rival.contributions,
        campaign.gate,
        nobody=nobody.contributions,
        champion_name=f"champion v{champion}",
    )
    challenger.price, challenger.limit_prices = online_prices(
        predicted, log, campaign, frame["decided_at"]
    )
    if campaign.exploration.asks_members:
        members = challenger.predict_members(log.rows)
        challenger.dial = online_dial(
            members, challenger.price, challenger.limit_prices, log, campaign
        )
    challenger.meta |= {
        "rows": str(len(frame)),
        "learned_until": frame["decided_at"].max().isoformat(),
        "data_hash": _data_hash(file.pieces()),
    }
    return Contest(
        campaign=campaign,
        model=challenger,
        champion=champion,
        scores=scores,
        truth=_truth(scores, log, campaign),
        verdict=verdict,
        log=log,
        evidence=evidence,
        note=note,
        settings=settings,
    )


def _data_hash(pieces: Iterable[pd.DataFrame]) -> str:
    """Twelve hex digits that change with any value, column or row of a frame that comes in pieces."""
    found, names = hashlib.blake2b(digest_size=6), ""
    for piece in pieces:
        found.update(pd.util.hash_pandas_object(piece, index=False).to_numpy().tobytes())
        names = ",".join(piece.columns)
    found.update(names.encode())
    return found.hexdigest()


def _comparable(champion: UpliftModel, campaign: Campaign) -> bool:
    """Both answer the same question: same arms, same outcomes, features that are there."""
    theirs = champion.campaign
    return (
        theirs.arm_table.names == campaign.arm_table.names
        and list(theirs.outcomes) == list(campaign.outcomes)
        and set(theirs.features.names) <= set(campaign.features.names)
    )


def _truth(scores: list[PolicyScore], log: HeldOut, campaign: Campaign) -> dict[str, float]:
    """Each policy's true value per unit on the held-out rows, where the world is known and still."""
    source = campaign.source
    if not isinstance(source, SimulatorSource) or any(source.options.values()):
        return {}
    simulated = world(source.world, **source.options)
    columns = [simulated.outcomes.index(name) for name in campaign.outcomes]
    expected = simulated.truth(log.rows)[:, :, columns] @ campaign.values
    net = expected - campaign.budget.min_return * log.costs
    return {score.name: float((score.policy * net).sum(axis=1).mean()) for score in scores}
