"""What the benchmarks found as Markdown: a block each, its command, machine and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.models import conversion, doses, factors, ihdp
from benchmarks.models.tables import interval, markdown

Records = Sequence[Mapping[str, Any]]


def block(name: str, report: Mapping[str, Any], command: str) -> str:
    """Everything that stands between the markers of a benchmark."""
    return "\n\n".join(
        [f"```console\n{command}\n```", f"{report['machine']}.", *TABLES[name](report)]
    )


def means(records: Records, digits: Mapping[str, int], by: str = "model") -> str:
    """A table of means with 95% t-intervals, a row for each value of ``by``; seconds without."""
    rows = []
    for name in dict.fromkeys(record[by] for record in records):
        mine = [record for record in records if record[by] == name]
        cells = [
            _cell([record[key] for record in mine if key in record], places, key)
            for key, places in digits.items()
        ]
        rows.append([str(name), *cells])
    return markdown([by, *digits], rows)


def _cell(values: Sequence[float], places: int, key: str) -> str:
    if not values:
        return ""
    return f"{np.mean(values):.{places}f}" if key == "seconds" else interval(values, places)


def measures(records: Records, *without: str) -> dict[str, int]:
    """The numbers that some record has, and the digits to tell them with; seconds come last."""
    names = dict.fromkeys(
        key
        for record in records
        for key, value in record.items()
        if key not in without and isinstance(value, float) and np.isfinite(value)
    )
    found = {key: 3 for key in names if key != "seconds"}
    return found | ({"seconds": 1} if "seconds" in names else {})


def several(records: Records, by: str, title: Callable[[Any], str]) -> list[str]:
    """A table of means for each value of ``by``."""
    found = []
    for value in dict.fromkeys(record[by] for record in records):
        here = [record for record in records if record[by] == value]
        seeds = len({record["seed"] for record in here})
        found += [f"{title(value)}, seeds: {seeds}", means(here, measures(here, by, "seed"))]
    return found


def of_decisions(report: Mapping[str, Any]) -> list[str]:
    """A table a world."""
    rows = f"{report['rows']:,} rows"
    return several(report["results"], "world", lambda world: f"World `{world}`, {rows}")


def of_ihdp(report: Mapping[str, Any]) -> list[str]:
    """One table, the published rows last."""
    results = report["results"]
    digits = {**dict.fromkeys(ihdp.MEASURES, 2), "seconds": 1}
    published = [{"model": name, **told} for name, told in report["published"].items()]
    count = len({result["replication"] for result in results})
    return [f"Replications: {count}", means([*results, *published], digits)]


def of_simultaneous(report: Mapping[str, Any]) -> list[str]:
    """A table a setting: methods by sizes."""
    results, found = report["results"], []
    for setting in dict.fromkeys(result["setting"] for result in results):
        here = [result for result in results if result["setting"] == setting]
        sizes = list(dict.fromkeys(tuple(result["size"]) for result in here))
        rows = []
        for method in dict.fromkeys(result["method"] for result in here):
            runs = {tuple(each["size"]): each["runs"] for each in here if each["method"] == method}
            cells = [interval([run["mae"] for run in runs.get(size, [])], 3) if size in runs else ""
                     for size in sizes]  # fmt: skip
            seconds = np.mean([run["seconds"] for each in runs.values() for run in each])
            rows.append([method, *cells, f"{seconds:.1f}"])
        world = "GWAS" if setting in "abc" else "copula"
        found += [
            f"Setting {setting} ({world}): mean absolute error, seeds: {report['seeds']}",
            markdown(["method", *(_size(size) for size in sizes), "seconds"], rows),
        ]
    return found


def _size(size: Sequence[int]) -> str:
    rows, treatments, covariates = size
    return f"{rows:,} rows, {treatments} T, {covariates} X"


def of_factors(report: Mapping[str, Any]) -> list[str]:
    """A table for each number of factors."""
    results, found = report["results"], []
    for count in dict.fromkeys(result["factors"] for result in results):
        here = [result for result in results if result["factors"] == count]
        seeds = len({result["seed"] for result in here})
        title = f"{count} factors of 3 levels, {report['rows']:,} rows, seeds: {seeds}"
        found += [title, means(here, factors.MEASURES)]
    return found


def of_doses(report: Mapping[str, Any]) -> list[str]:
    """A table for each number of rows."""
    results, found = report["results"], []
    for rows in dict.fromkeys(result["rows"] for result in results):
        here = [result for result in results if result["rows"] == rows]
        seeds = len({result["seed"] for result in here})
        found += [f"World `discount`, {rows:,} rows, seeds: {seeds}", means(here, doses.MEASURES)]
    return found


def of_ranking(report: Mapping[str, Any]) -> list[str]:
    """A table a data set."""
    rows = f"{report['rows']:,} rows"
    return several(report["results"], "data", lambda data: f"Data `{data}`, {rows}")


def of_conversion(report: Mapping[str, Any]) -> list[str]:
    """A table a measure, then what an epoch costs."""
    found = []
    results = report.get("quality", [])
    seeds = len({result["seed"] for result in results})
    for kind, (title, scale, digits) in conversion.KINDS.items():
        if results:
            told = [
                {"model": each["model"], "seconds": each["seconds"]}
                | {step: each[f"{kind} {step}"] * scale for step in conversion.STEPS}
                for each in results
            ]
            columns = {**dict.fromkeys(conversion.STEPS, digits), "seconds": 1}
            heading = f"{title[0].upper()}{title[1:]}, {report['rows']:,} rows, seeds: {seeds}"
            found += [heading, means(told, columns)]
    if costs := report.get("cost", []):
        counts = list(dict.fromkeys(each["fields"] for each in costs))
        rows = []
        for name in dict.fromkeys(each["model"] for each in costs):
            mine = {each["fields"]: each for each in costs if each["model"] == name}
            cells = [f"{mine[c]['seconds']:.1f} ({mine[c]['weights'] / 1e3:.0f})" for c in counts]
            rows.append([name, *cells])
        header = ["model", *(f"{count} fields" for count in counts)]
        found += ["Seconds an epoch (thousands of weights)", markdown(header, rows)]
    return found


def of_speed(report: Mapping[str, Any]) -> list[str]:
    """A table a batch size."""
    peak, found = report["product GFLOP/s"], []
    header = ["net", "rows/s", "ms", "MFLOP", "GFLOP/s", "of product", "in products", "input"]
    for batch in dict.fromkeys(result["batch"] for result in report["results"]):
        here = [result for result in report["results"] if result["batch"] == batch]
        rows = [
            [
                each["model"],
                f"{each['rows/s']:,.0f}",
                f"{each['step'] * 1e3:.1f}",
                f"{each['flops'] / 1e6:,.0f}",
                f"{each['GFLOP/s']:.1f}",
                f"{each['GFLOP/s'] / peak:.0%}",
                f"{each['products']:.0%}",
                f"{each['input']:.1%}",
            ]
            for each in here
        ]
        title = f"Batch of {batch:,}; the machine's matrix product: {peak:,.0f} GFLOP/s"
        found += [title, markdown(header, rows)]
    return found


def of_uplift(report: Mapping[str, Any]) -> list[str]:
    """A table for each data, arm and outcome."""
    results, found = report["results"], []
    for part in dict.fromkeys((one["data"], one["arm"], one["outcome"]) for one in results):
        here = [one for one in results if (one["data"], one["arm"], one["outcome"]) == part]
        seeds = len({one["seed"] for one in here})
        title = f"`{part[0]}`, arm {part[1]}, outcome {part[2]}, seeds: {seeds}"
        found += [title, means(here, measures(here, "seed", "data", "arm", "outcome"))]
    return found


def of_selection(report: Mapping[str, Any]) -> list[str]:
    """A table a world and scope: criteria by what they pick."""
    results, found = report["results"], []
    for world, scope in dict.fromkeys((line["world"], line["scope"]) for line in results):
        here = [line for line in results if (line["world"], line["scope"]) == (world, scope)]
        title = f"World `{world}`, {scope}, {report['rows']:,} rows"
        found += [title, means(here, measures(here, "seed", "world", "scope"), by="criterion")]
    return found


TABLES: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "decisions": of_decisions,
    "uplift": of_uplift,
    "selection": of_selection,
    "ihdp": of_ihdp,
    "simultaneous": of_simultaneous,
    "factors": of_factors,
    "doses": of_doses,
    "ranking": of_ranking,
    "conversion": of_conversion,
    "speed": of_speed,
}  # in the order they run
