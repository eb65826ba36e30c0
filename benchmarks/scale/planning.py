"""Predictions of a whole unit table, a piece in memory at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from campaigns.objective import value_and_cost
from campaigns.pieces import piece_rows
from models.uplift_model import UpliftModel


def predicted_values(model: UpliftModel, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Value of each arm over control [N, A], and what each costs [A] (or [N, A])."""
    names, values, costs = model.campaign.features.names, [], []
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(piece_rows(len(names)), columns=names):
            columns = {name: batch[name].to_numpy(zero_copy_only=False) for name in names}
            value, cost = value_and_cost(model.predict(columns), model.campaign)
            values.append(value)
            costs.append(cost if model.campaign.cost_outcome is not None else cost[:1])
    whole = np.concatenate(values)
    return whole, np.concatenate(costs) if len(costs[0]) > 1 else costs[0][0]
