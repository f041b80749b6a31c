"""What whole artifacts say about a table, on comparisons that are made up."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import exp, log, sqrt
from pathlib import Path

import numpy as np
import pytest

from common.errors import InputError
from devices.facts import Fact
from devices.interval import UncertainTime, Z
from devices.profile import DeviceProfile, load_profile
from devices.profiler.measuring import Timing
from devices.streams import STREAMS
from evaluators.costs.price import price
from evaluators.profiling.check import (
    CHECKS,
    LEAST_LOG_STD,
    Comparison,
    check_workloads,
    compare,
    graph_factors,
    interval_factor,
    whole_jobs,
    with_intervals,
)
from evaluators.profiling.pool import Pool
from evaluators.profiling.random_workloads import Workload
from evaluators.profiling.run import RUNTIME
from runtime.window import encoder_frames
from tests.compression.export.models import COMPACT


def comparison(error: float, log_std: float, predicted_ms: float = 100.0, part: str = "encoder") -> Comparison:
    """Measured exp(error) times the prediction of a profile without factors."""
    predicted = UncertainTime(ms=predicted_ms, log_std=log_std)
    return Comparison(
        workload="w", part=part, predicted=predicted, measured_ms=predicted_ms * exp(error), factor=exp(error)
    )


def test_errors_are_logarithms() -> None:
    assert comparison(0.1, 0.01).log_error == pytest.approx(0.1)
    assert comparison(-0.2, 0.01).log_error == pytest.approx(-0.2)


def test_an_interval_by_hand() -> None:
    """Errors of 0.02, 0.04 and 0.09: median 0.04, squares 0.0029 / 2; t(95 %, 2) = 2.9200."""
    found = interval_factor([comparison(error, 0.03) for error in (0.02, 0.04, 0.09)])
    half_width = 2.9200 * sqrt(0.00145 * (4 / 3))
    assert log(found) / Z == pytest.approx(sqrt((half_width / Z) ** 2 - 0.0009), rel=1e-4)


def test_no_table_is_believed_beyond_reason() -> None:
    for alike in (comparison(0.0, 0.0), comparison(0.01, 0.05)):
        assert log(interval_factor([alike] * 5)) / Z == pytest.approx(LEAST_LOG_STD)


def test_graphs_are_checked_by_themselves() -> None:
    """A factor is the middle of those that would have been right; intervals come with the errors that are left."""
    errors = {"encoder": (0.01, -0.02, 0.5), "token": (0.06, 0.04, -0.3)}
    both = [comparison(error, 0.02, part=part) for part, each in errors.items() for error in each]
    factors = graph_factors(both)
    assert factors.artifacts == 3
    assert (factors.encoder.factor, factors.decoder.factor) == pytest.approx((exp(0.01), exp(0.04)))
    found = with_intervals(factors, both)
    assert replace(found, encoder=factors.encoder, decoder=factors.decoder) == factors
    assert (found.encoder.factor, found.decoder.factor) == (factors.encoder.factor, factors.decoder.factor)
    assert found.encoder.interval_factor == interval_factor(both[:3])
    assert found.decoder.interval_factor == interval_factor(both[3:])


@pytest.mark.parametrize("count", [8, 40])
def test_intervals_then_hold_nine_times_of_ten(count: int) -> None:
    """Errors of interpolation, common ones and a bias: centred and widened by what a few show, 90 % are inside."""
    rng = np.random.default_rng(0)
    inside, rounds = 0, 1500
    for _ in range(rounds):
        own = 0.03
        errors = 0.1 + own * rng.standard_normal(count + 1) + 0.05 * rng.standard_normal(count + 1)
        shown = [comparison(error, own, part=part) for error in errors[1:].tolist() for part in ("encoder", "token")]
        found = with_intervals(graph_factors(shown), shown).decoder
        log_std = sqrt(own**2 + (log(found.interval_factor) / Z) ** 2)
        another = comparison(float(errors[0]) - log(found.factor), log_std)
        inside += another.predicted.low_ms <= another.measured_ms <= another.predicted.high_ms
    assert inside / rounds == pytest.approx(0.9, abs=0.03)


@dataclass
class FakeBench:
    """Whole artifacts take a multiple of what a profile says."""

    times_ms: Callable[[str, str], float | None]
    reasons: dict[str, str] = field(default_factory=dict)

    def timings(self) -> "FakeBench":
        return self

    @property
    def log(self) -> "FakeBench":
        return self

    def errors(self) -> dict[str, str]:
        return self.reasons

    def of(self, name: str, part: str) -> Timing | None:
        ms = self.times_ms(name, part)
        return None if ms is None else Timing(median_ms=ms, mean_ms=ms, std_ms=0.0, min_ms=ms, repeats=16)


@pytest.fixture(scope="module")
def workloads() -> dict[str, Workload]:
    return check_workloads(("tiny.en", "base"), RUNTIME)


def test_workloads_are_others_than_those_of_the_table(workloads: dict[str, Workload]) -> None:
    assert list(workloads) == [f"{name}-{number}" for name in ("tiny.en", "base") for number in range(CHECKS)]
    fitted = {workload.recipe.id for workload in Pool.of(("tiny.en", "base"), RUNTIME).workloads}
    assert not fitted & {workload.recipe.id for workload in workloads.values()}


def test_comparisons_are_of_the_profiles_prices(workloads: dict[str, Workload]) -> None:
    profile = load_profile("imx8mplus")
    factors = {name: 1.0 + 0.01 * number for number, name in enumerate(workloads)}
    costs = {
        name: price(w.dimensions, w.recipe, profile, audio_s=w.audio_s, tokens=w.tokens)
        for name, w in workloads.items()
    }
    bench = FakeBench(lambda name, part: factors[name] * getattr(costs[name], part).ms)
    found = compare(bench, workloads, profile)
    assert {(match.workload, match.part) for match in found} == {
        (name, p) for name in workloads for p in ("encoder", "token")
    }
    for match in found:
        assert match.log_error == pytest.approx(log(factors[match.workload]))
        assert match.predicted == getattr(costs[match.workload], match.part)


def with_streams(profile: DeviceProfile, decoder_factor: float) -> DeviceProfile:
    """The profile of a machine whose cache forgets, and whose decoders take so much longer than their operations."""
    row = next(iter(profile.table.rows))
    streams = [
        replace(row, op=kind, heads=1, m=1, k=1, n=n, weight_bits=32, activation_bits=32, group_size=0, median_ms=ms)
        for kind in STREAMS
        for n, ms in ((16, 3.0), (32, 6.0), (64, 20.0), (256, 200.0))
    ]
    facts = profile.description.facts
    factor = Fact(value=decoder_factor, unit="factor", kind="estimated", source="a test")
    return replace(
        profile,
        table=replace(profile.table, rows=(*profile.table.rows, *streams)),
        description=profile.description.model_copy(
            update={"facts": facts.model_copy(update={"decoder_factor": factor})}
        ),
    )


def test_factors_are_those_with_which_a_forgetful_machine_was_predicted_right(workloads: dict[str, Workload]) -> None:
    """The factor is within the interval at which a step reads: it is not just measured over predicted."""
    plain, slow = (with_streams(load_profile("imx8mplus"), factor) for factor in (1.0, 1.3))
    costs = {
        name: price(w.dimensions, w.recipe, slow, audio_s=w.audio_s, tokens=w.tokens) for name, w in workloads.items()
    }
    found = compare(FakeBench(lambda name, part: getattr(costs[name], part).ms), workloads, plain)
    decoders = [match for match in found if match.part == "token"]
    assert any(decoder.log_error > 1.1 * log(1.3) for decoder in decoders)
    assert graph_factors(found).decoder.factor == pytest.approx(1.3, rel=1e-3)
    assert all(decoder.factor == pytest.approx(1.3, rel=1e-2) for decoder in decoders)
    assert graph_factors(found).encoder.factor == pytest.approx(1.0)


def test_what_was_not_timed_is_left_out(workloads: dict[str, Workload]) -> None:
    bench = FakeBench(lambda name, part: 5.0 if name == "base-1" else None)
    assert [compared.workload for compared in compare(bench, workloads, load_profile("imx8mplus"))] == [
        "base-1",
        "base-1",
    ]


def test_a_runtime_that_is_too_old_is_named(workloads: dict[str, Workload]) -> None:
    reasons = {"gemv-1": "no 2 bits", "tiny.en-0": "Could not find an implementation for Cos(7)"}
    bench = FakeBench(lambda name, part: None, reasons=reasons)
    with pytest.raises(InputError, match=r"no whole artifact runs on the device, .*: Could not find .* Cos\(7\)$"):
        compare(bench, workloads, load_profile("imx8mplus"))


def test_wholes_are_exported(tmp_path: Path) -> None:
    small = dict(list(check_compact().items())[:2])
    jobs = whole_jobs(small, tmp_path)
    assert [job.id for job in jobs] == list(small)
    for job, (name, workload) in zip(jobs, small.items(), strict=True):
        written = {path.name for path in (tmp_path / name).iterdir()}
        assert {"encoder.onnx", "decoder.onnx", "config.json"} <= written
        assert set(job.files) == {f"{name}/{file}" for file in written if ".onnx" in file}
        frames = encoder_frames(workload.recipe.window_s, workload.audio_s)
        assert job.entry["mel"] == (1, 80, frames)
        assert job.entry["steps"] == 2 + workload.tokens


def check_compact() -> dict[str, Workload]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluators.profiling.check.published_dimensions", lambda name: COMPACT)
        return check_workloads(("compact",), RUNTIME)
