"""The declaration of an adopted database as text: every proposal with its evidence, in comments.

What makes partitions ahead of time, checks, measures and backs up is in force. What would change or delete data is a
comment, ready to be uncommented line by line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from dbplatform.operations.adoption.candidates import Candidate
from dbplatform.operations.adoption.limits import Limit
from dbplatform.operations.adoption.survey import Survey
from dbplatform.postgres.identifiers import Relation, quoted
from dbplatform.quality.suggest.suggestions import TableSuggestions, as_yaml

_KEEP = "24 months"
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposals:
    """All that was found out, to be written down."""

    name: str
    url_env: str
    environment: str
    survey: Survey
    history_table: Relation | None
    """Where the migrations are recorded, where their usual table is another tool's."""
    lint_rules: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    limits: tuple[Limit, ...]
    checks: tuple[TableSuggestions, ...]
    missing_here: tuple[str, ...]
    """Extensions that the embedded server lacks."""
    notes: tuple[str, ...]


def declaration(of: Proposals) -> str:
    """The text of ``defs.yaml``."""
    sections = [
        _head(of),
        _connection(of),
        _migrations(of),
        _partitions(of),
        _archives(of),
        _backups(of),
        _limits(of),
        as_yaml(of.checks).splitlines(),
    ]
    return "\n".join(line.rstrip() for section in sections for line in section) + "\n"


def unread(found: Survey) -> list[Relation]:
    """What the backup could not dump whole: tables without rights, and those of which policies hide rows."""
    return [*found.unreadable, *(table.relation for table in found.tables if table.secured)]


def _head(of: Proposals) -> Iterator[str]:
    server = of.survey.server
    yield "type: dbplatform.ManagedDatabase"
    yield "attributes:"
    yield f"  # Adopted on {server.now:%Y-%m-%d} from {_line(server.database)}, PostgreSQL {_line(server.version)}."
    yield f"  # Seen as {_line(server.user)}: {len(of.survey.tables)} tables, {of.survey.others} views and the like."
    for note in of.notes:
        yield f"  # {_line(note)}"
    yield f"  name: {of.name}"
    yield '  owners: ["team:data"]'


def _connection(of: Proposals) -> Iterator[str]:
    yield "  connection:"
    yield f"    url_env: {of.url_env}          # the variable that holds the URL; the URL itself is written nowhere"
    yield f"    environment: {of.environment}      # development, test, staging or production"
    if of.missing_here:
        lacking = ", ".join(map(_line, of.missing_here))
        yield f"    # The embedded server lacks {lacking}: name one that has it, for trials and drills."
        yield f"    # scratch_url_env: {of.url_env}_SCRATCH"


def _migrations(of: Proposals) -> Iterator[str]:
    yield "  migrations:"
    yield "    directory: migrations      # B1__baseline.sql: the schema as it was; yours begin with V2__<words>.sql"
    if of.history_table is not None:
        yield "    # public.flyway_schema_history is there already, of another set of files."
        yield f"    history_table: {of.history_table}"
    if of.lint_rules:
        yield "    lint:"
        yield "      accept:"
        rules = ", ".join(of.lint_rules)
        yield f'        - {{script: B1__baseline.sql, rules: [{rules}], reason: "the schema as it was adopted"}}'


def _partitions(of: Proposals) -> Iterator[str]:
    if not of.candidates:
        yield "  # No partition candidates: no table is as large, or no column tells when its rows came."
        return
    active = [one for one in of.candidates if one.active]
    if active:
        yield "  partitioned_tables:"
        for one in active:
            yield from _candidate(of.name, one, "    ")
    rest = [one for one in of.candidates if not one.active]
    if rest:
        yield "  # Partition candidates: a conversion changes the table. Look first, then uncomment and type"
        yield f"  #   dbplatform partition convert {of.name} --table TABLE"
        if not active:
            yield "  # partitioned_tables:"
        for one in rest:
            yield from _candidate(of.name, one, "  #   ")


def _candidate(name: str, one: Candidate, margin: str) -> Iterator[str]:
    for words in one.evidence:
        yield f"{margin}# {_line(words)}"
    for words in one.obstacles:
        yield f"{margin}# in the way: {_line(words)}"
    entry = {"table": str(one.table.relation), "column": quoted(one.column), "interval": one.interval}
    if one.active:
        entry["start"] = one.interval
    yield f"{margin}- {_flow(entry)}"
    yield f"{margin}#   with retain: {_KEEP} partitions older than that leave the table, once their rows are archived"


def _archives(of: Proposals) -> Iterator[str]:
    old = [one for one in of.candidates if one.archive is not None]
    if not old:
        return
    yield "  # Archive proposals: old rows move into Parquet files and are deleted, behind a proven backup."
    yield "  # archives:"
    taken: set[str] = set()
    for one in old:
        assert one.archive is not None
        yield f"  #   # {_line(one.archive)}"
        name = f"old_{''.join(c if c in _WORD else '_' for c in one.table.relation.word.lower())}"[:44]
        while name in taken:
            name += "_"
        taken.add(name)
        entry = {
            "name": name,
            "table": str(one.table.relation),
            "column": quoted(one.column),
            "older_than": "12 months",
        }
        yield f"  #   - {_flow(entry)}"


_WORD = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")


def _backups(of: Proposals) -> Iterator[str]:
    lacking = unread(of.survey)
    mark = ""
    if lacking:
        mark = "# "
        yield "  # No backup: pg_dump reads every row of every table, and this user may not read all of"
        yield f"  # {_named(lacking)}. Grant it, then uncomment."
    if of.survey.server.is_replica:
        mark = "# "
        yield "  # No backup from a replica: give the primary's URL, then uncomment."
    yield f"  {mark}backups:"
    yield f"  {mark}  # destination: s3://bucket/prefix     # left out: a folder below DBPLATFORM_HOME"
    yield f"  {mark}  retain: {{daily: 7, weekly: 4, monthly: 12}}"
    yield f"  {mark}  drill: {{max_age: 8 days}}     # nothing is pruned or archived without a proof that is younger"


def _limits(of: Proposals) -> Iterator[str]:
    active = [one for one in of.limits if one.active]
    if active:
        yield "  thresholds:     # all other metrics have the limits that experts use"
    for one in active:
        yield f"    # {_line(one.evidence)}"
        yield f"    - {_flow(threshold(one))}"
    for one in of.limits:
        if not one.active:
            yield f"    # {_line(one.evidence)}; mend that, or accept it:"
            yield f"    # - {_flow(threshold(one))}"


def threshold(one: Limit) -> dict[str, str]:
    """The entry as a person writes it."""
    entry = {"metric": one.metric, "warn": one.warn}
    return entry if one.critical is None else {**entry, "critical": one.critical}


def _named(relations: Sequence[Relation]) -> str:
    named = ", ".join(map(str, relations[:_MOST_NAMED]))
    return _line(named + (f" and {len(relations) - _MOST_NAMED} more" if len(relations) > _MOST_NAMED else ""))


def _flow(value: Any) -> str:
    """On one line, as YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1_000_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _line(text: str) -> str:
    """On one line, for a comment: nothing in it can end the comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def without_collisions(found: Iterable[TableSuggestions]) -> tuple[list[TableSuggestions], list[str]]:
    """Without the tables whose name as an asset is taken by another one, and a note on each."""
    kept, notes, words = [], [], dict[str, str]()
    for one in found:
        word = Relation.parse(one.table).word
        first = words.setdefault(word, one.table)
        if first == one.table:
            kept.append(one)
        else:
            notes.append(f"{one.table} is not checked: in Dagster it would be called {word}, as {first} is.")
    return kept, notes
