"""Which model of a bundle listens."""

from runtime.bundle import Limits
from runtime.live.power import CALM_SEGMENTS, PowerControl
from tests.runtime.test_bundle import points


def after(power: PowerControl, *, load: float, waiting_s: float = 0.1) -> str | None:
    """The model that listens after a segment of 10 s, if it changed."""
    switch = power.after_segment(at_s=1.0, audio_s=10.0, hearing_s=10 * load, waiting_s=waiting_s)
    return switch and switch.after


def test_it_steps_down_when_it_falls_behind_and_says_why() -> None:
    power = PowerControl(points(0.4, 0.2, 0.1), Limits())
    assert after(power, load=0.5) is None
    switch = power.after_segment(at_s=30.0, audio_s=10.0, hearing_s=9.0, waiting_s=2.5)
    assert switch is not None
    assert (switch.before, switch.after, switch.at_s) == ("0.4", "0.2", 30.0)
    assert switch.reason == "2.5 s behind, 0.90 s of work a second"
    assert after(power, load=0.85) == "0.1"
    assert after(power, load=0.85) is None


def test_it_steps_up_after_calm_segments_in_a_row() -> None:
    power = PowerControl(points(0.4, 0.1), Limits())
    assert after(power, load=0.9) == "0.1"
    calm = [after(power, load=0.09) for _ in range(CALM_SEGMENTS)]
    assert calm == [None] * (CALM_SEGMENTS - 1) + ["0.4"]


def test_it_does_not_step_up_into_what_would_be_too_slow() -> None:
    """At four times the work of 0.15 it would be busy for 0.6 of the time."""
    power = PowerControl(points(0.4, 0.1), Limits())
    after(power, load=0.9)
    assert [after(power, load=0.15) for _ in range(10)] == [None] * 10


def test_a_limit_holds_also_upwards() -> None:
    power = PowerControl(points(0.4, 0.1), Limits(real_time_factor=0.2))
    assert power.point.name == "0.1"
    assert [after(power, load=0.01) for _ in range(10)] == [None] * 10
    assert after(power, load=0.3) is None
