"""``dbplatform doctor``: what would go wrong, each finding with its mend."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import click

from dbplatform.cli.common import bold, json_option, platform_of, say, show_json
from dbplatform.operations.diagnosis.examine import examine
from dbplatform.operations.diagnosis.model import Finding

_WORDS = {"ok": "ok", "warn": "warn", "error": "ERROR", "not_checked": "not checked"}


@click.command("doctor")
@click.argument("database", required=False)
@json_option
@click.pass_context
def command(context: click.Context, database: str | None, as_json: bool) -> int:
    """What would go wrong, each finding with its mend: of one database, or of all and what is around them.

    Looks and changes nothing; starts no server. Exit 1 when there is an error; warnings leave it 0.
    """
    found = examine(platform_of(context), database)
    if as_json:
        show_json({"findings": [finding.as_json() for finding in found]})
    else:
        for name, group in groupby(found, key=lambda finding: finding.database):
            say(bold(name or "surroundings"))
            _show(list(group))
            say("")
        say(_verdict(found))
    return 1 if any(finding.status == "error" for finding in found) else 0


def _show(findings: Sequence[Finding]) -> None:
    width = max(len(finding.probe) for finding in findings)
    unknown: dict[str, list[str]] = {}
    for finding in findings:
        if finding.status == "not_checked" and finding.mend is None:
            unknown.setdefault(finding.message, []).append(finding.probe)
            continue
        place = f"{finding.file}:{finding.line}: " if finding.file else ""
        say(f"  {_WORDS[finding.status]:11} {finding.probe:{width}}  {place}{finding.message}")
        if finding.mend:
            say(f"  {'':11} {'':{width}}  mend: {finding.mend}")
    for reason, probes in unknown.items():
        say(f"  {_WORDS['not_checked']:11} {', '.join(probes)}: {reason}")


def _verdict(found: Sequence[Finding]) -> str:
    counts = {status: sum(finding.status == status for finding in found) for status in _WORDS}
    words = [
        f"{count} {word}{'s' if count != 1 and word in ('error', 'warning') else ''}"
        for count, word in (
            (counts["error"], "error"),
            (counts["warn"], "warning"),
            (counts["not_checked"], "not checked"),
            (counts["ok"], "ok"),
        )
        if count
    ]
    return f"{bold('verdict')}: {', '.join(words)}"
