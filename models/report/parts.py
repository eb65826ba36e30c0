"""How the uplifts of a model that decomposes them are spread over the units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from models.report.data import Density, PartsDensity
from models.uplift_model import UpliftModel

BINS = 48
MOST_ROWS = 20_000


def parts_densities(
    model: UpliftModel, rows: pd.DataFrame, *, max_rows: int = MOST_ROWS, seed: int = 0
) -> list[PartsDensity]:
    """Base and incremental effects (MTMT, equation 1) in the outcomes' own units, one an outcome.

    Args:
        model: Any model; an empty list comes back where its net has no such parts.
        rows: Units with their features.
        max_rows: Rows drawn of them (seeded).
        seed: Of the draw.
    """
    parts = getattr(model.net, "parts", None)
    if parts is None or not len(rows):
        return []
    sample = rows.sample(max_rows, random_state=seed) if len(rows) > max_rows else rows
    columns = {name: sample[name].to_numpy() for name in model.campaign.features.names}
    x_num, x_cat = model.encoder.encode(columns)
    with torch.inference_mode():
        found = parts(torch.from_numpy(x_num), torch.from_numpy(x_cat))
    if not {"base", "incremental"} <= set(found):
        return []
    scale = np.array(model.scaler.scale)
    base = found["base"].numpy() * scale  # [N, K]
    incremental = found["incremental"].numpy() * scale  # [N, A - 1, K]
    arms = model.campaign.arm_table.names[1:]
    return [
        PartsDensity(
            outcome,
            _density(base[:, k]),
            {arm: _density(incremental[:, a, k]) for a, arm in enumerate(arms)},
        )
        for k, outcome in enumerate(model.campaign.outcomes)
    ]


def _density(values: np.ndarray) -> Density:
    """A histogram over the middle 99% of the values (all of it where that is a point)."""
    low, high = np.quantile(values, [0.005, 0.995])
    if high - low < 1e-12:
        low, high = low - 1e-6, high + 1e-6
    height, edges = np.histogram(values, bins=BINS, range=(low, high), density=True)
    return Density((edges[:-1] + np.diff(edges) / 2).tolist(), height.tolist())
