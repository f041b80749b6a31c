"""What peers.py measured: a row per system, and what each of our points is beside each peer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from peer_systems import REFERENCE, Side
from recognisers.timed import Result

from evaluators.accuracy.word_errors import Accuracy, ErrorCounts, PairedDifference, paired_difference, pooled_accuracy

THREADS = (2, 1)
SCORED_THREADS = THREADS[0]
"""The number of threads of the WER, the load time and the memory."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One process: a system at a number of threads. `errors`: of every clip that it transcribed, in the same order.

    `load_average`: of the machine in the minute before; near 0 where nothing else ran.
    """

    system: str
    side: Side
    recipe_id: str | None
    window_s: float
    threads: int
    size_bytes: int
    load_average: float
    result: Result
    errors: tuple[ErrorCounts, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Measured":
        """What `asdict` made of one."""
        result = Result.from_json(values["result"])
        return cls(**{**values, "result": result, "errors": tuple(ErrorCounts(**error) for error in values["errors"])})


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Medians over the clips, on `threads` threads. `token_ms`: all after the encoder, by the tokens of the clip."""

    threads: int
    clips: int
    utterance_ms: float
    encoder_ms: float | None
    token_ms: float | None
    load_average: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """A system. `identical`: the share of clips with the same text, letter by letter, as REFERENCE; None without it."""

    system: str
    side: Side
    recipe_id: str | None
    window_s: float
    accuracy: Accuracy
    identical: float | None
    size_bytes: int
    peak_rss_bytes: int
    load_s: float
    speeds: tuple[Speed, ...]

    def utterance_ms(self, threads: int) -> float | None:
        """None where it was not measured."""
        return next((speed.utterance_ms for speed in self.speeds if speed.threads == threads), None)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One of our points beside a peer. `faster_...`: None where one of them was not timed.

    `wer`: ours less theirs; `no_worse`: its interval is not wholly above 0. `not_better`: what ours does not win, in
    words; nothing where it is smaller, faster with both numbers of threads, and no worse.
    """

    peer: str
    ours: str
    smaller: bool
    faster_2_threads: bool | None
    faster_1_thread: bool | None
    wer: PairedDifference
    no_worse: bool
    not_better: tuple[str, ...]


def rows(measured: Sequence[Measured], normaliser: str) -> list[Row]:
    """The table, for every system that was scored, in the order of `measured`."""
    scored = [measurement for measurement in measured if measurement.threads == SCORED_THREADS]
    texts = {measurement.system: [clip.text for clip in measurement.result.clips] for measurement in scored}
    reference = texts.get(REFERENCE)
    return [
        Row(
            system=measurement.system,
            side=measurement.side,
            recipe_id=measurement.recipe_id,
            window_s=measurement.window_s,
            accuracy=pooled_accuracy(measurement.errors, normaliser=normaliser, seed=0),
            identical=None if reference is None else _share_equal(texts[measurement.system], reference),
            size_bytes=measurement.size_bytes,
            peak_rss_bytes=measurement.result.peak_rss_bytes,
            load_s=measurement.result.load_s,
            speeds=tuple(_speed(other) for other in measured if other.system == measurement.system),
        )
        for measurement in scored
    ]


def _share_equal(texts: Sequence[str], others: Sequence[str]) -> float:
    return sum(text == other for text, other in zip(texts, others, strict=True)) / len(texts)


def _speed(measured: Measured) -> Speed:
    clips = measured.result.clips
    return Speed(
        threads=measured.threads,
        clips=len(clips),
        utterance_ms=1000 * median(clip.utterance_s for clip in clips),
        encoder_ms=_median_ms(clip.encoder_s for clip in clips),
        token_ms=_median_ms(
            None if clip.decoder_s is None or clip.steps is None else clip.decoder_s / clip.steps for clip in clips
        ),
        load_average=measured.load_average,
    )


def _median_ms(seconds: Iterable[float | None]) -> float | None:
    """None where the runtime does not tell."""
    told = [value for value in seconds if value is not None]
    return 1000 * median(told) if told else None


def comparisons(measured: Sequence[Measured], table: Sequence[Row]) -> list[Comparison]:
    """Each of our compressed points beside each peer."""
    errors = {
        measurement.system: measurement.errors for measurement in measured if measurement.threads == SCORED_THREADS
    }
    ours = [row for row in table if row.side == "ours"]
    peers = [row for row in table if row.side.startswith("peer")]
    return [_compared(point, peer, errors) for peer in peers for point in ours]


def _compared(ours: Row, peer: Row, errors: Mapping[str, Sequence[ErrorCounts]]) -> Comparison:
    wer = paired_difference(errors[peer.system], errors[ours.system], seed=0)
    two_threads, one_thread = (_is_faster(ours, peer, threads) for threads in THREADS)
    return Comparison(
        peer=peer.system,
        ours=ours.system,
        smaller=ours.size_bytes < peer.size_bytes,
        faster_2_threads=two_threads,
        faster_1_thread=one_thread,
        wer=wer,
        no_worse=wer.low <= 0,
        not_better=tuple(_not_better(ours, peer, wer)),
    )


def _is_faster(ours: Row, peer: Row, threads: int) -> bool | None:
    our_ms, peer_ms = ours.utterance_ms(threads), peer.utterance_ms(threads)
    return None if our_ms is None or peer_ms is None else our_ms < peer_ms


def _not_better(ours: Row, peer: Row, wer: PairedDifference) -> list[str]:
    lost = []
    if ours.size_bytes >= peer.size_bytes:
        lost.append(f"{ours.size_bytes / 1e6:.1f} MB, not below {peer.size_bytes / 1e6:.1f}")
    for threads in THREADS:
        our_ms, peer_ms = ours.utterance_ms(threads), peer.utterance_ms(threads)
        if our_ms is None or peer_ms is None:
            lost.append(f"not timed with threads = {threads}")
        elif our_ms >= peer_ms:
            lost.append(f"{our_ms:.0f} ms, not below {peer_ms:.0f}, with threads = {threads}")
    if wer.low > 0:
        lost.append(f"WER {_points(wer.difference)} points ({_points(wer.low)} to {_points(wer.high)})")
    return lost


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"


def table_lines(table: Sequence[Row]) -> list[str]:
    """The table as text: sizes and memory in MB of 10^6 bytes, times in ms, the parts of an utterance at 2 threads."""
    first, second = THREADS
    width = max(len(row.system) for row in table)
    head = f"{'':{width}} {'WER %':>6} {'95 %':>13} {'MB':>6} {f'ms, {first} thr':>9} {f'{second} thr':>6} "
    lines = [head + f"{'encoder':>7} {'token':>6} {'RSS MB':>6} {'load s':>6} {'window':>6} {'same text':>9}"]
    for row in table:
        accuracy, speed = row.accuracy, row.speeds[0]
        interval = f"{100 * accuracy.rate.low:.2f}-{100 * accuracy.rate.high:.2f}"
        alone = row.utterance_ms(second)
        lines.append(
            f"{row.system:{width}} {100 * accuracy.wer:6.2f} {interval:>13} {row.size_bytes / 1e6:6.1f} "
            f"{speed.utterance_ms:9.0f} {'' if alone is None else f'{alone:.0f}':>6} {_figure(speed.encoder_ms, 0):>7} "
            f"{_figure(speed.token_ms, 2):>6} {row.peak_rss_bytes / 1e6:6.0f} {row.load_s:6.2f} {row.window_s:5g}s "
            f"{'' if row.identical is None else f'{row.identical:.0%}':>9}"
        )
    return lines


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def beaten_by(compared: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """For each peer, those of our points that are smaller, faster and no worse in WER."""
    peers = dict.fromkeys(comparison.peer for comparison in compared)
    return {
        peer: [comparison for comparison in compared if comparison.peer == peer and not comparison.not_better]
        for peer in peers
    }


def verdict_lines(compared: Sequence[Comparison]) -> list[str]:
    """Which of our points beats each peer; where none does, what each of them lacks."""
    lines = []
    for peer, winners in beaten_by(compared).items():
        said = (f"{winner.ours} (WER {_points(winner.wer.low)} to {_points(winner.wer.high)})" for winner in winners)
        lines.append(f"{peer}: beaten by {'; '.join(said) or 'none'}")
        if not winners:
            lines += [
                f"  {comparison.ours}: {', '.join(comparison.not_better)}"
                for comparison in compared
                if comparison.peer == peer
            ]
    return lines
