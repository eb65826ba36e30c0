"""Runs the stages at each size, a process each, and writes what they took into the docs.

What is done is kept in the folder, a JSON file a stage, so a run that was stopped goes on where it was:
``--again`` forgets it. ``--wide`` measures 1,000,000 rows of 700 features instead of 12.

Run: ``python -m benchmarks.scale [--rows 1000000,2000000] [--wide] [--stages ...] [--peers] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, wide_console
from benchmarks.models.tables import put
from benchmarks.scale.floors import floor, rates
from benchmarks.scale.report import figure, page, show
from benchmarks.scale.stages import ALL, ONCE, STAGES, file_of
from benchmarks.scale.watch import run

ROOT = Path(__file__).resolve().parents[2]
ROWS = "1000000,2000000,4000000,8000000,14000000"
DATA = ("log.parquet", "frame.parquet")


def main() -> None:
    """Measure what isn't measured yet, then print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--rows", default=None, help=f"default: {ROWS}; wide: 1000000")
    parser.add_argument("--wide", action="store_true", help="700 features instead of 12")
    parser.add_argument(
        "--stages",
        default=None,
        help=f"of {','.join(ALL)}; default: all but pipeline, {' and '.join(ONCE)} at the first size",
    )
    parser.add_argument("--peers", action="store_true", help="also pandas, EconML, scikit-uplift")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds of a stage")
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    parser.add_argument("--keep", action="store_true", help="keep the tables themselves")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "benchmarks" / "scale")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    parser.add_argument("--figure", type=Path, default=None, help="where to draw the plot")
    parser.add_argument("--page", type=Path, default=None, help="page whose tables to replace")
    options = parser.parse_args()
    features = 700 if options.wide else 12
    sizes = [
        int(size) for size in (options.rows or ("1000000" if options.wide else ROWS)).split(",")
    ]
    console = wide_console()
    options.folder.mkdir(parents=True, exist_ok=True)
    speed = options.folder / "machine.json"
    if options.again or not speed.exists():
        speed.write_text(json.dumps(rates(options.folder)))
    for rows in sizes:
        place = options.folder / f"{rows}x{features}"
        place.mkdir(exist_ok=True)
        names = [*STAGES, *(ONCE if rows == sizes[0] and not options.wide else ())]
        names = options.stages.split(",") if options.stages else names
        names += ["peer"] if options.peers else []
        for name in names:
            if file_of(name, place).exists() and not options.again and _data(name, place, names):
                continue
            module = ["peers"] if name == "peer" else ["stages", name]
            words = [f"benchmarks.scale.{module[0]}", *module[1:]]
            told = measure(name, [*words, str(place), str(rows), str(features)], options)
            console.print(f"{rows:,} x {features} {name}: {told}", highlight=False)
        if not options.keep:
            shutil.rmtree(place / "home", ignore_errors=True)
            for table in DATA:
                (place / table).unlink(missing_ok=True)
    report = collect(options.folder)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    show(report, console)
    if options.figure:
        figure(report, options.figure)
    if options.page:
        options.page.write_text(put(options.page.read_text(), "scale", page(report)))


def measure(name: str, words: list[str], options: argparse.Namespace) -> str:
    """Run a stage and complete its file; what to say of it."""
    place = Path(words[-3])
    log = place / f"{file_of(name, place).stem}.log"
    found = run(words, options.limit, log)
    if found is None:
        file_of(name, place).unlink(missing_ok=True)
        return f"failed or took more than {options.limit:.0f} s; see {log}"
    told = json.loads(file_of(name, place).read_text())
    told["peak"] = max(told["peak"], found.peak)
    told["load"] = os.getloadavg()[0]
    told["cpu"] = found.cpu(told["began"], told["ended"])
    file_of(name, place).write_text(json.dumps(told))
    return f"{told['seconds']:.1f} s, CPU {told['cpu']:.1f} s, {told['peak'] / 2**30:.2f} GiB"


def collect(folder: Path) -> dict[str, Any]:
    """All that was ever measured in the folder."""
    speed = json.loads((folder / "machine.json").read_text())
    results = []
    for place in folder.glob("*x*"):
        rows, features = map(int, place.name.split("x"))
        for name in (*ALL, "peer"):
            if file_of(name, place).exists():
                told = json.loads(file_of(name, place).read_text())
                told |= {"stage": name, "rows": rows, "features": features}
                results.append(told | {"floor": floor(told, speed)})
    packages = "duckdb", "pyarrow", "pandas", "torch", "ray", "feast"
    return {"machine": machine(*packages), "rates": speed, "results": results}


def _data(name: str, place: Path, names: list[str]) -> bool:
    """Whether the stage's own table is there, or nothing that is still to do needs it."""
    needed = {"generate": DATA[0], "retrieval": DATA[1]}.get(name)
    if needed is None or (place / needed).exists():
        return True
    return all(file_of(stage, place).exists() for stage in names)


if __name__ == "__main__":
    main()
