"""Suggests checks for a table: from its constraints, its comments and one bounded read of its data, then tries them.

Each suggestion has been run in the end, over the whole table: what did not pass is not suggested. A comment or a
constraint that the data contradicts becomes a note, because that is worth knowing. Only reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import yaml

from dbplatform.errors import WorkError
from dbplatform.postgres.catalog import TableMissing, require_table
from dbplatform.postgres.connection import AutocommitConnection, SnapshotConnection, snapshot
from dbplatform.postgres.identifiers import Relation, quoted
from dbplatform.quality.checks import Check
from dbplatform.quality.engine import run_table
from dbplatform.quality.masks import Masks, reason_of
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.suggest import rules
from dbplatform.quality.suggest.constraints import Constraints, Reference, constraints, referable
from dbplatform.quality.suggest.profile import MOST_ROWS, NUMBERS, Profile, profile
from dbplatform.quality.suggest.rules import Suggestion

STATEMENT_TIMEOUT_MS = 60_000
_LEAST_DIFFERENT = 5

_TABLES = """
    select n.nspname::text, c.relname::text
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and not c.relispartition and has_table_privilege(c.oid, 'select')
      and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'dbplatform')
      and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
    order by n.nspname, c.relname
"""


class CannotProfile(WorkError):
    """The table {table} could not be read for suggestions: {reason}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSuggestions:
    """The suggestions for one table; ``notes`` are what is worth knowing and no check."""

    table: str
    rows_read: int
    sampled: float | None
    checks: tuple[Suggestion, ...]
    notes: tuple[str, ...]
    untried: tuple[Suggestion, ...] = ()
    """Seen in the rows that were read, and not tried on the whole table."""

    def as_json(self) -> dict[str, Any]:
        """The table, and each check with its evidence."""
        return {
            "table": self.table,
            "rows_read": self.rows_read,
            "sampled_percent": self.sampled,
            "checks": [
                {"check": one.declaration, "evidence": one.evidence, "source": one.source, "proof": one.proof}
                for one in self.checks
            ],
            "untried": [{"check": one.declaration, "evidence": one.evidence} for one in self.untried],
            "notes": list(self.notes),
        }


def tables(connection: AutocommitConnection) -> list[Relation]:
    """The tables that a person may want to check: no partitions, and none of an extension or of the platform."""
    return [Relation(*row) for row in connection.execute(_TABLES)]


def suggested(
    connection: AutocommitConnection,
    relation: Relation,
    *,
    declared: TablePolicy | None = None,
    masks: Masks | None = None,
    most_rows: int = MOST_ROWS,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    whole: bool = True,
) -> TableSuggestions:
    """Checks for a table, but those that are ``declared`` already. ACCESS SHARE.

    Reads at most ``most_rows`` rows to find them, and the columns that they need once more to try them. No statement
    takes longer than ``statement_timeout_ms``. No suggestion and no note tells a value of a column that ``masks`` name.
    Unless ``whole``, nothing is tried on the whole table: what no constraint proves is ``untried``.
    Raises ``TableMissing`` and ``CannotProfile``.
    """
    try:
        with snapshot(connection) as moment:
            moment.execute("select set_config('statement_timeout', %s, true)", (str(statement_timeout_ms),))
            require_table(moment, relation)
            hidden = frozenset((masks or Masks()).of(moment, relation))
            found = profile(moment, relation, most_rows=most_rows)
            proposals, notes = _proposals(moment, found, hidden)
    except psycopg.Error as error:
        reason = reason_of(error, masks=bool(masks)).rstrip(".")
        hint = "Grant it to the user in the URL, or ask for other tables by --table."
        # From none: the chain of errors is shown, too.
        raise CannotProfile(table=relation.words, reason=reason, hint=hint) from (None if masks else error)
    proposals = _new(proposals, declared)
    untried: list[Suggestion] = []
    if whole:
        kept, doubts, rows = _tried(connection, relation, proposals, statement_timeout_ms, masks)
    else:
        named = _with_names_of_their_own(relation, [one for one in proposals if _check(relation, one) is not None])
        kept, untried = [one for one in named if one.proof], [one for one in named if not one.proof]
        doubts, rows = [], 0
    kept += _new([*rules.of_rows(found.rows if found.sampled is None else rows)], declared)
    return TableSuggestions(
        table=str(relation),
        rows_read=found.rows,
        sampled=found.sampled,
        checks=tuple(kept),
        notes=(*notes, *doubts),
        untried=tuple(untried),
    )


def suggested_for_all(
    connection: AutocommitConnection, *, declared: Mapping[Relation, TablePolicy], masks: Masks | None = None
) -> list[TableSuggestions]:
    """Checks for each table; of one that cannot be read, or was dropped meanwhile, a note. See ``suggested``."""
    found = []
    for relation in tables(connection):
        try:
            found.append(suggested(connection, relation, declared=declared.get(relation), masks=masks))
        except (CannotProfile, TableMissing) as refused:
            if connection.closed or connection.broken:
                raise
            notes = (f"{refused.message} {refused.hint}",)
            found.append(TableSuggestions(table=str(relation), rows_read=0, sampled=None, checks=(), notes=notes))
    return found


def as_yaml(found: Iterable[TableSuggestions]) -> str:
    """A part of a declaration, ready to be pasted below ``attributes``; the evidence stands in comments."""
    found = list(found)
    tried = "each check has been tried on the whole table, and passes"
    if any(table.untried for table in found):
        tried = "each check passes: a constraint proves it, or it has been tried on the whole table"
    lines = ["  quality:", f"    # {tried}"]
    for table in found:
        sample = "" if table.sampled is None else f", a sample of {table.sampled:g} %"
        lines.append(f"    # {_line(table.table)}: {table.rows_read:,} rows read{sample}")
        lines += [f"    # {_line(note)}" for note in table.notes]
        if not table.checks:
            lines.append("    # nothing to suggest: too little evidence, or all of it is declared")
        else:
            lines += [f"    - table: {_flow(table.table)}", "      checks:"]
        for one in table.checks:
            lines += [f"        # {_line(one.evidence)}", f"        - {_entry(one)}"]
        if table.untried:
            lines.append("        # seen in the sample, and not tried on the whole table, which is large:")
        for one in table.untried:
            lines += [f"        #   {_line(one.evidence)}", f"        # - {_entry(one)}"]
    if not any(table.checks for table in found):
        lines[0] = "  quality: []"
    return "\n".join(lines) + "\n"


def _proposals(
    connection: SnapshotConnection, found: Profile, hidden: frozenset[str]
) -> tuple[list[Suggestion], list[str]]:
    """What speaks for a check, the strongest first, and what is only worth a note."""
    known = constraints(connection, found.relation)
    keys = {key[0] for _, _, key in known.keys if len(key) == 1}
    referring = {column for _, column, *_ in known.foreign_keys}
    proposals = [*_from_constraints(found, known)]
    for column in found.columns:
        proposals += rules.of_comment(column)
    references = [*_references(found, referable(connection), known)]
    referring |= {one.options["column"] for one in references}
    for column in found.columns:
        refers = column.name in referring or quoted(column.name) in referring
        masked = column.name in hidden
        proposals += rules.of_column(column, found, key=column.name in keys, refers=refers, masked=masked)
    proposals += references
    row = connection.execute("select now()").fetchone()
    assert row is not None
    seen = replace(found, columns=tuple(column for column in found.columns if column.name not in hidden))
    proposals += rules.freshest(seen, row[0])
    notes = [] if found.rows >= rules.ENOUGH else [f"{found.rows:,} rows are too few to tell anything from the data"]
    return _once(proposals), notes


def _from_constraints(found: Profile, known: Constraints) -> Iterator[Suggestion]:
    for column in found.columns:
        if column.not_null:
            yield _proven("not_null", {"column": quoted(column.name)}, f"NOT NULL of {quoted(column.name)}")
    for name, primary, key in known.keys:
        kind = "primary key" if primary else "unique index"
        yield _proven("unique", {"columns": [quoted(column) for column in key]}, f"the {kind} {name}")
    for name, referring, to, referred, validated in known.foreign_keys:
        options: dict[str, Any] = {"column": quoted(referring), "to": f"{to}.{quoted(referred)}"}
        proof = f"the foreign key {quoted(name)}"
        if validated:
            yield _proven("relationship", options, proof)
        else:
            evidence = f"{proof} is not validated"
            yield Suggestion(type="relationship", options=options, evidence=evidence, source="constraint")
    types = {column.name: column.type for column in found.columns}
    for one in known.stated:
        said = f"the constraint {quoted(one.name)}" + ("" if one.validated else ", which is not validated")
        by = said if one.validated else None
        evidence = f"{said} holds it already" if one.validated else said
        if one.values:
            options = {"column": quoted(one.column), "values": list(one.values)}
            yield Suggestion(type="accepted_values", options=options, evidence=evidence, source="constraint", proof=by)
        elif types.get(one.column) in NUMBERS:
            bounds = {side: float(value) for side, value in (("min", one.low), ("max", one.high)) if value is not None}
            bounds = {side: int(value) if value.is_integer() else value for side, value in bounds.items()}
            options = {"column": quoted(one.column), **bounds}
            yield Suggestion(type="range", options=options, evidence=evidence, source="constraint", proof=by)


def _proven(type_: str, options: dict[str, Any], proof: str) -> Suggestion:
    evidence = f"proven by {proof}: nothing is read, unless that is dropped"
    return Suggestion(type=type_, options=options, evidence=evidence, source="constraint", proof=proof)


def _references(found: Profile, others: list[Reference], known: Constraints) -> Iterator[Suggestion]:
    """Columns without a foreign key that are named and typed as a key of another table; that it holds is tried."""
    taken = {column for _, column, *_ in known.foreign_keys}
    for column in found.columns:
        if column.name in taken or column.known < rules.ENOUGH or column.different < _LEAST_DIFFERENT:
            continue
        for other in others:
            if other.relation == found.relation or other.type != column.type or not _named_after(column.name, other):
                continue
            options = {"column": quoted(column.name), "to": f"{other.relation}.{quoted(other.column)}"}
            evidence = (
                f"named and typed as the key {quoted(other.column)} of {other.relation.words}, and each of "
                f"{column.different:,} different values is there"
            )
            yield Suggestion(type="relationship", options=options, evidence=evidence, source="data")
            break


def _named_after(name: str, other: Reference) -> bool:
    """``customer_id`` for ``customers.id`` and ``customers.customer_id``; ``carrier`` for ``airlines.carrier``."""
    table = other.relation.name.lower()
    singulars = {table, table.removesuffix("s"), table.removesuffix("es"), re.sub("ies$", "y", table)}
    if name.lower() == other.column.lower():
        return other.column.lower() not in ("id", "name", "code", "key", "year", "type", "status", "value", "number")
    return any(name.lower() in (f"{one}_{other.column.lower()}", f"{one}{other.column.lower()}") for one in singulars)


def _once(proposals: Sequence[Suggestion]) -> list[Suggestion]:
    """The first of those that say the same kind of thing of the same columns; none that a stronger one includes."""
    found: dict[tuple[str, str], Suggestion] = {}
    for one in proposals:
        found.setdefault((one.type, str(one.options.get("column") or one.options.get("columns"))), one)
    listed = {column for (type_, column) in found if type_ == "accepted_values"}
    required = {column for (type_, column) in found if type_ == "not_null"}
    return [
        one
        for (type_, column), one in found.items()
        if not (type_ in ("matches", "length") and column in listed)
        and not (type_ == "null_ratio" and column in required)
    ]


def _new(proposals: list[Suggestion], declared: TablePolicy | None) -> list[Suggestion]:
    """Those that are not declared already."""
    if declared is None:
        return proposals
    there = {(check.type, check.columns_read) for check in declared.checks}
    found = []
    for one in proposals:
        check = _check(declared.table, one)
        if check is not None and (check.type, check.columns_read) not in there:
            found.append(one)
    return found


def _tried(
    connection: AutocommitConnection,
    relation: Relation,
    proposals: list[Suggestion],
    statement_timeout_ms: int,
    masks: Masks | None,
) -> tuple[list[Suggestion], list[str], int]:
    """Those that pass on the table as it is; what a comment or a constraint says and the data does not, as notes;
    the rows of the table."""
    usable = _with_names_of_their_own(relation, [one for one in proposals if _check(relation, one) is not None])
    if not usable:
        return [], [], 0
    policy = TablePolicy(table=str(relation), checks=[one.declaration for one in usable])
    result = run_table(connection, policy, statement_timeout_ms=statement_timeout_ms, masks=masks)
    kept, notes = [], []
    for one, outcome in zip(usable, result.checks, strict=True):
        if outcome.status == "passed" and (outcome.considered_rows or one.proof):
            kept.append(one)
        elif one.source != "data" or outcome.status == "errored":
            notes.append(f"not suggested, {one.type} of {outcome.column}: {one.evidence}, but {outcome.message}")
    return kept, notes, result.row_count or 0


def _with_names_of_their_own(relation: Relation, found: list[Suggestion]) -> list[Suggestion]:
    """Columns with odd names may give two checks one name; then the later one is given another."""
    taken: set[str] = set()
    named = []
    for one in found:
        check = _check(relation, one)
        assert check is not None
        name, number = check.name, 2
        while name in taken:
            name, number = f"{check.name}_{number}", number + 1
        taken.add(name)
        named.append(one if name == check.name else replace(one, options={**one.options, "name": name}))
    return named


def _check(relation: Relation, one: Suggestion) -> Check | None:
    """The suggestion as a declaration makes it; none where that cannot be written."""
    try:
        return TablePolicy(table=str(relation), checks=[one.declaration]).checks[0]
    except ValueError:
        return None


def _entry(one: Suggestion) -> str:
    ((kind, value),) = one.declaration.items()
    return f"{kind}: {_flow(value)}"


def _flow(value: Any) -> str:
    """On one line, as YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1_000_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _line(text: str) -> str:
    """On one line, for a comment: nothing in it can end the comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
