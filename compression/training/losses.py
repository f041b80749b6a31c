"""What a student is punished for."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class SoftTargets:
    """A teacher's logits of R tokens, kept as the k largest of each and what the others weigh together.

    `tokens` (R, k) int64; `logits` (R, k), already divided by the temperature; `others` (R,): the logarithm of the sum
    of the exponentials of the rest, likewise. 64 of Whisper's 51,864 hold nearly all of the probability, in a
    thousandth of the memory.
    """

    tokens: Tensor
    logits: Tensor
    others: Tensor

    @classmethod
    def of(cls, logits: Tensor, *, temperature: float, k: int) -> Self:
        """From logits (R, vocabulary)."""
        scaled = logits / temperature
        largest, tokens = scaled.topk(min(k, scaled.shape[-1] - 1), dim=-1)
        return cls(tokens=tokens, logits=largest, others=_others(scaled, tokens))

    @property
    def log_probabilities(self) -> Tensor:
        """(R, k + 1): those of the k tokens, and of all others together."""
        return torch.cat([self.logits, self.others.unsqueeze(-1)], dim=-1).log_softmax(-1)


def _others(scaled: Tensor, tokens: Tensor) -> Tensor:
    """log sum exp over the tokens that are not listed."""
    return scaled.scatter(-1, tokens, -torch.inf).logsumexp(-1)


def soft_loss(logits: Tensor, targets: SoftTargets, *, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) at temperature T, mean over the R tokens (Hinton et al. 2015, arXiv:1503.02531).

    The tokens outside the teacher's k count as one outcome, which makes it at most the divergence over all tokens. T^2
    keeps the size of the gradient when T changes.
    """
    scaled = logits / temperature
    listed = torch.cat([scaled.gather(-1, targets.tokens), _others(scaled, targets.tokens).unsqueeze(-1)], dim=-1)
    divergence = functional.kl_div(
        listed.log_softmax(-1), targets.log_probabilities, reduction="batchmean", log_target=True
    )
    return temperature**2 * divergence


def relative_error(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared distance of (..., width) states as a share of the teacher's variance around its mean state.

    0 is equality, 1 what the mean alone would give: a scale that means the same at every depth.
    """
    mean = theirs.flatten(0, -2).mean(0)
    return (ours - theirs).square().sum() / (theirs - mean).square().sum().clamp(min=1e-12)


def projection(width: int) -> nn.Linear:
    """A learned map from a student's states to its teacher's (Romero et al. 2015; TinyBERT, Jiao et al. 2020, eq. 8).

    It begins as the identity, since a compressed Whisper keeps the meaning of its states.
    """
    layer = nn.Linear(width, width, bias=False)
    nn.init.eye_(layer.weight)
    return layer
