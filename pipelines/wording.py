"""Numbers as people read them, on a terminal, on a page and in a table: each is written in one way.

Values are what results hold: fractions, bytes, seconds, None or NaN where there is none. Where a
number is not there, `missing` stands in its place: "unknown" on a terminal, `NONE` on a page, ""
in a cell of a table. A cell has its minus as a sign of its own: `MINUS`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

NONE = "–"
MINUS = "−"
UNTRAINED = "UNTRAINED"


def number(
    value: float | None,
    digits: int = 2,
    *,
    unit: str = "",
    missing: str = "unknown",
    signed: bool = False,
    minus: str = "-",
) -> str:
    """1.2345 as "1.23"; signed: with a plus as well."""
    if value is None or not math.isfinite(value):
        return missing
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", minus) + unit


def percent(
    value: float | None,
    digits: int = 1,
    *,
    unit: str = " %",
    missing: str = "unknown",
    signed: bool = False,
    minus: str = "-",
) -> str:
    """The fraction 0.3147 as "31.5 %"."""
    value = None if value is None else 100 * value
    return number(value, digits, unit=unit, missing=missing, signed=signed, minus=minus)


def points(value: float | None, digits: int = 2, *, missing: str = "unknown") -> str:
    """The difference of two fractions, 0.0123, as "+1.23 points"."""
    return percent(value, digits, unit=" points", missing=missing, signed=True)


def between(low: float | None, high: float | None, shown: Callable[..., str] = number) -> str:
    """An interval as "21.4 % to 25.1 %"; "no interval" where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "no interval"
    return f"{shown(low)} to {shown(high)}"


def thousands(value: float) -> str:
    """12345 as "12,345"."""
    return f"{value:,.0f}"


@dataclass(frozen=True)
class Scale:
    """How values of a measure are written: times `factor`, with so many `digits`; `unit` stands
    behind them, or in the heading where many stand in a column."""

    factor: int
    unit: str
    digits: int

    @classmethod
    def of(cls, measure: str) -> "Scale":
        """Of a name as it stands in results, `val_mAP` and `mAP_low` as well as `mAP`."""
        from train.metrics import measures  # loads scikit-learn, which no other number needs

        return PERCENT if measures.measure(measure).percent else PLAIN

    def number(
        self,
        value: float | None,
        *,
        unit: str = "",
        missing: str = "",
        signed: bool = False,
        minus: str = "-",
    ) -> str:
        """A value for a cell: without its unit, and nothing where there is none."""
        value = None if value is None else self.factor * value
        return number(value, self.digits, unit=unit, missing=missing, signed=signed, minus=minus)

    def interval(self, low: float | None, high: float | None, *, minus: str = "-") -> str:
        """Its ends as "21.40 to 25.10"; nothing where one of them is not there."""
        ends = [self.number(end, minus=minus) for end in (low, high)]
        return " to ".join(ends) if all(ends) else ""


PERCENT = Scale(100, " %", 2)
PLAIN = Scale(1, "", 4)


def cell(value: object) -> str:
    """A setting, or what else a cell of a table may hold: five digits of a number."""
    if isinstance(value, float):
        return f"{value:.5g}"
    return "" if value is None else str(value)


def size(count: float) -> str:
    """Bytes."""
    return f"{count / 1e9:.2f} GB" if count > 1e9 else f"{count / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def counts(found: Mapping[str, int]) -> str:
    """{"ok": 1200, "no_face": 3} as "1,200 ok, 3 no_face"."""
    return ", ".join(f"{n:,} {name}" for name, n in found.items()) or "none"


def shares(parts: Mapping[str, float], most: int = 4) -> str:
    """The parts that are largest, in per cent of all of them: "decode 61%, network 30%"."""
    whole = sum(parts.values()) or 1.0
    ranked = sorted(parts.items(), key=lambda part: -part[1])[:most]
    return ", ".join(f"{name} {part / whole:.0%}" for name, part in ranked)


def untrained(network: str) -> str:
    """What must be said of a network without trained weights, above all numbers that rest on it."""
    return f"{UNTRAINED} {network} runs on random weights: its features carry no learned meaning"
