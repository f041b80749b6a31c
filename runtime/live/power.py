"""Which model of a bundle listens: a cheaper one when it falls behind, a better one when there is room."""

from collections.abc import Sequence

from runtime.bundle import Limits, Point, chosen
from runtime.live.events import Switch

BEHIND_S = 1.0
"""So much audio waiting at a pause means that the device is too slow."""
BUSY, ROOM = 0.8, 0.4
"""Time spent on hearing by time: above the first it steps down; up, if the better model stayed below the other."""
CALM_SEGMENTS = 3
"""So many segments in a row must leave room before it steps up."""


class PowerControl:
    """Follows how long hearing takes, segment by segment."""

    def __init__(self, points: Sequence[Point], limits: Limits) -> None:
        """`points`: the most accurate first."""
        self._points = points
        self._limits = limits
        self.current = chosen(points, limits)
        self._calm = 0

    @property
    def point(self) -> Point:
        """The one that listens."""
        return self._points[self.current]

    def after_segment(self, *, at_s: float, audio_s: float, hearing_s: float, waiting_s: float) -> Switch | None:
        """At a pause: the change, if there is one.

        `at_s`: where in the stream. The segment had `audio_s` seconds of audio and took `hearing_s`; `waiting_s` of
        further audio were there already.
        """
        load = hearing_s / max(audio_s, 1e-9)
        slower = waiting_s > BEHIND_S or load > (self._limits.real_time_factor or BUSY)
        if slower:
            self._calm = 0
            reason = f"{waiting_s:.1f} s behind, {load:.2f} s of work a second"
            return self._switched(self.current + 1, at_s, reason)
        if self.current == 0:
            return None
        better = self._points[self.current - 1]
        expected = load * better.real_time_factor / self.point.real_time_factor
        has_room = expected <= min(ROOM, self._limits.real_time_factor or ROOM) and self._limits.hold(better)
        self._calm = self._calm + 1 if has_room else 0
        if self._calm < CALM_SEGMENTS:
            return None
        self._calm = 0
        return self._switched(self.current - 1, at_s, f"{expected:.2f} s of work a second expected")

    def _switched(self, to: int, at_s: float, reason: str) -> Switch | None:
        if not 0 <= to < len(self._points):
            return None
        before, self.current = self.point.name, to
        return Switch(at_s=at_s, before=before, after=self.point.name, reason=reason)
