"""The schema of a running database, as pg_dump writes it, made into a baseline that the engine runs on an empty one.

What belongs to the session of a restore goes: settings, psql's own commands, user mappings with their passwords. What
is left is statements alone, one below the other, in pg_dump's order.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql

from dbplatform.migrations.classify import created_table, words_of
from dbplatform.migrations.statements import Statement, Token, split
from dbplatform.postgres.identifiers import Relation, quoted

NAME = "B1__baseline.sql"

_HEADER = """\
-- The schema as it was when the database was adopted: by pg_dump --schema-only, without owners and settings.
-- It makes an empty database like it. The adopted one has it already: dbplatform migrate baseline {database}
-- It is not undone: later changes are files of their own, V2__<words>.sql with U2__<words>.sql.
"""
_GUARD = """\
do $guard$
begin
  if to_regclass({table}) is not null then
    raise exception using message = 'this database is not empty: it has the table ' || {table},
        hint = {hint};
  end if;
end $guard$;
"""
_ROLES = """\
-- Whom rights and policies name: made here without login where they are missing, as on a server for trials.
do $roles$
declare wanted text;
begin
  foreach wanted in array {roles}::text[] loop
    if not exists (select from pg_roles where rolname = wanted) then
      execute format('create role %I nologin', wanted);
    end if;
  end loop;
end $roles$;
"""
#: Lines of pg_dump from 2025-08 on, around the whole of its text.
_RESTRICT = re.compile(r"^\\(?:un)?restrict [A-Za-z0-9]+$\n?", re.MULTILINE)
#: Settings that the statements behind them rely on; all others are of the session that restores.
_KEPT_SETTINGS = ("check_function_bodies", "standard_conforming_strings", "xmloption")
_OPTION = re.compile(r"""(?P<name>"?\w+"?\s+)(?P<value>'(?:[^']|'')*')""")
_SECRET_NAME = re.compile("pass|secret|token|key", re.IGNORECASE)
#: A value behind a name of one, in an assignment or in JSON; a bearer's token; a URL that holds a password.
_LIKE_A_PASSWORD = re.compile(
    r"""\b(?:password|passwd|secret|api_?key|token)["']?\s*(?:=>?|:=?)\s*\\?["']?[^\s'",):=]"""
    r"""|\bbearer\s+[\w.~+/-]{8}|\baccountkey\s*=|://[^\s/:@'"]+:[^\s/@'"]+@""",
    re.IGNORECASE,
)
_FOREIGN = (["create", "server"], ["create", "foreign"])
_NOBODY = ("public", "current_user", "session_user", "current_role")


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The text of the file, and what a person should know of it."""

    text: str
    statements: int
    roles: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def settings(self) -> str | None:
        """What has to stand in ``<file>.conf``; none: nothing. A dump knows no placeholders."""
        return "placeholderReplacement=false\n" if "${" in self.text else None


def as_baseline(text: str, *, database: str, user: str, hidden: Collection[Relation] = ()) -> Baseline:
    """Make what ``pg_dump --schema-only --no-owner`` wrote into a migration. Pure.

    ``user`` is who dumped: default privileges of its own are then those of whoever runs the file. Foreign keys to
    ``hidden`` tables, which the dump leaves out, are left out. The value of an option of a foreign server or table that
    looks secret is not kept. Raises ``ScriptError``.
    """
    kept: list[str] = []
    roles: dict[str, None] = {}
    notes: list[str] = []
    tables: list[str] = []
    for statement in split(_RESTRICT.sub("", text), file=NAME).statements:
        words = words_of(statement)
        if _of_the_session(words):
            continue
        if words[:3] == ["create", "user", "mapping"]:
            notes.append("User mappings hold passwords: they are not in the baseline.")
            continue
        to = _refers_to(statement, words)
        if to in hidden:
            notes.append(f"A foreign key to {to}, which could not be seen, is not in the baseline: {statement.summary}")
            continue
        table = created_table(statement)
        if table is not None:
            tables.append(".".join(map(quoted, table)))
        written = _without_secrets(statement, words, notes)
        written = _of_whoever_runs_it(statement, words, written, user)
        roles |= dict.fromkeys(one for one in _roles(statement, words) if one != user or written == statement.sql)
        if _LIKE_A_PASSWORD.search(written):
            notes.append(f"Look for a password in the baseline before you commit it: {' '.join(words[:3])} ...")
        kept.append(written)
    head = _HEADER.format(database=database)
    if tables:
        hint = f"Mark it as the one that was adopted: dbplatform migrate baseline {database}"
        head += "\n" + _filled(_GUARD, table=tables[0], hint=hint)
    if roles:
        head += "\n" + _filled(_ROLES, roles=sorted(roles))
    return Baseline(
        text=head + "".join(f"\n{statement};\n" for statement in kept),
        statements=len(kept),
        roles=tuple(sorted(roles)),
        notes=tuple(dict.fromkeys(notes)),
    )


def _filled(template: LiteralString, **values: Any) -> str:
    """The statement with its values, as a file holds it."""
    return sql.SQL(template).format(**{name: sql.Literal(value) for name, value in values.items()}).as_string(None)


def _of_the_session(words: list[str]) -> bool:
    """Whether it prepares the session, or is about what every database has."""
    if words[0] == "set":
        return not any(name in words for name in _KEPT_SETTINGS)
    return words[0] == "reset" or words[:3] == ["comment", "on", "extension"]


def _refers_to(statement: Statement, words: list[str]) -> Relation | None:
    """The table that a foreign key of an ALTER TABLE refers to."""
    if words[:2] != ["alter", "table"] or "references" not in words:
        return None
    at = words.index("references") + 1
    parts = [token.value for token in statement.tokens[at : at + 3] if token.kind in ("word", "quoted")]
    return Relation(parts[0], parts[1]) if words[at + 1 : at + 2] == ["."] and len(parts) == 2 else None


def _without_secrets(statement: Statement, words: list[str], notes: list[str]) -> str:
    if words[:2] not in _FOREIGN:
        return statement.sql
    number = 0

    def kept(option: re.Match[str]) -> str:
        nonlocal number
        if not (_SECRET_NAME.search(option["name"]) or _LIKE_A_PASSWORD.search(option["value"])):
            return option[0]
        number += 1
        return f"{option['name']}'hidden'"

    written = _OPTION.sub(kept, statement.sql)
    if number:
        notes.append(f"An option that looks secret is 'hidden' in the baseline: {' '.join(words[:2])} ...")
    return written


def _of_whoever_runs_it(statement: Statement, words: list[str], written: str, user: str) -> str:
    """Default privileges of the user itself, without its name."""
    tokens = statement.tokens
    if words[:5] == ["alter", "default", "privileges", "for", "role"] and tokens[5].value == user:
        return written[: tokens[3].start] + written[tokens[5].end :].lstrip()
    return written


def _roles(statement: Statement, words: list[str]) -> Iterable[str]:
    """Whom the statement names: grantees, those of a policy, and whose default privileges they are."""
    tokens = statement.tokens
    if words[:5] == ["alter", "default", "privileges", "for", "role"]:
        yield from _names(tokens[5:6])
    if words[0] in ("grant", "revoke") or words[:3] == ["alter", "default", "privileges"]:
        behind = [at for at, word in enumerate(words) if word in ("to", "from")]
        if behind:
            yield from _names(tokens[behind[-1] + 1 :])
    if words[:2] == ["create", "policy"]:
        # A policy's name and table come first; its expressions stand in parentheses behind USING and WITH CHECK.
        end = next((at for at, word in enumerate(words) if word in ("using", "with")), len(words))
        to = [at for at in range(4, end) if words[at] == "to"]
        if to:
            yield from _names(tokens[to[-1] + 1 : end])


def _names(tokens: Iterable[Token]) -> Iterable[str]:
    """A list of roles, up to a word that is none."""
    for token in tokens:
        if token.kind == "symbol":
            continue
        if token.kind == "word" and token.value in ("with", "granted", "cascade", "restrict"):
            return
        if token.kind == "quoted" or (token.value not in _NOBODY and not token.value.startswith("pg_")):
            yield token.value
