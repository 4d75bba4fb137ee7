"""Values in the words of a message: a ratio as per cent, seconds as hours and minutes, bytes as PostgreSQL's sizes."""

from __future__ import annotations

from dbplatform.monitoring.kind import Unit

_SIZES = ((1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))
_TIMES = ((86_400, "d"), (3_600, "h"), (60, "min"))


def value_words(value: float, unit: Unit) -> str:
    """``97.3 %``, ``1.2 h``, ``51 MB``, ``51 MB/s``, ``3``."""
    if unit == "ratio":
        return f"{value * 100:.4g} %"
    if unit == "bytes":
        return _scaled(value, _SIZES, "bytes")
    if unit == "bytes_per_second":
        return f"{_scaled(value, _SIZES, 'bytes')}/s"
    if unit == "per_second":
        return f"{value:,.4g}/s"
    if unit == "seconds":
        return _scaled(value, _TIMES, "s")
    return f"{value:,.6g}"


def _scaled(value: float, scale: tuple[tuple[int, str], ...], base: str) -> str:
    for size, name in scale:
        if abs(value) >= size:
            return f"{value / size:.4g} {name}"
    return f"{value:.4g} {base}"
