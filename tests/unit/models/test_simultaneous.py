"""The benchmark of simultaneous treatments: its worlds' truths, and that adjusting is measured."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.models.simultaneous import (
    JointDeconfounder,
    copula,
    gwas,
    interval,
    joint,
    least_squares,
)

torch.set_num_threads(1)


def test_the_outcome_of_genes_is_effects_groups_and_noise_in_their_shares():
    world = gwas(20_000, 4, 20, seed=1)
    design = np.column_stack([np.ones(20_000), world.t])
    confounded = np.linalg.lstsq(design, world.y, rcond=None)[0][1:]
    effect = world.t @ world.tau
    left = world.y - effect
    assert 1.3 < left.var() / effect.var() < 1.7, "groups as much as effects, noise half of it"
    assert np.abs(confounded - world.tau).mean() > 0.03
    assert set(np.unique(world.t)) == {0.0, 1.0}


def test_the_truth_of_the_copula_world_is_what_a_unit_more_does_to_the_mean():
    world = copula(50_000, 4, 3, seed=2)
    u = world.x.sum(1) / np.sqrt(3)
    rng = np.random.default_rng(0)
    means = []
    for step in (0.0, 1.0):  # of the second treatment, whose effect is linear
        t = world.t + step * np.array([0, 1, 0, 0])
        third = np.where(t[:, 2] > 0, t[:, 2], 0.7 * t[:, 2])
        latent = 3 * t[:, 0] - t[:, 1] + third - 0.06 * t[:, 3] - 4 * t[:, 0] ** 2 + 2.8 * u
        means.append((latent + rng.normal(size=50_000) > 0).mean())
    assert abs(means[1] - means[0] - world.tau[1]) < 0.015


def test_adjusting_for_proxies_beats_looking_away():
    world = gwas(4000, 5, 60, seed=0)
    adjusted = joint(JointDeconfounder, world, 600, 0)
    errors = [np.abs(found - world.tau).mean() for found in (adjusted, least_squares(world, 0, 0))]
    assert errors[0] < 0.6 * errors[1]


def test_an_interval_of_one_seed_is_unknown():
    mean, half = interval([{"mae": 0.5}])
    assert mean == 0.5
    assert np.isnan(half)
