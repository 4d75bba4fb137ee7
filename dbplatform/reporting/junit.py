"""The report as JUnit XML, for the test reports of GitHub, GitLab and Jenkins: a suite per table, a case per check.

A check that failed is a failure, of type ``warn`` where that is its severity: the verdict counts it, too. One that
could not run is an error. One whose failure somebody has accepted is skipped, with the reason. The form is that of the
JUnit plugin of Jenkins (``junit-10.xsd``); the others read the same elements.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from dbplatform.reporting.comparison import since
from dbplatform.reporting.evidence import CheckEvidence, RunEvidence, TableEvidence
from dbplatform.reporting.words import failed_rows_text, sample_lines

#: What XML 1.0 cannot hold at all, not even escaped.
_IMPOSSIBLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_SAMPLES = 5


def render_junit(run: RunEvidence) -> str:
    """The whole file. The same evidence gives the same text, byte for byte."""
    root = ElementTree.Element("testsuites", _counts(run.tables))
    root.set("name", _clean(f"data quality of {run.database}"))
    root.set("time", f"{run.seconds:.3f}")
    for table in run.tables:
        _suite(root, run, table)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(root: ElementTree.Element, run: RunEvidence, table: TableEvidence) -> None:
    suite = ElementTree.SubElement(root, "testsuite", _counts((table,)))
    suite.set("name", _clean(f"{run.database}.{table.table}"))
    suite.set("time", f"{table.seconds or 0:.3f}")
    suite.set("timestamp", run.started_at.strftime("%Y-%m-%dT%H:%M:%S"))
    suite.set("id", str(run.tables.index(table)))
    for check in table.checks:
        case = ElementTree.SubElement(suite, "testcase", name=_clean(check.name))
        case.set("classname", _clean(f"{run.database}.{table.table}"))
        status: str = check.status
        if status == "failed":
            _outcome(case, "failure", check, kind=check.severity)
        elif status == "errored":
            _outcome(case, "error", check, kind="errored")
        elif status == "accepted":
            ElementTree.SubElement(case, "skipped", message=_clean(f"accepted: {_line(check.message)}"))


def _outcome(case: ElementTree.Element, element: str, check: CheckEvidence, *, kind: str) -> None:
    found = ElementTree.SubElement(case, element, type=kind, message=_clean(_line(check.message)))
    told = check.failed_rows is not None and f"{check.failed_rows:,}" in check.message
    parts = [check.message, "" if told else failed_rows_text(check), since(check) and f"Failing {since(check)}."]
    parts += [f"Owner: {check.owner}"] if check.owner else []
    parts += ["Some of the rows:", *sample_lines(check, _SAMPLES)] if check.samples else []
    parts += [f"SQL:\n{check.sql}"] if check.sql else []
    found.text = _clean("\n".join(part for part in parts if part))


def _counts(tables: tuple[TableEvidence, ...]) -> dict[str, str]:
    statuses = {"failures": "failed", "errors": "errored", "skipped": "accepted"}
    counts = {name: str(sum(table.count(status) for table in tables)) for name, status in statuses.items()}
    return {"tests": str(sum(len(table.checks) for table in tables)), **counts}


def _line(text: str) -> str:
    return " ".join(text.split())


def _clean(text: str) -> str:
    return _IMPOSSIBLE.sub(_REPLACEMENT, text)
