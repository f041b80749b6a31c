"""The baseline against the pick, in words: what the summary prints and the report's cards show."""

from dataclasses import dataclass

from evaluators.accuracy.error_rate import ErrorRate
from search.outcome import Confirmation, Outcome
from search.trial import Trial, TrialAccuracy, TrialCosts


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """A measured or predicted value with its interval, both as text; no interval is an empty text.

    The intervals of word error rates are 95 %, those of latencies 90 %.
    """

    value: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.interval})" if self.interval else self.value


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One quantity of the baseline and of the pick; `change` is from the first to the second.

    `mark`: `estimated` or `measured`, where that is a question.
    """

    label: str
    baseline: Quantity
    pick: Quantity
    change: str
    note: str = ""
    mark: str = ""

    @property
    def remark(self) -> str:
        """Mark and note in one."""
        return ", ".join(filter(None, (self.mark, self.note)))


def shown_trial(outcome: Outcome) -> Trial:
    """What a reader looks at: the recommended trial, else the least violating one, else the baseline."""
    return outcome.recommended or outcome.least_violating or outcome.baseline


def compare(outcome: Outcome) -> tuple[Comparison, ...]:
    """The baseline against the shown trial: costs, WER, and WER on the confirm set if there is one.

    Energy and CPU occupancy are left out where they are not known: `problems` says so.
    """
    baseline, pick = outcome.baseline, shown_trial(outcome)
    before, after = baseline.costs, pick.costs
    rows = (
        Comparison(
            label="Size",
            baseline=Quantity(value=f"{before.size_mb:,.1f} MB"),
            pick=Quantity(value=f"{after.size_mb:,.1f} MB"),
            change=_smaller(before.size_mb, after.size_mb),
        ),
        Comparison(
            label="FLOPs",
            baseline=Quantity(value=f"{before.flops_g:,.2f} G"),
            pick=Quantity(value=f"{after.flops_g:,.2f} G"),
            change=_less(before.flops_g, after.flops_g),
        ),
        Comparison(
            label="Latency",
            baseline=_latency(baseline),
            pick=_latency(pick),
            change=_less(before.latency_ms, after.latency_ms),
            note="90 % interval",
            mark=after.source,
        ),
        *_in_time(outcome, pick),
        Comparison(
            label="Peak memory",
            baseline=Quantity(value=f"{before.peak_memory_mb:,.1f} MB"),
            pick=Quantity(value=f"{after.peak_memory_mb:,.1f} MB"),
            change=_smaller(before.peak_memory_mb, after.peak_memory_mb),
        ),
        *_energy(before, after),
        *_occupancy(before, after),
    )
    return (
        *rows,
        *_word_errors(outcome, pick),
        *_within_budget(outcome, pick),
        *_languages(outcome, pick),
        *_worst_group(outcome, pick),
        *_artifacts(outcome, pick),
    )


def _in_time(outcome: Outcome, pick: Trial) -> tuple[Comparison, ...]:
    """With what probability the limits on time hold; nothing where there are none."""
    before, after = outcome.within_time(outcome.baseline), outcome.within_time(pick)
    if outcome.limits is None or before is None or after is None:
        return ()
    return (
        Comparison(
            label="P(within time limit)",
            baseline=_chance(before),
            pick=_chance(after),
            change="",
            note=f"asked {100 * outcome.limits.latency_confidence:g} %",
            mark=pick.costs.source,
        ),
    )


def _within_budget(outcome: Outcome, pick: Trial) -> tuple[Comparison, ...]:
    """How sure it is that the true WER is within the budget; nothing in runs that do not judge by divergence."""
    before, after = outcome.estimate(outcome.baseline), outcome.estimate(pick)
    if before is None or after is None or pick.divergence is None:
        return ()
    return (
        Comparison(
            label="P(within WER budget)",
            baseline=_chance(before.probability),
            pick=_chance(after.probability),
            change=f"expected WER {100 * after.rise:+.1f} % ± {100 * after.rise_sd:.1f}, relative",
            note=f"asked {100 * outcome.confidence:g} %; divergence {pick.divergence.mean:.4f} nats a token",
        ),
    )


def _chance(probability: float) -> Quantity:
    return Quantity(value=f"{100 * probability:.0f} %")


def _energy(before: TrialCosts, after: TrialCosts) -> tuple[Comparison, ...]:
    """What the board draws for the reference utterance; nothing where its power is not known."""
    if before.energy_mj is None or after.energy_mj is None:
        return ()
    above = after.energy_above_idle_mj
    return (
        Comparison(
            label="Energy",
            baseline=Quantity(value=f"{before.energy_mj:,.0f} mJ"),
            pick=Quantity(value=f"{after.energy_mj:,.0f} mJ"),
            change=_less(before.energy_mj, after.energy_mj),
            note="" if above is None else f"{above:,.0f} mJ above idle",
            mark=after.source,
        ),
    )


def _occupancy(before: TrialCosts, after: TrialCosts) -> tuple[Comparison, ...]:
    """How busy speech without a pause keeps the CPU; nothing in runs from before this was kept."""
    if before.occupancy is None or after.occupancy is None:
        return ()
    return (
        Comparison(
            label="CPU occupancy",
            baseline=Quantity(value=f"{100 * before.occupancy:.1f} %"),
            pick=Quantity(value=f"{100 * after.occupancy:.1f} %"),
            change=_less(before.occupancy, after.occupancy),
            note="all cores, at real time",
            mark=after.source,
        ),
    )


def _artifacts(outcome: Outcome, pick: Trial) -> tuple[Comparison, ...]:
    """What was measured on the exported files, on this machine; nothing where both were not exported."""
    before, after = outcome.figures(outcome.baseline), outcome.figures(pick)
    if before is None or after is None:
        return ()
    same = f"{100 * after.identical_transcripts:.0f} % of transcripts as in torch"
    return (
        Comparison(
            label="File size",
            baseline=Quantity(value=f"{before.size_mb:,.1f} MB"),
            pick=Quantity(value=f"{after.size_mb:,.1f} MB"),
            change=_smaller(before.size_mb, after.size_mb),
            mark="measured",
        ),
        Comparison(
            label="File WER",
            baseline=_wer(before.rate),
            pick=_wer(after.rate),
            change=_points(before.rate, after.rate),
            note=same,
        ),
        *_latency_here(before.host_latency_ms, after.host_latency_ms),
        Comparison(
            label="Memory here",
            baseline=Quantity(value=f"{before.host_memory_mb:,.0f} MB"),
            pick=Quantity(value=f"{after.host_memory_mb:,.0f} MB"),
            change=_smaller(before.host_memory_mb, after.host_memory_mb),
            note="Python included",
            mark="measured",
        ),
    )


def _latency_here(before_ms: float | None, after_ms: float | None) -> tuple[Comparison, ...]:
    """Nothing where the runtime does not tell."""
    if before_ms is None or after_ms is None:
        return ()
    return (
        Comparison(
            label="Latency here",
            baseline=Quantity(value=f"{before_ms:,.0f} ms"),
            pick=Quantity(value=f"{after_ms:,.0f} ms"),
            change=_less(before_ms, after_ms),
            note="the run's machine",
            mark="measured",
        ),
    )


def provenance(outcome: Outcome) -> str | None:
    """Where the numbers of a repriced run come from; None for a run of its own."""
    if outcome.repriced_from is None:
        return None
    asked = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in outcome.asked_before.items())
    if outcome.repriced_from == outcome.device and asked:
        return f"Answered anew from what a run measured that was asked for {asked}; what was not measured is not known."
    return (
        f"Repriced for {outcome.device} from a run made for {outcome.repriced_from}: WER, confirmation and files are "
        f"that run's; latency, energy, occupancy, limits, front and pick are those of {outcome.device}."
        f"{f' It was asked for {asked}.' if asked else ''}"
    )


def budget(outcome: Outcome) -> str:
    """The WER limit as text, with its distance from the baseline when that is known: `6.23 %, baseline +10 %`."""
    accuracy = outcome.baseline.accuracy
    limit = outcome.wer_limit.wer
    if accuracy is None or accuracy.wer == 0:
        return percent(limit)
    distance = f"{100 * (limit / accuracy.wer - 1):+,.1f}".removesuffix(".0")
    return f"{percent(limit)}, baseline {distance} %"


def percent(fraction: float) -> str:
    """A fraction as `5.66 %`."""
    return f"{100 * fraction:.2f} %"


def _word_errors(outcome: Outcome, pick: Trial) -> tuple[Comparison, ...]:
    before, after = (_rate(trial.accuracy) for trial in (outcome.baseline, pick))
    rows = [
        Comparison(
            label="WER",
            baseline=_wer(before),
            pick=_wer(after),
            change=_points(before, after),
            note=f"budget {percent(outcome.wer_limit.wer)}",
        )
    ]
    if outcome.confirm_speech:
        confirmation = outcome.confirmations.get(pick.recipe.id)
        before, after = _rate(outcome.confirmations.get(outcome.baseline.recipe.id)), _rate(confirmation)
        within = "" if confirmation is None else "within budget" if confirmation.within_budget else "over budget"
        rows.append(
            Comparison(
                label="WER, confirmed",
                baseline=_wer(before),
                pick=_wer(after),
                change=_points(before, after),
                note=within,
            )
        )
    return tuple(rows)


def _languages(outcome: Outcome, pick: Trial) -> tuple[Comparison, ...]:
    """The share of the utterances whose language is detected; nothing where a model knows but one."""
    least, by_confirmation = outcome.min_language_accuracy, outcome.confirmations.get
    note = "" if least is None else f"at least {100 * least:g} %"
    sets = (
        ("Language detected", outcome.baseline.accuracy, pick.accuracy, note),
        (
            "Language detected, confirmed",
            by_confirmation(outcome.baseline.recipe.id),
            by_confirmation(pick.recipe.id),
            "",
        ),
    )
    rows = []
    for label, original, found, note in sets:
        before, after = (scored.language_accuracy if scored else None for scored in (original, found))
        if before is not None and after is not None:
            rows.append(
                Comparison(
                    label=label,
                    baseline=Quantity(value=f"{100 * before:.1f} %"),
                    pick=Quantity(value=f"{100 * after:.1f} %"),
                    change=f"{100 * (after - before):+.1f} points",
                    note=note,
                )
            )
    return tuple(rows)


def _worst_group(outcome: Outcome, pick: Trial) -> tuple[Comparison, ...]:
    """The group that lost most, and its limit if there is a group budget; nothing where no group is judged."""
    worst = outcome.worst_group(pick)
    if worst is None:
        return ()
    limit = f", budget {percent(worst.limit.wer)}" if outcome.group_limits else ""
    return (
        Comparison(
            label="Worst group",
            baseline=_wer(worst.original.rate),
            pick=_wer(worst.found.rate),
            change=_points(worst.original.rate, worst.found.rate),
            note=f"{worst.original.key.label}{limit}",
        ),
    )


def _rate(scored: TrialAccuracy | Confirmation | None) -> ErrorRate | None:
    return scored.rate if scored else None


def _wer(rate: ErrorRate | None) -> Quantity:
    if rate is None:
        return Quantity(value="not measured")
    return Quantity(value=percent(rate.wer), interval=f"{100 * rate.low:.2f} to {100 * rate.high:.2f}")


def _points(before: ErrorRate | None, after: ErrorRate | None) -> str:
    return f"{100 * (after.wer - before.wer):+.2f} points" if before and after else ""


def _latency(trial: Trial) -> Quantity:
    costs = trial.costs
    if costs.latency_ms is None:
        return Quantity(value="not known")
    return Quantity(
        value=f"{costs.latency_ms:,.0f} ms", interval=f"{costs.latency_low_ms:,.0f} to {costs.latency_high_ms:,.0f}"
    )


def _smaller(before: float, after: float) -> str:
    change = 100 * (after / before - 1)
    if abs(change) < 0.05:
        return "the same"
    return f"{abs(change):.1f} % {'smaller' if change < 0 else 'larger'}"


def _less(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    ratio = before / after
    if abs(ratio - 1) < 0.005:
        return "the same"
    return f"{ratio:.2f}x less" if ratio > 1 else f"{1 / ratio:.2f}x more"
