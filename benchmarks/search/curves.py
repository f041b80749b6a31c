"""Curves over the logarithm of time as a small SVG, without a plotting library."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 380, 60, 20, 150, 50
_TICKS = {60.0: "1 min", 600.0: "10 min", 3600.0: "1 h", 14400.0: "4 h", 43200.0: "12 h"}
_FAINT = "#c8c8c8"
_LOWEST = 0.2


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values at seconds, ascending."""

    label: str
    colour: str
    seconds: Sequence[float]
    values: Sequence[float]


def curves_svg(curves: Sequence[Curve], *, least_s: float, optimum: float) -> str:
    """Objective of the pick from _LOWEST to 1; dashed: the optimum, below which picks are over the budget."""
    most_s = max(curve.seconds[-1] for curve in curves)

    def x(seconds: float) -> float:
        return log(max(seconds, least_s) / least_s) / log(most_s / least_s) * _WIDTH

    def y(value: float) -> float:
        return (1.0 - value) / (1.0 - _LOWEST) * _HEIGHT

    width, height = _LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<g transform="translate({_LEFT} {_TOP})">',
    ]
    for value in (_LOWEST, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        parts += [
            f'<path d="M0 {y(value):.1f}H{_WIDTH}" stroke="{_FAINT}" stroke-width="0.5"/>',
            f'<text x="-6" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>',
        ]
    for seconds, label in _TICKS.items():
        if least_s <= seconds <= most_s * 1.01:
            parts += [
                f'<path d="M{x(seconds):.1f} 0V{_HEIGHT}" stroke="{_FAINT}" stroke-width="0.5"/>',
                f'<text x="{x(seconds):.1f}" y="{_HEIGHT + 16}" text-anchor="middle">{label}</text>',
            ]
    parts.append(f'<path d="M0 {y(optimum):.1f}H{_WIDTH}" stroke="#222" stroke-dasharray="4 3"/>')
    for index, curve in enumerate(curves):
        places = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(curve.seconds, curve.values, strict=True))
        parts += [
            f'<polyline points="{places}" fill="none" stroke="{curve.colour}" stroke-width="1.6"/>',
            f'<path d="M{_WIDTH + 12} {20 * index + 8}h16" stroke="{curve.colour}" stroke-width="2"/>',
            f'<text x="{_WIDTH + 34}" y="{20 * index + 12}">{escape(curve.label)}</text>',
        ]
    parts += [
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#222"/>',
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT + 38}" text-anchor="middle">time, everything counted</text>',
        f'<text transform="translate(-42 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">objective of the pick</text>',
    ]
    return "\n".join([*parts, "</g>", "</svg>", ""])
