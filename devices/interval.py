"""Uncertain times: lognormal, stated as a 90 % interval.

A time t is believed to be lognormal: ln t has mean ln(median) and a standard deviation, `log_std`, which for small
values is the relative error.
"""

from dataclasses import dataclass
from math import erf, exp, log, sqrt

COVERAGE = 0.90
"""Probability with which the true time lies within a stated interval."""
Z = 1.6448536269514722
"""The 95 % quantile of the standard normal distribution: half of what is outside is on either side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UncertainTime:
    """A time whose median is `ms`, in milliseconds."""

    ms: float
    log_std: float

    @property
    def low_ms(self) -> float:
        return self.ms * exp(-Z * self.log_std)

    @property
    def high_ms(self) -> float:
        return self.ms * exp(Z * self.log_std)


def probability_within(limit_ms: float, *, low_ms: float, high_ms: float) -> float:
    """P(t <= limit) for the lognormal time whose 90 % interval is [low, high]: its median is sqrt(low high)."""
    log_std = log(high_ms / low_ms) / (2 * Z)
    above = log(limit_ms) - log(low_ms * high_ms) / 2
    if log_std == 0:
        return float(above >= 0)
    return (1 + erf(above / (log_std * sqrt(2)))) / 2
