"""A difference between two schemas, told in one sentence."""

from __future__ import annotations

from itertools import zip_longest

from dbplatform.migrations.drift.objects import SchemaObject

#: What a part that is there or not makes of its object: with it, without it.
_FLAGS = {
    "not null": ("NOT NULL", "nullable"),
    "not valid": ("NOT VALID", "valid"),
    "disabled": ("not enforced, because triggers of it are disabled", "enforced"),
    "unlogged": ("unlogged", "logged"),
    "row level security": ("under row level security", "without row level security"),
    "forced row level security": ("under row level security for its owner", "free of it for its owner"),
    "clustered": ("what its table is clustered on", "not what its table is clustered on"),
    "cycle": ("cycling", "not cycling"),
}
#: Parts that an object is, and not has.
_IS = ("type", "state", "partition")
#: A longer definition is told by the first line that differs.
_SHOWN = 160


def sentence(wanted: SchemaObject | None, there: SchemaObject | None, part: str | None) -> str:
    """What differs: all of the object where ``part`` is none, and else that part of it."""
    thing = wanted or there
    assert thing is not None
    if thing.kind == "grant":
        return _grant(wanted, there, thing)
    name = f"{thing.kind} {'on ' if thing.kind == 'comment' else ''}{thing.name}"
    if there is None:
        return f"{name} is missing"
    if wanted is None:
        return f"{name} should not be there{': it is invalid' if 'invalid' in there.parts else ''}"
    assert part is not None
    return _part(name, part, wanted.parts.get(part), there.parts.get(part))


def _part(name: str, part: str, wanted: str | None, there: str | None) -> str:
    if part == "invalid":
        return f"{name} is invalid: it was not built to its end" if there else f"{name} is valid, and should not be"
    if part in _FLAGS:
        with_it, without = _FLAGS[part]
        now, then = ({None: without, "yes": with_it}.get(x, f"{with_it} ({x})") for x in (there, wanted))
        return f"{name} is {now}, the migrations make it {then}"
    if part in _IS and wanted and there:
        return f"{name} is {there}, the migrations make it {wanted}"
    if wanted is None:
        return f"{name} has the {part} {there}, the migrations give it none"
    if there is None:
        return f"{name} has no {part}, the migrations give it {wanted}"
    if max(len(there), len(wanted)) > _SHOWN or "\n" in there + wanted:
        there, wanted = _first_difference(there, wanted)
        return f"{name} says {_quoted(there)}, the migrations say {_quoted(wanted)}"
    if part == "text":
        there, wanted = _quoted(there), _quoted(wanted)
    return f"{name} has the {part} {there}, the migrations make it {wanted}"


def _quoted(text: str) -> str:
    return repr(text) if text else "nothing there"


def _first_difference(one: str, other: str) -> tuple[str, str]:
    for first, second in zip_longest(one.splitlines(), other.splitlines(), fillvalue=""):
        if first != second:
            return _shortened(first, second)
    return one, other


def _shortened(one: str, other: str) -> tuple[str, str]:
    """Long lines are told from a little before the place where they part."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    begin = max(0, same - 40) if max(len(one), len(other)) > _SHOWN else 0
    return _piece(one, begin), _piece(other, begin)


def _piece(text: str, begin: int) -> str:
    shown = text[begin : begin + _SHOWN].strip()
    return f"{'... ' if begin else ''}{shown}{' ...' if len(text) > begin + _SHOWN else ''}"


def _grant(wanted: SchemaObject | None, there: SchemaObject | None, thing: SchemaObject) -> str:
    of = thing.sql["of"]
    who = thing.name.removeprefix(f"{of} to ")
    given, due = privileges(there), privileges(wanted)
    lacks, surplus = ", ".join(sorted(due - given)), ", ".join(sorted(given - due))
    if lacks and surplus:
        return f"{who} has {surplus} on {of}, the migrations grant {lacks} in its place"
    if lacks:
        return f"{who} lacks {lacks} on {of}, which the migrations grant"
    return f"{who} has {surplus} on {of}, which the migrations do not grant"


def privileges(thing: SchemaObject | None) -> set[str]:
    """What a grant gives; nothing where it is not there."""
    return set(thing.parts["privileges"].split(", ")) - {"nothing"} if thing else set()
