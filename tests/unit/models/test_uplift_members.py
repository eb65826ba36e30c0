"""What a served ensemble says of itself: its members' answers, and the prices and the dial that it carries."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.worlds import world
from models.catalog import build
from models.dataset import fit_recipe
from models.uplift_model import UpliftModel
from serving.decider import Policy, Unit, assess, decide
from serving.ledger import Ledger

GAME = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)
DIAL = {"trial": 0.03, "base": 0.0, "slope": 0.4}


def ensemble(members: int) -> UpliftModel:
    rules = {"strategy": "directed", "epsilon": 0.3, "floor": 0.01}
    campaign = GAME.model_copy(
        update={
            "exploration": GAME.exploration.model_copy(update=rules),
            "budget": GAME.budget.model_copy(update={"min_return": 0.0}),
        }
    )
    frame = decision_frame(world("game_bonus").log(1000, seed=5), campaign, "world")
    recipe = fit_recipe(frame, campaign)
    config = {"width": 8, "members": members}
    return UpliftModel(
        name="s_learner",
        config=config,
        shape=recipe.shape,
        encoder=recipe.encoder,
        scaler=recipe.scaler,
        net=build("s_learner", recipe.shape, config, seed=3).eval(),
        campaign=campaign,
        limit_prices={"stock of skin": 0.4},
        dial=DIAL,
    )


def test_members_answer_in_the_outcomes_units_and_their_mean_is_the_models() -> None:
    model, units = ensemble(4), world("game_bonus").units(300, seed=2)
    each = model.predict_members(units)
    assert each is not None
    assert each.shape == (4, 300, 3, 2)
    assert each.mean(axis=0) == pytest.approx(model.predict(units), abs=1e-5)
    assert each.std(axis=0).max() > 0
    assert ensemble(1).predict_members(units) is None


def test_a_loaded_ensemble_explores_as_the_saved_one(tmp_path: Path) -> None:
    model = ensemble(4)
    model.save(tmp_path / "model")
    loaded = UpliftModel.load(tmp_path / "model")
    assert (loaded.limit_prices, loaded.dial) == ({"stock of skin": 0.4}, DIAL)
    rows = world("game_bonus").units(200, seed=2)[GAME.features.names]
    known = rows.astype(object).where(rows.notna(), None).to_dict("records")
    who = [Unit(str(i), features) for i, features in enumerate(known)]
    given = [
        decide(assess(one, who), Policy.of(one, "1"), Ledger(), NOW) for one in (model, loaded)
    ]
    assert [d.arm for d in given[0]] == [d.arm for d in given[1]]
    drawn = np.array([d.epsilon for d in given[0]])
    assert drawn.min() >= 0.03 - 1e-12
    assert drawn.max() > 0.1
    assert len({d.propensity for d in given[0]}) > 3
