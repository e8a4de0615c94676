"""The objective of eq. 1."""

import itertools

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from training.losses import beta_vae_loss, capacity


def test_kl_is_that_of_a_gaussian_against_the_standard_normal() -> None:
    mean, log_variance = torch.randn(6, 4), torch.randn(6, 4)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(dim=1).mean()
    x = torch.zeros(6, 9)
    torch.testing.assert_close(beta_vae_loss(x, x, mean, log_variance, 1.0, 0.0).kl, expected)


def test_the_total_is_the_squared_error_plus_beta_times_the_distance_of_kl_from_the_capacity() -> None:
    x, y = torch.zeros(2, 3), torch.tensor([[1.0, 0, 0], [0, 2.0, 0]])
    losses = beta_vae_loss(x, y, torch.zeros(2, 4), torch.zeros(2, 4), beta=0.5, capacity=3.0)
    assert losses.reconstruction.item() == pytest.approx(2.5)
    assert losses.total.item() == pytest.approx(2.5 + 0.5 * 3.0)


def test_capacity_grows_from_zero_and_stays_at_its_final_value() -> None:
    values = [capacity(step, 100, 25.0) for step in range(100)]
    assert values[0] == 0
    assert all(b >= a for a, b in itertools.pairwise(values))
    assert values[25] == pytest.approx(12.5)
    assert values[50] == values[99] == 25.0
