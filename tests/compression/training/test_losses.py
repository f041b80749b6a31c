"""Losses against torch's own formulas."""

import pytest
import torch
from torch.nn import functional

from compression.training.losses import SoftTargets, projection, relative_error, soft_loss

VOCABULARY = 50


def random_logits(rows: int = 7, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def full_divergence(ours: torch.Tensor, theirs: torch.Tensor, temperature: float) -> torch.Tensor:
    """Hinton et al. 2015: soft targets at temperature T, gradients scaled back by T^2."""
    probabilities = (theirs / temperature).softmax(-1)
    divergence = functional.kl_div((ours / temperature).log_softmax(-1), probabilities, reduction="batchmean")
    return temperature**2 * divergence


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_with_all_but_one_token_kept_it_is_the_whole_divergence(temperature: float) -> None:
    ours, theirs = random_logits(seed=1), random_logits(seed=2)
    targets = SoftTargets.of(theirs, temperature=temperature, k=VOCABULARY)
    assert targets.tokens.shape == (7, VOCABULARY - 1)
    expected = full_divergence(ours, theirs, temperature)
    torch.testing.assert_close(soft_loss(ours, targets, temperature=temperature), expected)


def test_fewer_kept_tokens_never_make_it_larger() -> None:
    ours, theirs = random_logits(seed=1), random_logits(seed=2)
    losses = [
        float(soft_loss(ours, SoftTargets.of(theirs, temperature=2.0, k=k), temperature=2.0))
        for k in (1, 2, 8, 20, VOCABULARY)
    ]
    assert losses == sorted(losses)


def test_the_kept_probabilities_sum_to_one_and_are_the_teachers() -> None:
    theirs = random_logits()
    targets = SoftTargets.of(theirs, temperature=2.0, k=5)
    probabilities = targets.log_probabilities.exp()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(7))
    torch.testing.assert_close(probabilities[:, :5], (theirs / 2).softmax(-1).gather(-1, targets.tokens))


def test_a_student_that_says_the_same_loses_nothing_and_gets_no_gradient() -> None:
    logits = random_logits().requires_grad_()
    loss = soft_loss(logits, SoftTargets.of(logits.detach(), temperature=2.0, k=8), temperature=2.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_relative_error_is_zero_for_equal_states_and_one_for_their_mean() -> None:
    states = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)) + 4
    assert float(relative_error(states, states)) == 0
    mean = states.flatten(0, 1).mean(0).expand_as(states)
    assert float(relative_error(mean, states)) == pytest.approx(1)
    assert float(relative_error(10 * states, 10 * states + 1)) == pytest.approx(
        1 / float((10 * states).flatten(0, 1).var(0, correction=0).mean()), rel=1e-4
    )


def test_a_projection_begins_as_the_identity() -> None:
    states = torch.randn(4, 6)
    torch.testing.assert_close(projection(6)(states), states)
