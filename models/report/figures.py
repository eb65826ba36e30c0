"""The page's charts as inline SVG: Okabe and Ito's colours, text as text, nothing from elsewhere."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.metrics.intervals import Interval
from models.policy_points import PolicyPoints
from models.report.data import PartsDensity
from models.uplift_deciles import Deciles
from models.uplift_evaluation import Band

INK, MUTED, GRID = "#1b1f24", "#666f7a", "#d9dde2"
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9",
)  # fmt: skip
ARM_COLOURS = ("#9AA3AD", BLUE, ORANGE, GREEN, PURPLE, SKY, RED, "#8C6D1F", "#5B4B8A", "#2F5D50")
SMALL = (2.9, 2.3)  # inches; drawn 250 to 420 pixels wide
WIDE = (3.8, 2.4)
MAP_POINTS = 121  # a drawn map's
FONT = "DejaVu Sans"  # what texts are measured in; the page asks for the reader's own
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "updraft",
    "font.family": "sans-serif",
    "font.sans-serif": [FONT],
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "figure.facecolor": "white",
}
CURVES = {  # kind of band: what is up, what is across
    "uplift": ("Uplift per unit", "share of units treated"),
    "qini": ("Extra outcomes per unit (Qini)", "share of units treated"),
    "cost": ("Share of the value", "share of the cost"),
}


def arm_colour(index: int) -> str:
    """Of an arm, control (0) in grey."""
    return ARM_COLOURS[0] if index == 0 else ARM_COLOURS[1 + (index - 1) % (len(ARM_COLOURS) - 1)]


def curve(band: Band) -> str:
    """A curve with its bootstrap band, and the line of a random order."""
    title, across = CURVES[band.kind]
    with _figure(f"{title}: {band.arm}, {band.outcome}") as chart:
        axes = chart.axes
        axes.plot([0, 1], [0, band.y[-1]], color=MUTED, lw=1, ls="--")
        axes.fill_between(band.x, band.low, band.high, color=BLUE, alpha=0.18, lw=0)
        axes.plot(band.x, band.y, color=BLUE, lw=1.8)
        axes.set(title=title, xlabel=across, xlim=(0, 1))
        axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        if band.kind == "cost":
            axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    return chart.svg


def policy_curve(points: PolicyPoints, budget: float | None) -> str:
    """What a greedy spend buys, with its band; a budget within it as a line."""
    with _figure("Value by cost of the greedy policy", WIDE, 0.15) as chart:
        axes = chart.axes
        ends = [0, points.cost[-1]], [0, points.value[-1]]
        axes.plot(*ends, color=MUTED, lw=1, ls="--")
        axes.fill_between(points.cost, points.low, points.high, color=BLUE, alpha=0.18, lw=0)
        axes.plot(points.cost, points.value, color=BLUE, lw=1.8)
        if budget is not None and budget <= points.cost[-1]:
            axes.axvline(budget, color=ORANGE, lw=1.2)
        axes.set(title="Extra value per unit", xlabel="cost per unit", xlim=(0, points.cost[-1]))
    return chart.svg


def calibration(deciles: Deciles) -> str:
    """Observed against predicted uplift, a tenth of the units a point, and the isotonic map."""
    x, y = np.array(deciles.predicted), np.array(deciles.observed)
    errors = [y - np.array(deciles.low), np.array(deciles.high) - y]
    along = np.linspace(x.min(), x.max(), MAP_POINTS)  # beyond the tenths' means few units lie
    with _figure(f"Observed against predicted uplift: {deciles.arm}, {deciles.outcome}") as chart:
        axes = chart.axes
        axes.plot([x.min(), x.max()], [x.min(), x.max()], color=MUTED, lw=1, ls="--")
        axes.axhline(0, color=MUTED, lw=0.6)
        axes.errorbar(x, y, yerr=errors, fmt="o", color=BLUE, ms=4, lw=1.2)
        if deciles.map_from:
            limits = axes.get_ylim()  # the map's ends rest on few units, and may lie far out
            mapped = np.interp(along, deciles.map_from, deciles.map_to)
            axes.plot(along, mapped, color=ORANGE, lw=1.5, zorder=1.5)
            axes.set_ylim(limits)
        axes.set(title="Observed uplift, by tenths", xlabel="predicted uplift")
    return chart.svg


def parts(density: PartsDensity) -> str:
    """The base effect's distribution, and each arm's increment."""
    base, added = density.base, density.incremental
    with _figure(f"Base and incremental effects: {density.outcome}", WIDE, 0.05) as chart:
        axes = chart.axes
        heights = _to_one(base.y)
        axes.fill_between(base.x, heights, step="mid", color=ARM_COLOURS[0], alpha=0.45, lw=0)
        for place, one in enumerate(added.values(), start=1):
            axes.step(one.x, _to_one(one.y), where="mid", color=arm_colour(place), lw=1.5)
        axes.axvline(0, color=MUTED, lw=0.8)
        axes.set(title=density.outcome, xlabel="effect on a unit", yticks=[], ylim=(0, 1.05))
    return chart.svg


def forest(
    names: Sequence[str], intervals: Sequence[Interval], truths: Sequence[float | None], label: str
) -> str:
    """Policies' values with their intervals, one under the other; the truth as a diamond."""
    size = (4.6, 0.7 + 0.32 * len(names))
    with _figure(label, size, left=0.06 + 0.016 * max(map(len, names))) as chart:
        axes = chart.axes
        places = list(range(len(names)))[::-1]
        for place, each, truth in zip(places, intervals, truths):
            colour = BLUE if place == 0 else INK
            axes.plot([each.low, each.high], [place, place], color=colour, lw=2)
            axes.plot(each.estimate, place, "o", color=colour, ms=5)
            if truth is not None:
                axes.plot(truth, place, "D", mfc="white", mec=RED, mew=1.3, ms=5)
        axes.axvline(0, color=MUTED, lw=0.8)
        axes.set(yticks=places, yticklabels=names, xlabel=label, ylim=(-0.6, len(names) - 0.4))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0, colors=INK)
    return chart.svg


def _to_one(heights: Sequence[float]) -> np.ndarray:
    """Scaled to a peak of 1: the shapes are to be compared, and a narrow one is tall."""
    return np.asarray(heights) / max(heights)


class _Chart:
    """A figure under way, and its SVG once it is done."""

    def __init__(self, size: tuple[float, float], left: float) -> None:
        self.figure = Figure(figsize=size)
        # Fixed margins: a layout engine would draw every chart several times.
        bottom, top = 0.46 / size[1], 1 - 0.26 / size[1]
        self.figure.subplots_adjust(left=left, right=0.93, bottom=bottom, top=top)
        self.axes: Axes = self.figure.add_subplot()
        self.axes.locator_params(nbins=5)
        self.svg = ""


@contextmanager
def _figure(title: str, size: tuple[float, float] = SMALL, left: float = 0.19) -> Iterator[_Chart]:
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a name in letters that our font lacks: the reader's has them
        chart = _Chart(size, left)
        yield chart
        out = io.StringIO()
        chart.figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    chart.svg = _inline(out.getvalue(), title)


def _inline(svg: str, title: str) -> str:
    """The SVG element alone, as wide as its place allows, with its title for screen readers."""
    element = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="[^"]+"', element)
    body = re.sub(r"<metadata>.*?</metadata>", "", element[element.index(">") + 1 :], flags=re.S)
    body = re.sub(r'<g id="[^"]+">', "<g>", body)  # the same ids would come with every chart
    body = body.replace(f"'{FONT}'", "system-ui, sans-serif")
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    start = f'<svg {names} {box[0] if box else ""} role="img" aria-label="{html.escape(title)}">'
    return start + re.sub(r"\n\s*", "\n", body)
