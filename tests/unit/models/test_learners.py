"""What every learner of the catalogue must hold to, on campaigns of any shape."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from subprocess import run
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import skops.io
import torch

from campaigns.errors import CampaignError, DataError, EnvironmentProblem
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.worlds import world
from models.catalog import build, build_learner, catalog
from models.data import Batch, Shape
from models.dataset import prepare
from models.fitting import as_it_can, fit_here
from models.inference import predict
from models.learners.base import FILE, Learner
from models.plan import Plan, make_plan
from models.selection import Validation, factual_loss
from models.training import TrainConfig
from models.uplift_model import UpliftModel

NAMES = sorted(name for name, entry in catalog().items() if entry.learner)
LIBRARIES = {name: getattr(catalog()[name].net, "library", "") for name in NAMES}
LEARNERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            bool(LIBRARIES[name]) and find_spec(LIBRARIES[name]) is None,
            reason=f"{name} is fit by {LIBRARIES[name]}, which isn't installed",
        ),
    )
    for name in NAMES
]
SMALL: dict[str, Any] = {
    "trees": 8, "epochs": 2, "leaf_rows": 10, "effect_rows": 10, "forest": 6, "draws": 4, "every": 1, "warm_up": 2,
}  # fmt: skip
QUICK: dict[str, Any] = {"learning_rate": 0.15, "trees": 60}
SHAPES = {
    "one arm, one outcome": Shape(2, (), ((0,), (1,)), ("continuous",)),
    "ids alone": Shape(0, (4, 3), ((0,), (1,)), ("binary",)),
    "arms and outcomes": Shape(2, (300,), ((0,), (1,), (2,)), ("binary", "count")),
    "factors": Shape(1, (2,), ((0, 0), (1, 0), (0, 1), (1, 2)), ("continuous", "binary")),
}


def small(name: str) -> dict[str, Any]:
    config = catalog()[name].config()
    return {key: value for key, value in SMALL.items() if hasattr(config, key)}


def made(name: str, shape: Shape, **config: Any) -> Learner:
    return build_learner(name, shape, {**small(name), **config})


def make_rows(shape: Shape, rows: int, seed: int) -> Batch:
    """Noise, a tenth of the outcomes unobserved, two rows a unit."""
    rng = np.random.default_rng(seed)
    y = np.stack(
        [
            rng.integers(0, 2, rows) if kind == "binary" else rng.normal(size=rows)
            for kind in shape.outcomes
        ],
        axis=1,
    ).astype(float)
    y[rng.random(y.shape) < 0.1] = np.nan
    ids = [rng.integers(0, size, rows) for size in shape.categories]
    return Batch.of(
        rng.normal(size=(rows, shape.numeric)),
        np.stack(ids, axis=1) if ids else np.zeros((rows, 0), int),
        rng.integers(0, shape.arms, rows),
        y,
        np.full(rows, 1 / shape.arms),
        unit=np.arange(rows) // 2,
    )


def asked(learner: Learner, rows: Batch) -> np.ndarray:
    return learner.potential_outcomes(rows.x_num.numpy(), rows.x_cat.numpy())


def planted(
    rows: int, seed: int, shares: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)
) -> tuple[Batch, np.ndarray]:
    """Half the units respond to each treated arm (+0.4), in the feature of that arm."""
    rng = np.random.default_rng(seed)
    arms = len(shares)
    x, ids = rng.normal(size=(rows, 4)), rng.integers(0, 3, (rows, 1))
    responds = np.concatenate([np.zeros((rows, 1)), x[:, : arms - 1] > 0], axis=1)
    truth = 0.1 + 0.1 * (x[:, 3] > 0)[:, None] + 0.4 * responds
    arm = rng.choice(arms, rows, p=shares)
    y = (rng.random(rows) < truth[np.arange(rows), arm]).astype(float)
    return Batch.of(x, ids, arm, y[:, None], np.array(shares)[arm]), truth


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_learners_are_there():
    boosted = {"s_boost", "t_boost", "x_boost", "r_boost", "dr_boost"}
    assert boosted | {"causal_forest", "bart"} <= set(NAMES)


def test_the_catalogue_imports_no_learning_library():
    code = (
        "import sys; from models.catalog import catalog; catalog(); "
        "print([m for m in ('sklearn', 'econml', 'stochtree', 'skops', 'ray') if m in sys.modules])"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("about", SHAPES)
def test_every_arm_and_outcome_is_answered(name, about):
    shape = SHAPES[about]
    rows = make_rows(shape, 400, seed=1)
    learner = made(name, shape).fit(rows, validation=make_rows(shape, 200, seed=2))
    outcomes = asked(learner, rows)
    assert outcomes.shape == (400, shape.arms, shape.outcome_count)
    assert outcomes.dtype == np.float32
    assert np.isfinite(outcomes).all()
    binary = [kind == "binary" for kind in shape.outcomes]
    assert ((outcomes[..., binary] >= 0) & (outcomes[..., binary] <= 1)).all()
    assert asked(learner, rows.select(torch.arange(0))).shape == (0, *outcomes.shape[1:])
    np.testing.assert_array_equal(asked(learner, rows.select(torch.tensor([7]))), outcomes[7:8])
    assert predict(learner, rows.x_num.numpy(), rows.x_cat.numpy(), 150) == pytest.approx(outcomes)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_planted_effect_is_found_by_default(name):
    rows, _ = planted(4000, seed=3)
    validation, _ = planted(1500, seed=4)
    test, truth = planted(2000, seed=5)
    shape = Shape(4, (3,), ((0,), (1,), (2,)), ("binary",))
    config = {"forest": 60} if name == "causal_forest" else {}
    learner = build_learner(name, shape, config).fit(rows, validation=validation)
    outcomes = asked(learner, test)[..., 0]
    error = (outcomes[:, 1:] - outcomes[:, :1]) - (truth[:, 1:] - truth[:, :1])
    assert np.sqrt(np.mean(error**2)) < 0.6 * 0.2  # 0.2 is the error of the best constant
    assert np.abs(error.mean(0)).max() < 0.06  # 0.017 is its standard error
    assert np.sqrt(np.mean((outcomes - truth) ** 2)) < 0.1


@pytest.mark.parametrize("name", LEARNERS)
def test_where_most_are_treated_the_effect_is_found_too(name):
    shares = (0.15, 0.85)
    rows, _ = planted(4000, seed=3, shares=shares)
    validation, _ = planted(2000, seed=4, shares=shares)
    test, truth = planted(2000, seed=5, shares=shares)
    shape = Shape(4, (3,), ((0,), (1,)), ("binary",))
    fields = vars(catalog()[name].config())
    config = dict(QUICK) if "trees" in fields else {}
    config |= {"forest": 60} if name == "causal_forest" else {}
    learner = build_learner(name, shape, config).fit(rows, validation=validation)
    outcomes = asked(learner, test)[..., 0]
    error = (outcomes[:, 1] - outcomes[:, 0]) - (truth[:, 1] - truth[:, 0])
    most = 0.5 if "trees" in fields else 0.6  # the effect is a step, which suits trees
    assert np.sqrt(np.mean(error**2)) < most * 0.2


@pytest.mark.parametrize("name", LEARNERS)
def test_equal_seeds_give_equal_learners_and_every_model_is_told(name):
    shape = SHAPES["arms and outcomes"]
    rows = make_rows(shape, 400, seed=1)
    told: list[str] = []
    one = made(name, shape).fit(rows, seed=3, say=told.append)
    same = made(name, shape).fit(rows, seed=3)
    np.testing.assert_array_equal(asked(one, rows), asked(same, rows))
    assert {sentence.partition(",")[0] for sentence in told} == {"outcome 1 of 2", "outcome 2 of 2"}
    assert all("tree" in each or "average" in each or "epoch" in each for each in told)


@pytest.mark.parametrize("name", LEARNERS)
def test_an_outcome_that_was_not_observed_has_no_part(name):
    """Whatever stands where an outcome is masked, or has weight 0, changes nothing."""
    shape = SHAPES["arms and outcomes"]
    rows, validation = make_rows(shape, 400, seed=1), make_rows(shape, 200, seed=2)
    learner = made(name, shape).fit(rows, validation=validation)
    rows.y[rows.y_mask == 0] = 1.0
    again = made(name, shape).fit(rows, validation=validation)
    np.testing.assert_array_equal(asked(learner, rows), asked(again, rows))


@pytest.mark.parametrize("name", LEARNERS)
def test_an_arm_that_was_never_given_is_answered_as_control(name):
    shape = SHAPES["arms and outcomes"]
    rows = make_rows(shape, 400, seed=1)
    rows = rows.select((rows.arm != 1).nonzero().squeeze(1))
    outcomes = asked(made(name, shape).fit(rows), rows)
    if name != "s_boost":  # which has its own idea of an unknown level
        np.testing.assert_allclose(outcomes[:, 1], outcomes[:, 0], atol=1e-6)
    assert not np.allclose(outcomes[:, 2], outcomes[:, 0])
    none = rows.select((rows.arm == 0).nonzero().squeeze(1))
    control = asked(made(name, shape).fit(none), rows)
    np.testing.assert_allclose(control[:, 2], control[:, 0], atol=1e-6)


@pytest.mark.parametrize("name", LEARNERS)
def test_control_is_needed(name):
    shape = SHAPES["one arm, one outcome"]
    rows = make_rows(shape, 100, seed=1)
    rows = rows.select((rows.arm == 1).nonzero().squeeze(1))
    with pytest.raises(DataError, match="outcome 0 was observed in no control row"):
        made(name, shape).fit(rows)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_saved_learner_answers_the_same(name, tmp_path: Path):
    shape = SHAPES["arms and outcomes"]
    rows = make_rows(shape, 600, seed=1)
    rows.propensity[::3] = 0.7  # who is given what is learned, and saved with the rest
    learner = made(name, shape).fit(rows)
    learner.save(tmp_path)
    loaded = made(name, shape).load(tmp_path)
    np.testing.assert_array_equal(asked(loaded, rows), asked(learner, rows))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    with ZipFile(tmp_path / FILE) as file:
        assert {Path(each).suffix for each in file.namelist()} <= {".json", ".npy"}


def test_types_that_no_learner_is_made_of_are_not_loaded(tmp_path: Path):
    from sklearn.preprocessing import FunctionTransformer

    learner = made("t_boost", SHAPES["one arm, one outcome"])
    skops.io.dump([FunctionTransformer(func=json.loads)], tmp_path / FILE)
    with pytest.raises(DataError, match=r"holds json.loads, which no learner of ours is made of"):
        learner.load(tmp_path)
    (tmp_path / FILE).write_bytes(b"not a zip")
    with pytest.raises(DataError, match="can't be read"):
        learner.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        learner.load(tmp_path / "nowhere")


def test_the_loss_is_that_of_nets():
    """The same answers and rows: what Net.outcome_loss gives under mse."""
    shape = SHAPES["arms and outcomes"]
    rows = make_rows(shape, 300, seed=1)
    rows.weight[:] = torch.rand(300)
    learner = made("t_boost", shape).fit(rows)
    answers = asked(learner, rows)
    given = torch.from_numpy(answers)[torch.arange(300), rows.arm]
    net = build("t_learner", shape, {"members": 1, "loss": "mse"})
    assert factual_loss(learner, answers, rows) == pytest.approx(
        float(net.outcome_loss(given, rows).mean(0).sum()), rel=1e-5
    )


def test_nets_and_learners_are_not_mistaken_for_each_other():
    shape = SHAPES["one arm, one outcome"]
    with pytest.raises(CampaignError, match="'x_boost' is a learner, not a net"):
        build("x_boost", shape)
    with pytest.raises(CampaignError, match="'mtmt' is a net, not a learner"):
        build_learner("mtmt", shape)
    with pytest.raises(CampaignError, match=r"unknown key 'tree' \(did you mean 'trees'"):
        build_learner("x_boost", shape, {"tree": 3})


def test_a_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.learners.base.find_spec", lambda name: None)
    shape = SHAPES["one arm, one outcome"]
    rows = make_rows(shape, 100, seed=1)
    with pytest.raises(EnvironmentProblem, match=r"'econml'.*pip install 'updraft\[forest\]'"):
        made("causal_forest", shape).fit(rows)
    made("t_boost", shape).fit(rows)


def test_what_learned_from_the_validation_fold_is_not_measured_on_it():
    campaign = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
    frame = decision_frame(world("game_bonus").log(3000, seed=5), campaign, "world")
    prepared = prepare(frame, campaign)
    plan = Plan("", prepared.recipe, "s_boost", small("s_boost") | {"bags": 2}, TrainConfig())
    assert fit_here(plan, prepared.train, Validation.of(prepared)).validation == {}


def test_a_learner_takes_as_many_rows_as_memory_holds(tmp_path: Path, monkeypatch):
    campaign = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
    path, said = tmp_path / "frame.parquet", []
    decision_frame(world("game_bonus").log(3000, seed=5), campaign, "world").to_parquet(path)
    plan = replace(make_plan(path, campaign, {}, TrainConfig()), name="s_boost", streamed=True)
    whole = as_it_can(plan, {}, say=said.append)
    assert (whole.streamed, whole.rows, said) == (False, None, [])
    monkeypatch.setattr("models.fitting.MOST_BYTES", 1000 * plan.recipe.row_bytes)
    some = as_it_can(plan, {}, say=said.append)
    assert (some.streamed, some.rows) == (False, 1000)
    assert said == ["s_boost holds its rows in memory: about 1,000 of 3,000 are taken"]


def test_a_model_with_a_learner_is_saved_and_loaded(tmp_path: Path):
    """Through the frame, the plan, the validation, UpliftModel and MLflow's pyfunc."""
    from models.pyfunc import _load_pyfunc, output_columns

    campaign = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
    frame = decision_frame(world("game_bonus").log(3000, seed=5), campaign, "world")
    prepared = prepare(frame, campaign)
    recipe, config = prepared.recipe, small("x_boost")
    plan = Plan("", recipe, "x_boost", config, TrainConfig())
    fitted = fit_here(plan, prepared.train, Validation.of(prepared))
    assert set(fitted.validation) == {"loss", "effects", "score"}
    assert fitted.history[0]["validation"] == fitted.validation
    model = UpliftModel(
        "x_boost", config, recipe.shape, recipe.encoder, recipe.scaler, fitted.learner, campaign
    )
    model.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "campaign.json", "encoder.json", "model.json", FILE,
    }  # fmt: skip
    loaded = UpliftModel.load(tmp_path)
    outcomes = model.predict(frame)
    np.testing.assert_array_equal(loaded.predict(frame), outcomes)
    table = _load_pyfunc(str(tmp_path)).predict(frame)
    assert list(table) == output_columns(campaign)
    np.testing.assert_array_equal(table.to_numpy(), outcomes.reshape(len(frame), -1))
    (tmp_path / FILE).unlink()
    with pytest.raises(DataError, match="is no saved model"):
        UpliftModel.load(tmp_path)
