"""From a :class:`RunReport` to one self-contained HTML file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.metrics.intervals import Interval
from models.report import figures
from models.report.data import PolicyRow, RunReport

if TYPE_CHECKING:
    import jinja2

MOST_CONTRASTS = 12  # charts are drawn for; the table has them all
TEMPLATE = "report.html.j2"
METRIC_NAMES = {
    "ate": "Average effect",
    "qini": "Qini",
    "qini_perfect": "Qini, normalized",
    "auuc": "AUUC",
    "aucc": "AUCC",
    "lift@30": "LIFT@30",
    "calibration_error": "Calibration error",
}


@dataclass(frozen=True)
class Contrast:
    """One arm against control for one outcome, with its charts and calibration error."""

    arm: str
    outcome: str
    charts: list[str]
    off_by: Interval | None = None


def render(report: RunReport, path: Path) -> None:
    """Write the report as one HTML file: no scripts, no fonts, nothing that is fetched.

    Args:
        report: What is known; parts that are missing are left out.
        path: Of the file; its folder is made if it is missing.
    """
    html = (
        environment()
        .get_template(TEMPLATE)
        .render(
            r=report,
            policies=report.policies,
            forest=_forest(report.policies),
            mixes=_mixes(report),
            policy_curve=_policy_curve(report),
            metrics=_metrics(report),
            contrasts=_contrasts(report),
            more_contrasts=_contrast_count(report) - MOST_CONTRASTS,
            parts=[figures.parts(density) for density in report.parts if _tells(density)],
            part_colours=_part_colours(report),
            drift=_drift(report),
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def environment() -> jinja2.Environment:
    """Where templates lie, and the filters that they use."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {
        "number": number,
        "odds": odds,
        "interval": interval,
        "share": share,
        "p": p_value,
        "metric": lambda name: METRIC_NAMES.get(name, name),
    }
    made.tests["clear"] = lambda each: not (each.low <= 0 <= each.high)
    return made


def number(value: float | None, signed: bool = False) -> str:
    """Three significant digits as people write them; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    sign = "+" if signed else ""
    size = abs(value)
    if size >= 100:
        text = f"{value:{sign},.0f}"
    else:
        text = f"{value:{sign}.{min(max(2 - math.floor(math.log10(size)), 0), 6)}f}"
    return text.replace("-", "−")


def interval(each: Interval, signed: bool = False) -> str:
    """``0.12 [0.08, 0.16]``, with as many decimals as tell the ends apart."""
    if math.isnan(each.estimate):
        return "–"
    if math.isnan(each.low) or each.high <= each.low:
        return number(each.estimate, signed)
    decimals = min(max(1 - math.floor(math.log10(each.high - each.low)), 0), 6)
    sign = "+" if signed else ""
    parts = [f"{value:{sign},.{decimals}f}" for value in (each.estimate, each.low, each.high)]
    return f"{parts[0]} [{parts[1]}, {parts[2]}]".replace("-", "−")


def odds(ratio: float) -> str:
    """An odds or risk ratio."""
    return "–" if math.isnan(ratio) else f"{ratio:,.2f}".replace("inf", "∞")


def share(value: float) -> str:
    """A share in percent."""
    return f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}"


def p_value(value: float) -> str:
    """A p-value."""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _forest(policies: list[PolicyRow]) -> str:
    """Gains over treating nobody where they are known, else values."""
    known = [(row, row.gain) for row in policies if row.gain is not None]
    if known:
        rows, label = known, "gain over treating nobody, per unit"
        idle = [row.truth for row in policies if row.gain is None or row.gain.low == row.gain.high]
        base = idle[0] if idle and idle[0] is not None else None
    else:
        rows, label, base = [(row, row.value) for row in policies], "value per unit", 0.0
    if not rows:
        return ""
    truths = [None if row.truth is None or base is None else row.truth - base for row, _ in rows]
    names = [row.name for row, _ in rows]
    return figures.forest(names, [each for _, each in rows], truths, label)


def _policy_curve(report: RunReport) -> str:
    points = report.evaluation.policy if report.evaluation else None
    return figures.policy_curve(points, report.budget_per_unit) if points else ""


def _mixes(report: RunReport) -> dict[str, list[tuple[str, float, str]]]:
    """By policy: each arm it gives, how often, and its colour."""
    return {
        row.name: [
            (arm, part, figures.arm_colour(place))
            for place, (arm, part) in enumerate(zip(report.campaign.arms, row.mix))
        ]
        for row in report.policies
    }


def _metrics(report: RunReport) -> dict[str, Any]:
    """The table of metrics: one column a metric, one line a contrast."""
    if report.evaluation is None:
        return {"names": {}, "lines": []}
    names: dict[str, str] = {}
    lines: dict[tuple[str, str], dict[str, Interval]] = {}
    for row in report.evaluation.table:
        names[row.metric] = row.convention
        lines.setdefault((row.arm, row.outcome), {})[row.metric] = row.interval
    return {
        "names": names,
        "lines": [(arm, outcome, cells) for (arm, outcome), cells in lines.items()],
    }


def _contrasts(report: RunReport) -> list[Contrast]:
    if report.evaluation is None:
        return []
    charts: dict[tuple[str, str], list[str]] = {}
    for band in report.evaluation.bands:
        key = band.arm, band.outcome
        if key not in charts and len(charts) == MOST_CONTRASTS:
            continue
        drawable = any(band.y) and all(map(math.isfinite, band.y))
        charts.setdefault(key, []).extend([figures.curve(band)] if drawable else [])
    for deciles in report.evaluation.deciles:
        if deciles.predicted and (deciles.arm, deciles.outcome) in charts:
            charts[deciles.arm, deciles.outcome].append(figures.calibration(deciles))
    off_by = {
        (row.arm, row.outcome): row.interval
        for row in report.evaluation.table
        if row.metric == "calibration_error"
    }
    return [Contrast(*key, drawn, off_by.get(key)) for key, drawn in charts.items()]


def _contrast_count(report: RunReport) -> int:
    return (
        len({(band.arm, band.outcome) for band in report.evaluation.bands})
        if report.evaluation
        else 0
    )


def _tells(density: Any) -> bool:
    """Increments of a single treatment are all 0: there is nothing to show."""
    return any(max(map(abs, one.x)) > 1e-5 for one in density.incremental.values())


def _part_colours(report: RunReport) -> list[tuple[str, str]]:
    """What each colour of the parts' charts is."""
    arms = list(report.campaign.arms)[1:]
    added = [(f"{arm} on top", figures.arm_colour(i)) for i, arm in enumerate(arms, start=1)]
    return [("base: any treatment", figures.ARM_COLOURS[0]), *added]


def _drift(report: RunReport) -> list[dict[str, Any]]:
    """Columns by how far they moved; p-values the other way round."""
    if report.drift is None:
        return []
    verdict = report.drift
    by_p_value = verdict.method == "ks"
    rows = []
    for name, score in verdict.columns.items():
        drifted = score is not None and (
            score < verdict.threshold if by_p_value else score >= verdict.threshold
        )
        rows.append({"name": name, "score": score, "drifted": drifted})
    worst = math.inf if by_p_value else -math.inf
    return sorted(
        rows,
        key=lambda row: (
            (row["score"] if row["score"] is not None else worst) * (1 if by_p_value else -1)
        ),
    )
