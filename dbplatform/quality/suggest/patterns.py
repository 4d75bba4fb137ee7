"""The regular expression that texts have in common: a known family, or the shape that they share.

Only expressions that mean the same to PostgreSQL and to the stream of a large table are proposed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

_HEX = "[0-9a-f]"
#: What it is called, and how it is written; the first that all texts match is taken.
FAMILIES = (
    ("UUIDs", rf"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$"),
    ("e-mail addresses", r"^[^@ ]+@[^@ ]+\.[^@ ]+$"),
    ("web addresses", r"^https?://[^ ]+$"),
    ("IPv4 addresses", r"^[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$"),
    ("ISO 8601 dates", r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
    ("ISO 8601 moments", r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}"),
    ("telephone numbers (E.164)", r"^\+[0-9]{7,15}$"),
    ("SHA-256 sums", rf"^{_HEX}{{64}}$"),
    ("SHA-1 sums", rf"^{_HEX}{{40}}$"),
    ("MD5 sums", rf"^{_HEX}{{32}}$"),
    ("versions", r"^[0-9]+\.[0-9]+\.[0-9]+"),
    ("codes of two capitals, such as ISO 3166 countries", r"^[A-Z]{2}$"),
    ("codes of three capitals, such as ISO 4217 currencies", r"^[A-Z]{3}$"),
)
_LITERALS = frozenset("-_ :/#@,")
_MOST_RUNS = 8


def common(texts: Sequence[str]) -> tuple[str, str] | None:
    """What all of these are, and the expression that they all match; none where they have nothing in common."""
    for words, regex in FAMILIES:
        if all(_matches(regex, text) for text in texts):
            return words, regex
    shape = _shape(texts)
    return None if shape is None else ("texts of one shape", shape)


def _matches(regex: str, text: str) -> bool:
    # PostgreSQL's $ is the end of the text, Python's also before a last line break.
    return "\n" not in text and re.search(regex, text) is not None


def _shape(texts: Sequence[str]) -> str | None:
    """``ORD-000123`` and ``ORD-7`` as ``^ORD-[0-9]{1,6}$``: the same runs of capitals, letters and digits in each."""
    runs = [_runs(text) for text in texts]
    kinds = {tuple(kind for kind, _ in each) for each in runs}
    if len(kinds) != 1 or not 1 <= len(runs[0]) <= _MOST_RUNS or "other" in next(iter(kinds)):
        return None
    pieces = []
    for column in zip(*runs, strict=True):
        kind, values = column[0][0], {text for _, text in column}
        if len(values) == 1:
            pieces.append(next(iter(values)).replace(".", r"\."))
            continue
        if kind == "literal":
            return None
        lengths = sorted({len(text) for text in values})
        bounds = f"{{{lengths[0]}}}" if len(lengths) == 1 else f"{{{lengths[0]},{lengths[-1]}}}"
        if lengths[-1] > 99:
            return None
        pieces.append({"digits": "[0-9]", "capitals": "[A-Z]", "letters": "[a-z]"}[kind] + bounds)
    telling = any(kind in ("digits", "capitals") for kind in next(iter(kinds)))
    return f"^{''.join(pieces)}$" if telling else None


def _runs(text: str) -> list[tuple[str, str]]:
    return [(kind, "".join(run)) for kind, run in groupby(text, key=_kind)]


def _kind(character: str) -> str:
    if "0" <= character <= "9":
        return "digits"
    if "A" <= character <= "Z":
        return "capitals"
    if "a" <= character <= "z":
        return "letters"
    return "literal" if character in _LITERALS or character == "." else "other"
