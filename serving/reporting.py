"""The page of a run: a contest, and everything that it rests on; and that of a judgement alone."""

from __future__ import annotations

from pathlib import Path

from models.checks.covariates import CovariateCheck
from models.checks.drift import DriftVerdict
from models.checks.srm import SampleRatio
from models.gate import paired_gain
from models.report import (
    CampaignFacts,
    EstimatorRow,
    PolicyRow,
    RunReport,
    parts_densities,
    render,
)
from models.report.data import read_as
from models.uplift_evaluation import UpliftEvaluation
from serving.contest import Contest
from serving.evaluation import NOBODY, PolicyScore
from serving.judgement import Judgement

DRIFT_PAGE = "drift.html"  # beside the report, in the run's folder and in the registry


def write_report(contest: Contest, path: Path, *, run: str) -> None:
    """Write a contest's report.

    Args:
        contest: A finished one.
        path: Of the HTML file.
        run: The run's name.
    """
    rows, model = contest.log.rows, contest.model
    nobody = next(score for score in contest.scores if score.name == NOBODY)
    evidence = contest.evidence
    covariates = evidence.sample_ratio.get("covariates")
    first, last = rows["decided_at"].min(), rows["decided_at"].max()
    facts = {
        "run": run,
        "net": model.name,
        "held-out rows": f"{len(rows):,}",
        "their period": f"{first:%Y-%m-%d} to {last:%Y-%m-%d}",
        "champion before": f"version {contest.champion}" if contest.champion else "none",
        "price of a unit of cost": f"{model.price:.3f}",
    }
    report = RunReport(
        campaign=CampaignFacts.of(contest.campaign),
        run={label: text for label, text in facts.items() if text},
        policies=[_row(score, nobody, contest) for score in contest.scores],
        budget_per_unit=contest.log.budget_per_unit,
        verdict=contest.verdict,
        evaluation=read_as(UpliftEvaluation, evidence.evaluation),
        parts=parts_densities(model, rows),
        sample_ratio=read_as(SampleRatio, evidence.sample_ratio),
        covariates=read_as(CovariateCheck, covariates) if covariates else None,
        drift=read_as(DriftVerdict, evidence.drift),
        drift_link=DRIFT_PAGE,
        notes=[contest.note] if contest.note else [],
    )
    render(report, path)


def _row(score: PolicyScore, nobody: PolicyScore, contest: Contest) -> PolicyRow:
    confidence = score.value.confidence
    return PolicyRow(
        name=score.name,
        value=score.value,
        cost=score.cost,
        mix=[float(share) for share in score.mix],
        gain=None
        if score is nobody
        else paired_gain(score.contributions, nobody.contributions, confidence),
        truth=contest.truth.get(score.name),
        warning=score.warning,
    )


def write_judgement(judgement: Judgement, path: Path) -> None:
    """Write what was found of a model or of scores.

    Args:
        judgement: What was found.
        path: Of the HTML file.
    """
    rows = judgement.log.rows
    first, last = rows["decided_at"].min(), rows["decided_at"].max()
    facts = {
        "judged": judgement.judged,
        "rows": f"{judgement.evaluation.rows:,}",
        "their period": f"{first:%Y-%m-%d} to {last:%Y-%m-%d}",
    }
    report = RunReport(
        campaign=CampaignFacts.of(judgement.campaign),
        run=facts,
        policies=[
            PolicyRow(
                name=score.name,
                value=score.value,
                cost=score.cost,
                mix=score.mix.tolist(),
                gain=judgement.gain(score),
                warning=score.warning,
            )
            for score in judgement.policies
        ],
        estimators=[
            EstimatorRow(each.name, each.value, each.warning) for each in judgement.estimates
        ],
        budget_per_unit=judgement.log.budget_per_unit,
        evaluation=judgement.evaluation,
        notes=judgement.notes,
        held_out=judgement.evaluation.held_out,
    )
    render(report, path)
