"""What a run minimises and the limits it must respect."""

import re
from dataclasses import dataclass
from fractions import Fraction
from math import exp, floor, log
from statistics import NormalDist
from typing import Self

from common.errors import InputError
from devices.interval import Z, probability_within
from evaluators.accuracy.error_rate import ErrorRate
from search.trial import TrialCosts

_PERCENT = re.compile(r"(?P<sign>[+-]?)(?P<number>\d+(\.\d+)?)\s*%")


@dataclass(frozen=True, kw_only=True, slots=True)
class WerLimit:
    """What a budget allows on one speech set: the one rule for "within the budget", in whole errors.

    `rate`: the largest WER, exactly as the user wrote it; `words`: of all references of the set. Rates are compared
    nowhere: their last bit is an accident.
    """

    rate: Fraction
    words: int

    @property
    def errors(self) -> int:
        """The largest whole number of errors whose share of the words is within the budget."""
        return floor(self.rate * self.words)

    @property
    def wer(self) -> float:
        """The rate as it is shown."""
        return float(self.rate)

    def allows(self, errors: int) -> bool:
        """Whether so many errors on the whole set are within the budget."""
        return errors <= self.errors

    def keeps(self, found: ErrorRate) -> bool:
        """Whether errors that were counted on the whole set are, by the words that were counted with them."""
        return found.errors <= floor(self.rate * found.words)

    def violation(self, errors: int, *, share: Fraction = Fraction(1)) -> float:
        """How far the errors are over the limit, relative to it; > 0 just where `allows` is false on the whole set.

        `share`: that of the limit which a part of the set may use. Where no error is allowed, 1 for any.
        """
        allowed = self.rate * self.words * share
        return float(errors / allowed - 1) if allowed else float(errors > 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class WerBudget:
    """The largest WER: a fraction of its own, or a share above the baseline's (gamma)."""

    value: Fraction
    is_relative: bool

    @classmethod
    def parse(cls, text: str, *, name: str = "WER budget") -> Self:
        """`8.5%` is absolute, `+10%` relative to the baseline. Raises InputError for anything else."""
        match = _PERCENT.fullmatch(text.strip())
        if not match:
            raise InputError(f"{name} {text!r}: write 8.5% (absolute) or +10% (above the baseline)")
        if match["sign"] == "-":
            raise InputError(f"{name} {text!r} is negative: write 8.5% (absolute) or +10% (above the baseline)")
        return cls(value=Fraction(match["number"]) / 100, is_relative=match["sign"] == "+")

    def limit(self, baseline: ErrorRate) -> WerLimit:
        """What is allowed where the original has this error rate: (1 + gamma) x its own, or the absolute budget."""
        rate = Fraction(baseline.errors, baseline.words) * (1 + self.value) if self.is_relative else self.value
        return WerLimit(rate=rate, words=baseline.words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """alpha x size / original size + beta x FLOPs / original FLOPs; smaller is better."""

    alpha: float
    beta: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """`0.5,0.5`. Raises InputError unless both are >= 0 and one is positive."""
        try:
            alpha, beta = (float(part) for part in text.split(","))
        except ValueError:
            raise InputError(f"objective {text!r}: write two weights, of size and of FLOPs, such as 0.5,0.5") from None
        if not (alpha >= 0 and beta >= 0 and 0 < alpha + beta < float("inf")):
            raise InputError(f"objective {text!r}: the weights must be >= 0 and one of them > 0")
        return cls(alpha=alpha, beta=beta)

    def value(self, costs: TrialCosts, original: TrialCosts) -> float:
        return self.alpha * costs.size_mb / original.size_mb + self.beta * costs.flops_g / original.flops_g


@dataclass(frozen=True, kw_only=True, slots=True)
class CostLimits:
    """Largest costs for the reference utterance; None where there is no limit.

    Limits on time (latency, real-time factor, occupancy) must hold with a probability of `latency_confidence`.
    """

    max_memory_mb: float
    max_size_mb: float | None = None
    max_latency_ms: float | None = None
    max_rtf: float | None = None
    max_occupancy: float | None = None
    latency_confidence: float = 0.5

    def violations(self, costs: TrialCosts) -> dict[str, float]:
        """By limit, (cost - limit) / limit: positive where the limit is broken.

        For limits on time the cost is the quantile at `latency_confidence`. What is not known breaks no limit.
        """
        over = {"memory": costs.peak_memory_mb / self.max_memory_mb - 1}
        if self.max_size_mb is not None:
            over["size"] = costs.size_mb / self.max_size_mb - 1
        slower = self._quantile_over_median(costs)
        return over | {name: ratio * slower - 1 for name, ratio in self._time_ratios(costs).items()}

    def probability(self, costs: TrialCosts) -> float | None:
        """That every limit on time holds; None without such a limit, or without a latency.

        The limits are on multiples of one uncertain latency, so they all hold where the tightest does.
        """
        ratios = self._time_ratios(costs)
        if not ratios or costs.latency_ms is None or costs.latency_low_ms is None or costs.latency_high_ms is None:
            return None
        tightest_ms = costs.latency_ms / max(ratios.values())
        return probability_within(tightest_ms, low_ms=costs.latency_low_ms, high_ms=costs.latency_high_ms)

    def _time_ratios(self, costs: TrialCosts) -> dict[str, float]:
        """By limit on time, median cost / limit."""
        pairs = {
            "latency": (costs.latency_ms, self.max_latency_ms),
            "rtf": (costs.rtf, self.max_rtf),
            "occupancy": (costs.occupancy, self.max_occupancy),
        }
        return {name: cost / limit for name, (cost, limit) in pairs.items() if cost is not None and limit is not None}

    def _quantile_over_median(self, costs: TrialCosts) -> float:
        """How much longer than the median the time is that is kept with the asked probability (lognormal)."""
        if costs.latency_low_ms is None or costs.latency_high_ms is None:
            return 1.0
        log_std = log(costs.latency_high_ms / costs.latency_low_ms) / (2 * Z)
        return exp(NormalDist().inv_cdf(self.latency_confidence) * log_std)
