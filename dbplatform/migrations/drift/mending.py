"""The SQL that mends a difference, where that loses nothing: it adds, replaces or proves, and never drops data.

What exists in the live database alone is left to a person: it may be the repair of an emergency that no migration has
yet. The text is for a person to run; the platform runs none of it.
"""

from __future__ import annotations

from collections.abc import Callable

from dbplatform.migrations.drift.differences import Difference, order
from dbplatform.migrations.drift.objects import SchemaObject
from dbplatform.migrations.drift.sentences import privileges

_SEPARATOR = ";\n"
_STATES = {
    "enabled": "enable",
    "disabled": "disable",
    "enabled on replicas": "enable replica",
    "always enabled": "enable always",
}


def fix_sql(difference: Difference) -> str | None:
    """Statements that make the object what the migrations make it, one behind the other; None where none is safe."""
    wanted, there, part = difference.wanted, difference.there, difference.part
    if difference.kind == "grant":
        statements = _granted(wanted, there)
    elif difference.kind == "default privileges":
        statements = _by_default(wanted, there)
    elif wanted is None:
        statements = _left_over(difference.object)
    elif there is None:
        statements = _made(wanted, difference.with_it)
    else:
        mend = _PARTS.get((difference.kind, part or "")) or _PARTS.get(("", part or ""))
        statements = mend(wanted, there) if mend else []
    return _SEPARATOR.join(statements) + ";" if statements else None


def _left_over(there: SchemaObject) -> list[str]:
    """An index that was not built to its end serves nobody."""
    return [there.sql["drop"]] if "invalid" in there.parts and "drop" in there.sql else []


# What is missing ------------------------------------------------------------------------------------------------------


def _made(wanted: SchemaObject, with_it: tuple[SchemaObject, ...]) -> list[str]:
    """The object and what belongs to it; the columns of a table are made with it."""
    if not _make(wanted):
        return []
    things = sorted((wanted, *(thing for thing in with_it if thing.kind != "column")), key=order)
    open_to_all = {thing.sql["of"] for thing in with_it if thing.kind == "grant" and _everybodys(thing)}
    made = []
    for thing in things:
        made += _make(thing)
        if thing.kind in ("function", "procedure") and thing.full_name not in open_to_all:
            made.append(_words("revoke all on routine", thing.name, "from public"))
    made += [thing.sql["after"] for thing in things if thing.sql.get("after")]
    identities = [(thing, thing.parts.get("replica identity")) for thing in things if thing.kind == "table"]
    return made + [_words(thing.sql["alter"], "replica identity", which) for thing, which in identities if which]


def _make(wanted: SchemaObject) -> list[str]:
    if wanted.kind == "constraint":
        return _constraint(wanted)
    if wanted.kind == "grant":
        owner = wanted.name.endswith(" to the owner")
        return [] if owner or _everybodys(wanted) else _granted(wanted, None)
    if wanted.kind == "default privileges":
        return _by_default(wanted, None)
    if "make" not in wanted.sql:
        return []
    state = wanted.parts.get("state", "enabled")
    return [wanted.sql["make"], *([_state(wanted)] if state != "enabled" else [])]


def _everybodys(grant: SchemaObject) -> bool:
    """Whether PostgreSQL grants it by itself to everybody."""
    return grant.sql["to"] == "public" and str(grant.sql["on"]).startswith(("routine ", "type "))


def _constraint(wanted: SchemaObject) -> list[str]:
    """A check or foreign key is first added for new rows, then proven under a weak lock; a key by its index."""
    sql, definition = wanted.sql, wanted.sql["definition"]
    add = _words(sql["alter"], "add constraint", sql["constraint"])
    prove = _words(sql["alter"], "validate constraint", sql["constraint"])
    two_steps = sql["type"] == "c" or (sql["type"] == "f" and not sql["partitioned"])
    if two_steps and "NOT ENFORCED" not in definition:
        return [_words(add, definition, "not valid"), *([] if "not valid" in wanted.parts else [prove])]
    if "index" in sql and "WITHOUT OVERLAPS" not in definition:
        key = "primary key" if sql["type"] == "p" else "unique"
        _, deferrable, when = definition.partition(" DEFERRABLE")
        built = sql["index"].replace("CREATE UNIQUE INDEX", "CREATE UNIQUE INDEX CONCURRENTLY", 1)
        return [built, _words(add, key, "using index", sql["constraint"] + deferrable + when)]
    return [_words(add, definition)]


# Rights ---------------------------------------------------------------------------------------------------------------

_GRANTABLE = " with grant option"


def _granted(wanted: SchemaObject | None, there: SchemaObject | None) -> list[str]:
    thing = there or wanted
    assert thing is not None
    if there is None and thing.name.endswith(" to the owner"):
        return []
    due, given = privileges(wanted), privileges(there)
    on = _words("on", thing.sql["on"])
    statements = []
    for words in sorted(given - due):
        privilege = words.removesuffix(_GRANTABLE)
        option = "grant option for " if words != privilege and privilege in due else ""
        statements.append(_words("revoke", option + _of_columns(privilege, thing), on, "from", thing.sql["to"]))
    for words in sorted(due - given):
        privilege = words.removesuffix(_GRANTABLE)
        if words + _GRANTABLE not in given:
            grant = _words("grant", _of_columns(privilege, thing), on, "to", thing.sql["to"])
            statements.append(grant + (_GRANTABLE if words != privilege else ""))
    return statements


def _of_columns(privilege: str, grant: SchemaObject) -> str:
    return f"{privilege} ({grant.sql['columns']})" if grant.sql.get("columns") else privilege


def _by_default(wanted: SchemaObject | None, there: SchemaObject | None) -> list[str]:
    thing = there or wanted
    assert thing is not None
    usual = {word for word in thing.sql.get("usual", "").split(", ") if word}
    due = privileges(wanted) if wanted else usual
    given = privileges(there) if there else usual
    to, on = thing.sql["to"], _words("on", thing.sql["on"])
    lacking, surplus = ", ".join(sorted(due - given)), ", ".join(sorted(given - due))
    return [
        *([_words(thing.sql["default"], "revoke", surplus, on, "from", to)] if surplus else []),
        *([_words(thing.sql["default"], "grant", lacking, on, "to", to)] if lacking else []),
    ]


# What has another part ------------------------------------------------------------------------------------------------


def _words(*words: str) -> str:
    return " ".join(words)


def _state(wanted: SchemaObject) -> str:
    return _words(wanted.sql["alter"], _STATES[wanted.parts["state"]], wanted.sql["named"]).strip()


def _set(part: str, words: str, without: str | None) -> Callable[[SchemaObject, SchemaObject], list[str]]:
    """``alter ... <words> <value>``; ``without``: the words where there should be no such part."""

    def mend(wanted: SchemaObject, there: SchemaObject) -> list[str]:
        value = wanted.parts.get(part)
        if value is None:
            return [_words(wanted.sql["alter"], without)] if without and "alter" in wanted.sql else []
        return [_words(wanted.sql["alter"], words, value)] if "alter" in wanted.sql else []

    return mend


def _switch(on: str, off: str | None, part: str) -> Callable[[SchemaObject, SchemaObject], list[str]]:
    def mend(wanted: SchemaObject, there: SchemaObject) -> list[str]:
        action = on if wanted.parts.get(part) == "yes" else off
        told = {wanted.parts.get(part), there.parts.get(part)} <= {None, "yes"}
        return [_words(wanted.sql["alter"], action)] if action and told and "alter" in wanted.sql else []

    return mend


def _options(wanted: SchemaObject, there: SchemaObject) -> list[str]:
    if "alter" not in wanted.sql or wanted.kind == "column":
        return []
    due, given = ([o for o in x.parts.get("options", "").split(", ") if o] for x in (wanted, there))
    names = {option.partition("=")[0] for option in due}
    gone = [name for name, _, _ in (option.partition("=") for option in given) if name not in names]
    changed = [option for option in due if option not in given]
    return [
        *([_words(wanted.sql["alter"], "reset", f"({', '.join(gone)})")] if gone else []),
        *([_words(wanted.sql["alter"], "set", f"({', '.join(changed)})")] if changed else []),
    ]


def _identity(wanted: SchemaObject, there: SchemaObject) -> list[str]:
    """ALWAYS or BY DEFAULT; a sequence that is missing would begin at 1 again."""
    kinds = ("always", "by default")
    due, given = wanted.parts.get("identity", ""), there.parts.get("identity", "")
    pair = [(kind, text.removeprefix(kind)) for text in (due, given) for kind in kinds if text.startswith(kind)]
    if len(pair) != 2 or pair[0][1] != pair[1][1]:
        return []
    return [_words(wanted.sql["alter"], "set generated", pair[0][0])]


def _other_constraint(wanted: SchemaObject, there: SchemaObject) -> list[str]:
    """A check or foreign key, in one step; behind a key stand other foreign keys."""
    if {wanted.sql["type"], there.sql["type"]} - {"c", "f"}:
        return []
    add, *prove = _constraint(wanted)
    drop = _words(wanted.sql["alter"], "drop constraint", wanted.sql["constraint"])
    if wanted.sql["alter"].startswith("alter domain"):
        return ["begin", drop, add, "commit", *prove]
    return [_words(drop + ",", add.removeprefix(wanted.sql["alter"] + " ")), *prove]


def _proven(wanted: SchemaObject, there: SchemaObject) -> list[str]:
    if "not valid" in wanted.parts:
        return []
    return [_words(wanted.sql["alter"], "validate constraint", wanted.sql["constraint"])]


def _again(wanted: SchemaObject, there: SchemaObject) -> list[str]:
    """Drop and make, in one transaction."""
    return ["begin", wanted.sql["drop"], *_make(wanted), "commit"]


def _built_again(wanted: SchemaObject, there: SchemaObject) -> list[str]:
    if "make" not in wanted.sql and "invalid" not in wanted.parts:
        return [_words("reindex index concurrently", wanted.name)]
    return [there.sql["drop"], wanted.sql["make"]] if "drop" in there.sql and "make" in wanted.sql else []


def _replaced(wanted: SchemaObject, there: SchemaObject) -> list[str]:
    """OR REPLACE does it where what comes out of it has the same shape."""
    same = all(wanted.parts.get(part) == there.parts.get(part) for part in ("columns", "result"))
    return [wanted.sql["make"]] if same and "make" in wanted.sql else []


def _labels(wanted: SchemaObject, there: SchemaObject) -> list[str]:
    due, given = wanted.sql["labels"], there.sql["labels"]
    if [label for label in due if label in given] != given:
        return []
    statements = []
    for position, label in enumerate(due):
        if label not in given:
            place = _words("after", _literal(due[position - 1])) if position else _words("before", _literal(given[0]))
            statements.append(_words(wanted.sql["alter"], "add value", _literal(label), place))
    return statements


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _clustered(wanted: SchemaObject, there: SchemaObject) -> list[str]:
    return [wanted.sql["cluster"]] if "clustered" in wanted.parts else []


def _owned(wanted: SchemaObject, there: SchemaObject) -> list[str]:
    return [_words(wanted.sql["alter"], "owned by", wanted.parts.get("owner", "none"))]


_PARTS: dict[tuple[str, str], Callable[[SchemaObject, SchemaObject], list[str]]] = {
    ("", "default"): _set("default", "set default", "drop default"),
    ("", "not null"): _switch("set not null", "drop not null", "not null"),
    ("", "options"): _options,
    ("", "state"): lambda wanted, there: [_state(wanted)],
    ("column", "identity"): _identity,
    ("column", "storage"): _set("storage", "set storage", None),
    ("column", "compression"): _set("compression", "set compression", "set compression default"),
    ("column", "statistics target"): _set("statistics target", "set statistics", "set statistics -1"),
    ("table", "row level security"): _switch("enable row level security", None, "row level security"),
    ("table", "forced row level security"): _switch("force row level security", None, "forced row level security"),
    ("table", "replica identity"): _set("replica identity", "replica identity", "replica identity default"),
    ("constraint", "definition"): _other_constraint,
    ("constraint", "not valid"): _proven,
    ("index", "definition"): _built_again,
    ("index", "invalid"): _built_again,
    ("index", "clustered"): _clustered,
    ("sequence", "type"): _set("type", "as", None),
    ("sequence", "start"): _set("start", "start", None),
    ("sequence", "increment"): _set("increment", "increment", None),
    ("sequence", "minvalue"): _set("minvalue", "minvalue", None),
    ("sequence", "maxvalue"): _set("maxvalue", "maxvalue", None),
    ("sequence", "cache"): _set("cache", "cache", None),
    ("sequence", "cycle"): _switch("cycle", "no cycle", "cycle"),
    ("sequence", "owner"): _owned,
    ("function", "definition"): _replaced,
    ("procedure", "definition"): _replaced,
    ("view", "definition"): _replaced,
    ("rule", "definition"): _replaced,
    ("trigger", "definition"): _again,
    ("policy", "definition"): _again,
    ("statistics", "definition"): _again,
    ("event trigger", "definition"): _again,
    ("enum", "values"): _labels,
    ("comment", "text"): lambda wanted, there: [wanted.sql["make"]],
}
