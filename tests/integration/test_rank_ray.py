"""A ranking net through Ray Train: one cohort over two workers, finished and saved with the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from campaigns.frame import decision_frame
from campaigns.loading import parse_campaign
from campaigns.objective import value_and_cost
from campaigns.worlds import world
from models.distributed import train
from models.ranking import RankingNet
from models.uplift_model import UpliftModel
from tests.integration.bonus import bonus_text

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

CAMPAIGN = parse_campaign(bonus_text("{name: direct_ranking, search: false}"))


def test_two_workers_train_a_ranking_that_is_worth_more_than_chance(tmp_path: Path) -> None:
    path = tmp_path / "frame.parquet"
    decision_frame(world("game_bonus").log(24_000, seed=1), CAMPAIGN, "log").to_parquet(path)
    training = {"epochs": 6, "batch_size": 512, "seed": 3}
    done = train(path, CAMPAIGN, training=training, workers=2, storage=tmp_path)
    assert set(done.history[0]["validation"]) == {"loss", "score"}
    net = done.model.net
    assert isinstance(net, RankingNet)
    assert int(net.seen) > 0
    assert float(net.control.min()) > 0.0, "finished: control's rates are known"
    done.model.save(tmp_path / "model")
    log = world("game_bonus").log(20_000, seed=99)
    predicted = UpliftModel.load(tmp_path / "model").predict(log)
    np.testing.assert_array_equal(predicted, done.model.predict(log))
    true, _ = value_and_cost(world("game_bonus").truth(log)[:, :, :2], CAMPAIGN)
    value, cost = value_and_cost(predicted, CAMPAIGN)
    for arm in (1, 2):
        top = np.argsort(-value[:, arm] / cost[:, arm])[: len(log) // 5]
        assert true[top, arm].mean() > 1.2 * true[:, arm].mean()
