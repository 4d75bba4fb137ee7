"""The text of a statement without the values in it.

``pg_stat_statements`` puts ``$1`` for constants, but not in utility statements (``ALTER ROLE ... PASSWORD 'x'``), and
``pg_stat_activity`` shows what was sent. Values belong to the users of the database: nothing is kept or shown of them.
Source: PostgreSQL manual, "Lexical Structure".
"""

from __future__ import annotations

import re

# In this order: what begins first wins. A text may be cut off anywhere, so each kind may end at the end.
_PARTS = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<escaped> [eE]'(?:[^'\\]|''|\\.)*(?:'|\Z) )
    | (?P<string> (?:[uU]&|[bBxXnN])?'(?:[^']|'')*(?:'|\Z) )
    | (?P<kept> "(?:[^"]|"")*(?:"|\Z) | \$\d+ | [^\W\d][\w$]* )
    | (?P<dollar> \$(?P<tag>[A-Za-z_]*)\$.*?(?:\$(?P=tag)\$|\Z) )
    | (?P<number> (?:\d[\d_]*)(?:\.\d*)?(?:[eE][+-]?\d+)? | \.\d+(?:[eE][+-]?\d+)? )
    """,
    re.VERBOSE | re.DOTALL,
)
_SPACE = re.compile(r"\s+")


def without_values(text: str) -> str:
    """The statement on one line: each constant that is still in it becomes ``?``, comments go."""
    return _SPACE.sub(" ", _PARTS.sub(_part, text)).strip()


def _part(match: re.Match[str]) -> str:
    kind = match.lastgroup if match.lastgroup != "tag" else "dollar"
    if kind == "kept":
        return match.group()
    return " " if kind == "comment" else "?"
