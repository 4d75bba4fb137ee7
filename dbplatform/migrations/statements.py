"""Split an SQL script into its statements, each with its line, as psql would.

The lexical rules are PostgreSQL's (manual, "Lexical Structure"; src/backend/parser/scan.l), the rule where a statement
ends is psql's (src/fe_utils/psqlscan.l): a semicolon outside of parentheses and of a ``BEGIN ATOMIC ... END`` body.
What a statement means is ``classify``'s business.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from psycopg import sql
from psycopg.abc import AdaptContext

from dbplatform.migrations.errors import ScriptError

_IDENTIFIER = r"[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*"
# Possessive repeats (*+) keep the search linear, however long a string that does not end may be.
_PLAIN = r"'(?:[^']++|'')*+'"
_ESCAPED = r"'(?:[^'\\]++|''|\\.)*+'"


@cache
def _token_pattern(backslashes: bool) -> re.Pattern[str]:
    """The pieces of SQL; with ``backslashes`` a plain string knows escapes, as with standard_conforming_strings off."""
    plain = _ESCAPED if backslashes else _PLAIN
    # Rows of plain values are one piece: nothing in them can end or judge a statement, and data has millions of them.
    row = (
        rf"\((?:[ \t\n\r\f\v,0-9.]++|-(?=[0-9])|{plain}"
        r"|(?i:null|true|false)(?![A-Za-z0-9_$'\"&\x80-\U0010ffff]))*+\)"
    )
    return re.compile(
        rf"""
          (?P<space>[ \t\n\r\f\v]+)
        | (?P<row>{row}(?:[ \t\n\r\f\v]*+,[ \t\n\r\f\v]*+{row})*+)
        | (?P<comment>--[^\n\r]*)
        | (?P<block>/\*)
        | (?P<escape>[eE]{_ESCAPED}(?:[ \t\f\v]*[\n\r][ \t\n\r\f\v]*{_ESCAPED})*)
        | (?P<string>(?:[bBxX]|[uU]&){_PLAIN}|[nN]?{plain})
        | (?P<quoted>(?:[uU]&)?"(?:[^"]++|"")*+")
        | (?P<dollar>\$(?:{_IDENTIFIER})?\$)
        | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
        | (?P<number>[0-9][0-9A-Za-z_.]*)
        | (?P<symbol>.)
        """,
        re.VERBOSE | re.DOTALL,
    )


# CREATE ROLE ... PASSWORD '...', OPTIONS (password '...'), and a connection string in quotes.
_SECRET = re.compile(
    r"(\bpassword\s*)(?:(?:e|u&)?'(?:[^'\\]|''|\\.)*'|\$(\w*)\$.*?\$\2\$|=\s*[^\s']+)", re.IGNORECASE | re.DOTALL
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_LINE_END = re.compile(r"\r\n|\n|\r")

TokenKind = Literal["word", "quoted", "string", "number", "symbol"]


class Token(NamedTuple):
    """A piece of a statement: words in lower case, quoted names without their quotes, positions in the statement.

    Parentheses that hold nothing but plain values, ``(1, 'a'), (2, null)``, are one piece of the kind ``string``.
    """

    kind: TokenKind
    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement without its semicolon, and without comments before and after it."""

    sql: str
    line: int
    """Where it begins in its file, from 1."""
    tokens: tuple[Token, ...] = field(repr=False, compare=False)
    copy_data: str | None = None
    r"""The lines that follow a ``COPY ... FROM stdin``, without the closing ``\.``."""

    def line_of(self, position: int) -> int:
        """The line in the file of a character of the statement, counted from 0."""
        return self.line + len(_LINE_END.findall(self.sql, 0, position))

    @property
    def shown(self) -> str:
        """The statement without the passwords in it: what may be printed, logged and kept."""
        return _SECRET.sub(r"\1'***'", self.sql) if "password" in self.sql.lower() else self.sql

    @property
    def summary(self) -> str:
        """The statement on one line, shortened: for messages."""
        text = " ".join(self.shown.split())
        return text if len(text) <= 120 else text[:117] + "..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A ``--`` comment, without the dashes."""

    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script in pieces."""

    statements: tuple[Statement, ...]
    comments: tuple[Comment, ...]


class Verbatim(sql.Composable):
    """SQL that a migration file wrote, as a part of a composed statement."""

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        return str(self._obj).encode()


@lru_cache(maxsize=1024)
def split(text: str, *, file: Path | str | None = None, backslashes: bool = False) -> Script:
    """The statements and ``--`` comments of a script; empty statements are left out.

    ``backslashes``: the session has ``standard_conforming_strings`` off, so that a backslash escapes in plain strings;
    a script that sets it is read accordingly from there on. Raises ``ScriptError``, with file and line, for what does
    not end (a string, a comment, COPY data) and for psql's backslash commands.
    A script that is planned and then applied is read once.
    """
    return _Splitter(text, file, backslashes).split()


class _Splitter:
    def __init__(self, text: str, file: Path | str | None, backslashes: bool) -> None:
        self.text, self.file = text, file
        self.pattern = _token_pattern(backslashes)
        self.position = 0
        self.line_starts = [0, *(match.end() for match in _LINE_END.finditer(text))]
        self.comments: list[Comment] = []

    def split(self) -> Script:
        statements: list[Statement] = []
        tokens: list[Token] = []
        ends = _StatementEnd()
        for token in self._tokens():
            if ends.at(token):
                if tokens:
                    statements.append(self._statement(tokens, token))
                tokens, ends = [], _StatementEnd()
            else:
                tokens.append(token)
        if tokens:
            statements.append(self._statement(tokens, None))
        return Script(statements=tuple(statements), comments=tuple(self.comments))

    def _statement(self, tokens: list[Token], semicolon: Token | None) -> Statement:
        start, end = tokens[0].start, tokens[-1].end
        copy_data = None
        backslashes = _sets_backslashes(tokens, self.text[start:end])
        if backslashes is not None:
            self.pattern = _token_pattern(backslashes)
        if _reads_stdin(tokens):
            if semicolon is None:
                raise self._error(start, "COPY ... FROM stdin has no semicolon and no data.")
            copy_data = self._copy_data(semicolon.end)
        if tokens[0].value in ("insert", "values"):
            # Nobody asks what stands in them, and a seed of many megabytes has millions of tokens.
            tokens = tokens[:1]
        return Statement(
            sql=self.text[start:end],
            line=self._line(start),
            tokens=tuple(t._replace(start=t.start - start, end=t.end - start) for t in tokens),
            copy_data=copy_data,
        )

    def _tokens(self) -> Iterator[Token]:
        text = self.text
        while self.position < len(text):
            match = self.pattern.match(text, self.position)
            assert match is not None
            start, end, kind = match.start(), match.end(), match.lastgroup
            self.position = end
            if kind == "space":
                continue
            if kind == "comment":
                self.comments.append(Comment(text=match.group()[2:], line=self._line(start)))
            elif kind == "block":
                self.position = self._end_of_block(start)
            elif kind == "dollar":
                self.position = self._end_of_dollar(start, match.group())
                yield Token("string", "", start, self.position)
            elif kind in ("row", "escape", "string"):
                yield Token("string", "", start, end)
            elif kind == "quoted":
                name = match.group().lstrip("uU&")[1:-1].replace('""', '"')
                yield Token("quoted", name, start, end)
            elif kind == "word":
                yield Token("word", _lower(match.group()), start, end)
            elif kind == "number":
                yield Token("number", match.group(), start, end)
            else:
                yield self._symbol(match.group(), start)

    def _symbol(self, symbol: str, start: int) -> Token:
        if symbol == "'":
            raise self._error(start, "A string in single quotes does not end.")
        if symbol == '"':
            raise self._error(start, "A name in double quotes does not end.")
        if symbol == "\\":
            line = self.text[start : self._end_of_line(start)]
            raise self._error(
                start,
                f"{line.split()[0]} is a command of psql, not SQL.",
                "Migrations are sent to the server as they are: write SQL instead.",
            )
        return Token("symbol", symbol, start, start + 1)

    def _end_of_block(self, start: int) -> int:
        depth, position = 1, start + 2
        while depth:
            edge = _BLOCK_EDGE.search(self.text, position)
            if edge is None:
                raise self._error(start, "A comment /* does not end.", "Block comments nest: each /* needs its own */.")
            depth += 1 if edge.group() == "/*" else -1
            position = edge.end()
        return position

    def _end_of_dollar(self, start: int, quote: str) -> int:
        end = self.text.find(quote, start + len(quote))
        if end < 0:
            raise self._error(start, f"A string in {quote} does not end.")
        return end + len(quote)

    def _end_of_line(self, position: int) -> int:
        match = _LINE_END.search(self.text, position)
        return match.start() if match else len(self.text)

    def _copy_data(self, position: int) -> str:
        """The lines after a COPY up to ``\\.``; the splitter goes on behind them."""
        rest = self._end_of_line(position)
        if self.text[position:rest].strip():
            raise self._error(position, "The data of COPY ... FROM stdin begins on the line after its semicolon.")
        first = bisect_right(self.line_starts, rest)
        for number in range(first, len(self.line_starts)):
            start = self.line_starts[number]
            end = self._end_of_line(start)
            if self.text[start:end] == "\\.":
                self.position = end
                return self.text[self.line_starts[first] : start]
        raise self._error(position, r"The data of COPY ... FROM stdin does not end.", r"Write \. on a line of its own.")

    def _line(self, position: int) -> int:
        return bisect_right(self.line_starts, position)

    def _error(self, position: int, message: str, hint: str | None = None) -> ScriptError:
        return ScriptError(message, hint=hint, file=self.file, line=self._line(position))


class _StatementEnd:
    """Finds the semicolon that ends a statement: outside of parentheses and of a function's ``BEGIN ATOMIC`` body."""

    def __init__(self) -> None:
        self.parentheses = 0
        self.blocks = 0
        self.head: list[str] = []
        self.before = ""

    def at(self, token: Token) -> bool:
        value = token.value if token.kind in ("word", "symbol") else ""
        if value == ";":
            return self.parentheses == 0 and self.blocks == 0
        if len(self.head) < 4:
            self.head.append(value)
        if value == "(":
            self.parentheses += 1
        elif value == ")":
            self.parentheses = max(0, self.parentheses - 1)
        elif token.kind == "word":
            self._word(value)
        self.before = value
        return False

    def _word(self, word: str) -> None:
        if self.blocks == 0:
            if word == "atomic" and self.before == "begin" and self.parentheses == 0 and self._makes_routine():
                self.blocks = 1
        elif self.before not in (".", "as"):
            # `x.end` and `as case` are names.
            if word == "case":
                self.blocks += 1
            elif word == "end":
                self.blocks -= 1

    def _makes_routine(self) -> bool:
        words = [word for word in self.head if word not in ("or", "replace")]
        return len(words) > 1 and words[0] == "create" and words[1] in ("function", "procedure")


def _reads_stdin(tokens: list[Token]) -> bool:
    if tokens[0].kind != "word" or tokens[0].value != "copy":
        return False
    words = [token.value if token.kind == "word" else "" for token in tokens]
    return any(a == "from" and b == "stdin" for a, b in pairwise(words))


def _sets_backslashes(tokens: list[Token], text: str) -> bool | None:
    """Whether plain strings know escapes from here on; None for any statement but SET standard_conforming_strings."""
    words = [token.value for token in tokens[:3] if token.kind in ("word", "quoted")]
    if words[:1] != ["set"] or "standard_conforming_strings" not in words:
        return None
    return re.search(r"\b(off|false|no|0)\W*\Z", text, re.IGNORECASE) is not None


def _lower(word: str) -> str:
    """Lower case for ASCII letters only, as PostgreSQL folds in UTF-8."""
    return word.lower() if word.isascii() else "".join(c.lower() if c.isascii() else c for c in word)
