"""Where fvcore's count of an exported network and the inventory's FLOPs disagree, in words."""

from search.outcome import Outcome
from search.trial import Trial

TOLERANCE = 0.01
"""Of what fvcore counts."""


def flops_note(outcome: Outcome, trial: Trial) -> str:
    """Such as `fvcore counts 1.14 GFLOP in the network, the inventory 1.2, 5.3 % more`; empty where they agree."""
    figures = outcome.figures(trial)
    if figures is None or figures.flops_fvcore_g is None:
        return ""
    counted, listed = figures.flops_fvcore_g, trial.costs.flops_g
    excess = listed / counted - 1
    if abs(excess) <= TOLERANCE:
        return ""
    more = f"{100 * abs(excess):.1f} % {'more' if excess > 0 else 'less'}"
    return f"fvcore counts {counted:.4g} GFLOP in the network, the inventory {listed:.4g}, {more}"


def flops_problems(outcome: Outcome) -> list[str]:
    """A sentence for each exported trial of the run, the original and the front, where they disagree."""
    shown = [outcome.baseline, *(trial for trial in outcome.front if trial.number != outcome.baseline.number)]
    notes = ((trial.number, flops_note(outcome, trial)) for trial in shown)
    return [f"The FLOPs of trial {number} are in doubt: {note}." for number, note in notes if note]
