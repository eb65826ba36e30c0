"""Allocation over Ray Data: one answer whatever the number of blocks, the one of a single process."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from serving.policy import limits
from serving.policy.planning import plan
from serving.policy.portions import Portion, Portions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

UNITS = 30_000
COST = np.array([0.0, 0.3, 0.55])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "unit_id": [f"player-{row}" for row in range(UNITS)],
            "coins": rng.normal(0.2, 0.4, UNITS),
            "skin": rng.normal(0.2, 0.4, UNITS),
            "coins_sessions": rng.normal(-0.02, 0.1, UNITS),
            "skin_sessions": rng.normal(-0.02, 0.1, UNITS),
            "newcomer": rng.random(UNITS) < 0.1,
        }
    )


def one_limit(batch: dict[str, np.ndarray]) -> Portion:
    value = np.stack([0 * batch["coins"], batch["coins"], batch["skin"]], axis=1)
    return Portion(value, (limits.budget(0.06 * UNITS, COST),), batch["unit_id"])


def several_limits(batch: dict[str, np.ndarray]) -> Portion:
    one = one_limit(batch)
    harm = [0 * batch["coins"], batch["coins_sessions"], batch["skin_sessions"]]
    every = (
        *one.limits,
        limits.least_share(0.3, batch["newcomer"], 3, name="newcomers"),
        limits.guardrail(0.001 * UNITS, np.stack(harm, axis=1), name="sessions"),
    )
    return Portion(one.value, every, one.unit)


@pytest.mark.parametrize(("portion", "cuts"), [(one_limit, (1, 7)), (several_limits, (5,))])
def test_one_answer_whatever_the_number_of_blocks(table, portion, cuts) -> None:
    import ray

    from serving.dataset import DatasetPortions

    ray.data.DataContext.get_current().enable_progress_bars = False
    whole = {name: table[name].to_numpy() for name in table}
    alone = plan(Portions(lambda: [portion(whole)]))
    expected = alone.arms(portion(whole))
    for blocks in cuts:
        data = ray.data.from_pandas(table).repartition(blocks).materialize()
        assert data.num_blocks() == blocks
        source = DatasetPortions(data, portion)
        found = plan(source)
        assert (found.value, found.prices, found.uses) == (alone.value, alone.prices, alone.uses)
        assert found.upper_bound == alone.upper_bound
        assert found.gap < 1e-3
        given = source.given(found).to_pandas().set_index("unit_id")["arm"]
        np.testing.assert_array_equal(given[table["unit_id"]], expected)
        assert COST[given].sum() <= 0.06 * UNITS
