"""In which order the units of a site leave when what stays is refitted after each of them.

Structured optimal brain surgeon. A projection W reads x with covariance C, and H is C with a ridge. When the columns R
leave and the others take over what they can predict of them, the least of E|(W - W') x|^2 rises by
trace(W_R (H^-1_RR)^-1 W_R^T), reached at W' = W - W_R (H^-1_RR)^-1 H^-1_R: (Kurtic, Frantar, Alistarh 2023, "ZipLM:
Inference-aware structured pruning of language models", equations 3 and 4). Of the weights only W^T W matters for the
order, so this and H^-1 are all that is kept from step to step.
"""

import torch
from torch import Tensor

RIDGE = 0.01
"""Ridge of a refit, as a share of the mean variance of the columns; 0.1 is no better (benchmarks/README.md)."""
STEP = 32
"""Units that leave before H^-1 and W^T W are updated as a whole."""
CANDIDATES = 128
"""The cheapest units when a step begins: it chooses among them, one by one."""


def ridged(covariance: Tensor) -> Tensor:
    """H (K, K) float64, invertible."""
    ridge = RIDGE * covariance.diagonal().double().mean() + torch.finfo(torch.float32).tiny
    return covariance.double() + ridge * torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)


def departures(weight: Tensor, covariance: Tensor, *, units: int) -> tuple[Tensor, Tensor]:
    """The order (units,) in which all units leave, and by how much each one's departure raises the error (units,).

    `weight`: (N, K), of the projection. `covariance`: (K, K), of its input; each unit has K / `units` columns of it.
    Greedy: the unit leaves that raises the error least. Of more than `CANDIDATES` units only so many are compared.
    """
    width = weight.shape[1] // units
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(ridged(covariance)))
    gram = weight.double().T @ weight.double()
    left = torch.arange(units, device=weight.device)
    order, rises = [], []
    while len(left):
        candidates = _costs(inverse, gram, width).argsort()[:CANDIDATES].sort().values
        columns = _columns(candidates, width)
        chosen, costs = _one_by_one(_among(inverse, columns), _among(gram, columns), width)
        leaving = candidates[chosen]
        order.append(left[leaving])
        rises.append(costs)
        stays = torch.ones_like(left, dtype=torch.bool)
        stays[leaving] = False
        inverse, gram = _without(inverse, gram, _columns(leaving, width), _columns(stays.nonzero()[:, 0], width))
        left = left[stays]
    return torch.cat(order), torch.cat(rises)


def _one_by_one(inverse: Tensor, gram: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Up to `STEP` units in the order in which they leave, and the cost of each."""
    left = list(range(len(gram) // width))
    chosen, costs = [], []
    for _ in range(min(STEP, len(left))):
        of_units = _costs(inverse, gram, width)
        cheapest = int(of_units.argmin())
        costs.append(of_units[cheapest])
        chosen.append(left.pop(cheapest))
        every = torch.arange(len(of_units), device=gram.device)
        leaving, others = every[cheapest : cheapest + 1], every[every != cheapest]
        inverse, gram = _without(inverse, gram, _columns(leaving, width), _columns(others, width))
    return torch.tensor(chosen, device=gram.device), torch.stack(costs)


def _columns(units: Tensor, width: int) -> Tensor:
    return (units.unsqueeze(1) * width + torch.arange(width, device=units.device)).flatten()


def _costs(inverse: Tensor, gram: Tensor, width: int) -> Tensor:
    """trace((H^-1_RR)^-1 (W^T W)_RR) of each unit's columns R, (units,)."""

    def own(matrix: Tensor) -> Tensor:
        return matrix.unflatten(0, (-1, width)).unflatten(2, (-1, width)).diagonal(dim1=0, dim2=2).movedim(-1, 0)

    return torch.linalg.solve(own(inverse), own(gram)).diagonal(dim1=1, dim2=2).sum(1)


def _without(inverse: Tensor, gram: Tensor, removed: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Both matrices of the kept columns when the removed ones have left.

    With Q = (H^-1_RR)^-1 H^-1_RS the weights become W_S - W_R Q, and the inverse is downdated (ZipLM, equation 5).
    """
    lost, shared = inverse.index_select(0, removed), gram.index_select(0, removed)
    taken_over = torch.linalg.solve(lost.index_select(1, removed), lost.index_select(1, kept))
    half = shared.index_select(1, kept).T - taken_over.T @ shared.index_select(1, removed) / 2
    return (
        _among(inverse, kept).addmm_(lost.index_select(1, kept).T, taken_over, alpha=-1),
        _among(gram, kept).addmm_(half, taken_over, alpha=-1).addmm_(taken_over.T, half.T, alpha=-1),
    )


def _among(matrix: Tensor, chosen: Tensor) -> Tensor:
    """Those rows and columns."""
    return matrix.index_select(0, chosen).index_select(1, chosen)


def departure_scores(weight: Tensor, covariance: Tensor, *, units: int) -> Tensor:
    """By unit (units,) float32, ascending in the order of `departures`: its rise, or just more than the last one's."""
    scores = torch.empty(units)
    last = torch.tensor(0.0)
    order, rises = departures(weight, covariance, units=units)
    for unit, rise in zip(order.cpu(), rises.cpu(), strict=True):
        last = torch.maximum(rise.float(), torch.nextafter(last, torch.tensor(torch.inf)))
        scores[unit] = last
    return scores
