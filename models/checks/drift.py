"""Drift: do today's units look like those that the model learned from? Measured by Evidently.

Every feature is compared by the campaign's method. Methods for numbers only have a sister of the same
kind for categories: ``wasserstein`` jensenshannon, ``ks`` (p-values: below the threshold is drift)
chisquare. A missing value of a category counts as a category; missing numbers, which Evidently drops,
are compared as a column of their own, '<feature> is missing', and a feature drifts if either does.
"""

from __future__ import annotations

import os
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from campaigns.errors import DataError
from campaigns.frame_file import FrameFile
from campaigns.settings import QUIET
from campaigns.spec import Campaign

MAX_ROWS = 20_000  # a second or two, and PSI's own noise is below 0.01
FEWEST_ROWS = 200  # below it, noise alone looks like drift
MISSING = "(missing)"
FOR_CATEGORIES = {"wasserstein": "jensenshannon", "ks": "chisquare"}
PROJECTS = uuid.UUID("8f1c2f4e-2f0b-5b0e-9a63-5d5f1c0e7a11")  # namespace of the projects' ids


@dataclass(frozen=True)
class DriftVerdict:
    """What was found; all of it goes into JSON.

    Attributes:
        drifted: The share of drifted features is at least the campaign's.
        share: Share of the features that drifted, 0 to 1.
        columns: Score of every column that was compared; None where it can't tell anything.
        drifted_features: Names of those that drifted.
        method, threshold, share_threshold: The campaign's.
        rows: Rows compared of reference and current, after sampling.
        periods: First and last decision of reference and current.
        outcomes: Mean of each outcome where it was observed, (reference, current); None: nowhere.
        note: Why the verdict is not to be relied on, or None.
    """

    drifted: bool
    share: float
    columns: dict[str, float | None]
    drifted_features: list[str]
    method: str
    threshold: float
    share_threshold: float
    rows: tuple[int, int]
    periods: tuple[tuple[str, str], tuple[str, str]]
    outcomes: dict[str, tuple[float | None, float | None]]
    note: str | None = None

    @property
    def summary(self) -> str:
        """The verdict in a sentence."""
        hit = self.drifted_features
        some = ", ".join(hit[:5]) + (f" and {len(hit) - 5} more" if len(hit) > 5 else "")
        found = (
            f"{self.share:.0%} of the features drifted ({some})" if hit else "no feature drifted"
        )
        data = "the data has drifted" if self.drifted else "the data has not drifted"
        return f"{found}: {data}" + (f" ({self.note})" if self.note else "")


def drift_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    campaign: Campaign,
    html_path: Path,
    *,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    workspace: Path | None = None,
    features: FrameFile | None = None,
) -> DriftVerdict:
    """Compare two decision frames, write Evidently's report, and say what it means.

    Args:
        reference: Decisions that the model learned from.
        current: Decisions of today.
        campaign: Its features, with ``'*'`` expanded, and its ``drift`` part.
        html_path: Where the report goes (one file of about 4 MB that needs no network).
        max_rows: Rows drawn of each frame (seeded); more than 100,000 gains nothing.
        seed: Of the draw.
        workspace: An Evidently workspace to add the run to, for ``evidently ui``.
        features: Where the features of the rows that are drawn are read, by the frames' index; None: they
            are in the frames.

    Raises:
        DataError: A frame has no rows, or lacks a feature.
    """
    snapshot, verdict = compare(
        reference, current, campaign, max_rows=max_rows, seed=seed, features=features
    )
    html_path.parent.mkdir(parents=True, exist_ok=True)
    snapshot.save_html(str(html_path))
    if workspace is not None:
        add_to_workspace(snapshot, campaign, workspace)
    return verdict


def compare(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    campaign: Campaign,
    *,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    features: FrameFile | None = None,
) -> tuple[Any, DriftVerdict]:
    """As :func:`drift_report`, without files: Evidently's snapshot and the verdict."""
    frames = [
        _sample(frame, campaign, name, max_rows, seed, features)
        for name, frame in (("reference", reference), ("current", current))
    ]
    tables = _tables(frames, campaign)
    snapshot, columns, drifted = _run(tables, campaign, current["decided_at"].max())
    names = campaign.features.names
    hit = [name for name in names if name in drifted or _missing_name(name) in drifted]
    share = len(hit) / len(names)
    rows = (len(frames[0]), len(frames[1]))
    few = min(rows) < FEWEST_ROWS
    return snapshot, DriftVerdict(
        drifted=bool(hit) and share >= campaign.drift.share and not few,
        share=share,
        columns=columns,
        drifted_features=hit,
        method=campaign.drift.features,
        threshold=campaign.drift.threshold,
        share_threshold=campaign.drift.share,
        rows=rows,
        periods=(_period(reference), _period(current)),
        outcomes={
            name: (_mean(reference, name), _mean(current, name)) for name in campaign.outcomes
        },
        note=f"only {min(rows)} rows: {FEWEST_ROWS} are needed to tell drift from noise"
        if few
        else None,
    )


def add_to_workspace(snapshot: Any, campaign: Campaign, folder: Path) -> None:
    """Add a run to an Evidently workspace, one project a campaign (``evidently ui --workspace``)."""
    from evidently.sdk.models import PanelMetric
    from evidently.sdk.panels import line_plot_panel
    from evidently.ui.workspace import ProjectModel, Workspace

    workspace = Workspace.create(str(folder))
    project_id = uuid.uuid5(
        PROJECTS, campaign.name
    )  # the same project whichever process comes first
    project = workspace.get_project(project_id)
    if project is None:
        model = ProjectModel(id=project_id, name=campaign.name, description=campaign.description)
        project = workspace.add_project(model)
        share = PanelMetric(
            metric="DriftedColumnsCount", metric_labels={"value_type": "share"}, legend="share"
        )
        project.dashboard.add_panel(line_plot_panel("Share of columns that drifted", [share]))
        scores = [
            PanelMetric(metric="ValueDrift", metric_labels={"column": name}, legend=name)
            for name in campaign.features.names
        ]
        title = f"Drift of each feature ({campaign.drift.features})"
        project.dashboard.add_panel(line_plot_panel(title, scores))
    workspace.add_run(project_id, snapshot)


def _sample(
    frame: pd.DataFrame,
    campaign: Campaign,
    name: str,
    rows: int,
    seed: int,
    file: FrameFile | None,
) -> pd.DataFrame:
    features = campaign.features.names
    if frame.empty:
        raise DataError(f"drift: the {name} frame has no rows; give decisions of both periods")
    if file is None and (absent := [each for each in features if each not in frame.columns]):
        raise DataError(
            f"drift: the {name} frame has no column '{absent[0]}', a feature of the campaign"
        )
    part = frame.sample(rows, random_state=seed) if len(frame) > rows else frame
    if file is not None:
        part = part[["decided_at"]].join(file.take(part.index.to_numpy(), features))
    return part.sort_values("decided_at", kind="stable")[features]  # the report plots rows in order


def _tables(frames: list[pd.DataFrame], campaign: Campaign) -> list[pd.DataFrame]:
    """What Evidently compares: numbers, texts, and whether a number was missing."""
    tables: list[dict[str, Any]] = [{}, {}]
    for name in campaign.features.numeric:
        values = [frame[name].to_numpy(np.float64, na_value=np.nan) for frame in frames]
        missing = [np.isnan(value) for value in values]
        if not any(gone.all() for gone in missing):
            _put(tables, name, values)
        if any(gone.any() for gone in missing):
            _put(tables, _missing_name(name), [np.where(gone, "yes", "no") for gone in missing])
    for name in campaign.features.categorical:
        given = [frame[name] for frame in frames]
        _put(tables, name, [column.astype(str).where(column.notna(), MISSING) for column in given])
    return [pd.DataFrame({name: np.asarray(v) for name, v in table.items()}) for table in tables]


def _put(tables: list[dict[str, Any]], name: str, values: list[Any]) -> None:
    for table, value in zip(tables, values):
        table[name] = value


def _run(
    tables: list[pd.DataFrame], campaign: Campaign, at: pd.Timestamp
) -> tuple[Any, dict[str, float | None], set[str]]:
    """Evidently's snapshot, each column's score, and the columns that its tests say drifted."""
    os.environ.update(QUIET)  # no telemetry; before the import, which takes 6 seconds
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import DriftedColumnsCount, ValueDrift

    drift = campaign.drift
    numeric = [name for name in tables[0] if tables[0][name].dtype.kind == "f"]
    words = [name for name in tables[0] if name not in numeric]
    for_words = FOR_CATEGORIES.get(drift.features, drift.features)
    methods = dict.fromkeys(numeric, drift.features) | dict.fromkeys(words, for_words)
    metrics = {
        name: ValueDrift(column=name, method=method, threshold=drift.threshold)
        for name, method in methods.items()
    }
    count = DriftedColumnsCount(
        columns=list(methods),
        num_method=drift.features,
        cat_method=for_words,
        threshold=drift.threshold,
        drift_share=drift.share,
    )
    report = Report(
        [count, *metrics.values()],
        metadata={"campaign": campaign.name, "campaign_hash": campaign.hash},
        include_tests=True,
    )
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=words)
    reference, current = (Dataset.from_pandas(t, data_definition=definition) for t in tables)
    name = f"until {at:%Y-%m-%d %H:%M}"
    with warnings.catch_warnings():  # a constant column divides 0 by 0 inside
        warnings.simplefilter("ignore")
        snapshot = report.run(current, reference, timestamp=at.to_pydatetime(), name=name)
    results = {name: snapshot.metric_results[metric.metric_id] for name, metric in metrics.items()}
    scores = {name: float(result.value) for name, result in results.items()}
    drifted = {name for name, r in results.items() if any(t.status == "FAIL" for t in r.tests)}
    return snapshot, {n: None if np.isnan(score) else score for n, score in scores.items()}, drifted


def _missing_name(feature: str) -> str:
    return f"{feature} is missing"


def _period(frame: pd.DataFrame) -> tuple[str, str]:
    times = frame["decided_at"]
    return times.min().isoformat(), times.max().isoformat()


def _mean(frame: pd.DataFrame, outcome: str) -> float | None:
    mean = frame[outcome].mean() if outcome in frame.columns else np.nan
    return None if np.isnan(mean) else float(mean)
