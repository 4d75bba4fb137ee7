"""The text of a statement without the values in it.

``pg_stat_statements`` puts ``$1`` for constants, but not in utility statements (``ALTER ROLE ... PASSWORD 'x'``), and
``pg_stat_activity`` shows what was sent. Values belong to the users of the database: nothing is kept or shown of them.
Source: PostgreSQL manual, "Lexical Structure".
"""

from __future__ import annotations

import re

# In this order: what begins first wins. A text may be cut off anywhere, so each kind may end at the end. In names,
# and in the tags of dollar quotes, PostgreSQL takes every character beyond ASCII for a letter.
_PARTS = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<escaped> [eE]'(?:[^'\\]|''|\\.)*(?:'|\Z) )
    | (?P<string> (?:[uU]&|[bBxXnN])?'(?:[^']|'')*(?:'|\Z) )
    | (?P<kept> "(?:[^"]|"")*(?:"|\Z) | \$[0-9]+ | [A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]* )
    | (?P<dollar> \$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?)\$.*?(?:\$(?P=tag)\$|\Z) )
    | (?P<number> 0[xXoObB][\da-fA-F_]* | (?:\d[\d_]*)(?:\.\d*)?(?:[eE][+-]?\d+)? | \.\d+(?:[eE][+-]?\d+)? )
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
