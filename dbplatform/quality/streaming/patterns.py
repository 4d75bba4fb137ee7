"""Which regular expressions mean the same in PostgreSQL and in RE2, by construction.

Of PostgreSQL's advanced expressions only these are taken: printable ASCII characters that are no operators; operators
made plain by a backslash; ``.``; brackets of ASCII characters and ranges, without classes, equivalents or escapes of
letters; the anchors ``^`` and ``$``; groups and alternatives that are not empty; and one greedy quantifier behind a
character, a bracket or a group. All of these mean the same characters in both, and whether there is a match anywhere
does not depend on which of several matches an engine prefers. ``.`` and ``[^a]`` match a line break in PostgreSQL, and
in RE2 with the flag ``s``; ``^`` and ``$`` are the ends of the text in both unless told otherwise.

Left to the server: classes such as ``\\d`` (which in PostgreSQL know digits that are not ASCII), back references, look
around, embedded options, word boundaries, and every character that is not printable ASCII.
"""

from __future__ import annotations

import re

_PLAIN = r"[A-Za-z0-9 _\-@,:;!#%&=~<>/'\"`]"
_ESCAPED = r"\\[.^$*+?()\[\]{}|\\/\-@]"
_IN_BRACKET = r"[A-Za-z0-9 _@,:;!#%&=~<>/'\"`.*+?(){}|$]"
_RANGE = r"(?:[0-9]-[0-9]|[a-z]-[a-z]|[A-Z]-[A-Z])"
_BRACKET = rf"\[\^?(?:{_RANGE}|{_IN_BRACKET})+-?\]"
_QUANTIFIER = r"(?:[*+?]|\{\d{1,2}(?:,(?:\d{1,2})?)?\})"
_TOKEN = re.compile(rf"(?P<atom>{_PLAIN}|{_ESCAPED}|\.|{_BRACKET})|(?P<quantifier>{_QUANTIFIER})|(?P<mark>[\^$()|])")


def as_re2(regex: str) -> str | None:
    """The same expression for RE2, or none where it is not certain to be the same."""
    position, depth = 0, 0
    before = "start"  # what a quantifier or an end would follow: start, atom, anchor or quantified
    while position < len(regex):
        match = _TOKEN.match(regex, position)
        if match is None:
            return None
        position, text = match.end(), match[0]
        if match["atom"]:
            if not _in_order(text):
                return None
            before = "atom"
        elif match["quantifier"]:
            if before != "atom" or not _counts(text):
                return None
            before = "quantified"
        elif text == "(":
            if regex.startswith("?", position):
                return None
            depth, before = depth + 1, "start"
        elif text == ")":
            if depth == 0 or before == "start":
                return None
            depth, before = depth - 1, "atom"
        elif text == "|":
            if before == "start":
                return None
            before = "start"
        else:
            before = "anchor"
    if depth or before == "start":
        return None
    return f"(?s){regex}"


def prefix(regex: str) -> str | None:
    """The literal that a text must begin with, where that is all that the expression asks."""
    match = re.fullmatch(r"\^([A-Za-z0-9 _\-@,:;!#%&=~<>/]+)", regex)
    return match[1] if match else None


def _in_order(atom: str) -> bool:
    return all(low <= high for low, high in re.findall(r"([0-9A-Za-z])-([0-9A-Za-z])", atom))


def _counts(quantifier: str) -> bool:
    numbers = [int(number) for number in re.findall(r"\d+", quantifier)]
    return len(numbers) < 2 or numbers[0] <= numbers[1]
