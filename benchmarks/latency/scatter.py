"""A plot of predicted against measured latencies as a small SVG, without a plotting library."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SIDE = 360
_LEFT, _TOP, _BOTTOM = 66, 40, 52
_PANEL = _LEFT + _SIDE + 24
_FAINT = "#c8c8c8"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Points of one colour; measured and predicted have shape (n,). `opacity`: less than 1 where there are many."""

    label: str
    colour: str
    opacity: float
    measured_ms: Array
    predicted_ms: Array


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A square with logarithmic axes and the diagonal."""

    title: str
    groups: tuple[Group, ...]


def scatter_svg(panels: Sequence[Panel]) -> str:
    """The panels side by side. Solid: predicted = measured; dashed: 10 % above and below."""
    width, height = _PANEL * len(panels), _TOP + _SIDE + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for index, panel in enumerate(panels):
        parts += [f'<g transform="translate({index * _PANEL + _LEFT} {_TOP})">', *_panel(panel, index), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Both axes of a panel: natural logarithms of the ends."""

    low: float
    high: float

    def at(self, ms: float) -> float:
        """Pixels from the origin."""
        return (math.log(ms) - self.low) / (self.high - self.low) * _SIDE

    def ticks(self) -> list[float]:
        """1, 2, 3, 5, 7 times powers of ten."""
        powers = range(math.floor(self.low / math.log(10)), math.ceil(self.high / math.log(10)) + 1)
        values = [step * 10.0**power for power in powers for step in (1, 2, 3, 5, 7)]
        return [value for value in values if self.low <= math.log(value) <= self.high]


def _panel(panel: Panel, index: int) -> list[str]:
    values = np.concatenate([np.concatenate([group.measured_ms, group.predicted_ms]) for group in panel.groups])
    axis = _Axis(low=math.log(values.min() / 1.15), high=math.log(values.max() * 1.15))
    clip = f"panel{index}"
    return [
        f'<clipPath id="{clip}"><rect width="{_SIDE}" height="{_SIDE}"/></clipPath>',
        f'<text y="-22" font-size="14" font-weight="bold">{escape(panel.title)}</text>',
        *_grid(axis),
        f'<g clip-path="url(#{clip})" fill="none">',
        *[_points(group, axis) for group in panel.groups],
        *_diagonals(axis),
        "</g>",
        f'<rect width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#222"/>',
        *_labels(panel),
    ]


def _grid(axis: _Axis) -> list[str]:
    lines = []
    for value in axis.ticks():
        place, text = axis.at(value), f"{value:,.10g}"
        lines += [
            f'<path d="M{place:.1f} 0V{_SIDE}M0 {_SIDE - place:.1f}H{_SIDE}" stroke="{_FAINT}" stroke-width="0.5"/>',
            f'<text x="{place:.1f}" y="{_SIDE + 16}" text-anchor="middle">{text}</text>',
            f'<text x="-6" y="{_SIDE - place + 4:.1f}" text-anchor="end">{text}</text>',
        ]
    return lines


def _points(group: Group, axis: _Axis) -> str:
    places = zip(group.measured_ms, group.predicted_ms, strict=True)
    dots = "".join(f"M{axis.at(x):.1f} {_SIDE - axis.at(y):.1f}h0" for x, y in places)
    stroke = f'stroke="{group.colour}" stroke-opacity="{group.opacity}" stroke-width="3.6" stroke-linecap="round"'
    return f'<path d="{dots}" {stroke}/>'


def _diagonals(axis: _Axis) -> list[str]:
    shift = math.log(1.1) / (axis.high - axis.low) * _SIDE
    return [
        f'<path d="M0 {_SIDE - up:.1f}L{_SIDE} {-up:.1f}" stroke="#222" stroke-width="1"{dash}/>'
        for up, dash in ((0.0, ""), (shift, ' stroke-dasharray="4 3"'), (-shift, ' stroke-dasharray="4 3"'))
    ]


def _labels(panel: Panel) -> list[str]:
    middle = _SIDE / 2
    lines = [
        f'<text x="{middle}" y="{_SIDE + 38}" text-anchor="middle">measured, ms</text>',
        f'<text transform="translate(-50 {middle}) rotate(-90)" text-anchor="middle">predicted, ms</text>',
    ]
    place = 0
    for group in panel.groups:
        lines += [
            f'<circle cx="{place + 5}" cy="-10" r="3.5" fill="{group.colour}"/>',
            f'<text x="{place + 13}" y="-6">{escape(group.label)}</text>',
        ]
        place += 27 + round(6.2 * len(group.label))
    return lines
