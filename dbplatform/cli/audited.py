"""How the audits of structure and security look in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from dbplatform.cli.common import bold, say, show_table
from dbplatform.monitoring.audits.finding import Audit, Finding

_TYPES = 12


def show_audit(found: Audit) -> None:
    """What there is, each finding under its rule, what could not be looked at, and the verdict in the last line."""
    _show_structure(found.inventory) if found.kind == "structure" else show_access(found.inventory["access"] or ())
    for _, findings in groupby(found.findings, key=lambda one: (one.severity, one.rule.name)):
        _show_rule(list(findings))
    for rule, reason in found.not_examined.items():
        said = f" (accepted: {found.accepted[rule]})" if rule in found.accepted else ""
        say(f"not examined: {rule}: {reason}{said}")
    count = Counter(finding.severity for finding in found.findings if finding.accepted is None)
    told = ", ".join(f"{count[severity]} {severity}" for severity in ("critical", "warning", "notice"))
    accepted = sum(finding.accepted is not None for finding in found.findings)
    looked = f"{len(found.examined)} rules examined, {len(found.not_examined)} not"
    say(f"{found.database}: {found.kind} {bold(found.verdict)}: {told}, {accepted} accepted; {looked}")


def _show_rule(findings: list[Finding]) -> None:
    rule = findings[0].rule
    say(f"{bold(findings[0].severity)} {rule.name}: {rule.meaning} {rule.document}")
    for finding in findings:
        said = f" (accepted: {finding.accepted})" if finding.accepted is not None else ""
        say(f"  {finding.object}: {finding.evidence}{said}")
        if finding.mend and finding.accepted is None:
            say(f"    {finding.mend}")


def _show_structure(inventory: Mapping[str, Any]) -> None:
    counts, migrated = inventory["counts"], inventory["migrated"]
    if counts is None:
        return
    if isinstance(migrated, str):
        beside = migrated
    elif "tables" in migrated:
        made = _counts(migrated)
        beside = f"its migrations make {made}, at version {migrated['version'] or 'none'}"
    else:
        beside = str(migrated["note"])
    say(f"{_counts(counts)}, {counts['columns']:,} columns; {beside}")
    shown = [f"{type_} {number:,}" for type_, number in inventory["types"].items()]
    if shown:
        say(f"types: {', '.join(shown[:_TYPES])}{f' and {len(shown) - _TYPES} more' if len(shown) > _TYPES else ''}")
    show_table(
        None,
        ("table", "columns", "primary key", "indexes", "foreign keys", "partitions", "rows (about)"),
        [
            (
                table["table"],
                len(table["columns"]),
                ", ".join(table["primary_key"] or ()),
                table["indexes"],
                table["foreign_keys"],
                table["partitions"] if table["partitioned"] else None,
                table["rows"],
            )
            for table in inventory["tables"]
        ],
    )


def _counts(counts: Mapping[str, Any]) -> str:
    return f"{counts['tables']:,} tables, {counts['indexes']:,} indexes, {counts['foreign_keys']:,} foreign keys"


def show_access(roles: Sequence[Mapping[str, Any]]) -> None:
    """Who can log in, and other roles that have members or own tables: what each is, and how much it reaches."""
    for title, login in (("who can log in", True), ("other roles that have members or own tables", False)):
        _show_roles(title, [role for role in roles if role["login"] is login])


def _show_roles(title: str, roles: Sequence[Mapping[str, Any]]) -> None:
    if not roles:
        return
    show_table(
        title,
        (
            "role",
            "is",
            "member of",
            "members",
            "connects",
            "reads",
            "writes",
            "owns",
            "tables",
            "creates in",
            "until",
        ),
        [
            (
                role["role"],
                ", ".join(
                    what for what in ("superuser", "bypassrls", "createrole", "createdb", "replication") if role[what]
                ),
                ", ".join(role["member_of"]),
                ", ".join(role["members"]),
                role["connects"],
                role["reads"],
                role["writes"],
                role["owns"],
                role["tables"],
                ", ".join(role["creates_in"]),
                f"{role['valid_until']:%Y-%m-%d}" if role["valid_until"] else "",
            )
            for role in roles
        ],
    )
