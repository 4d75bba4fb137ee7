"""Write ``docs/reference/`` from the code: commands from click, the declaration from its models.

``make docs`` runs it; a test fails when a page is stale.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import dbplatform as package
from benchmarks.claims.registry import DOCUMENTS, surroundings, table, with_verdicts
from dbplatform.cli.main import VERBS, dbplatform
from dbplatform.declaration.database import Database
from dbplatform.declaration.later import Later
from dbplatform.errors import PlatformError, UsageError, WorkError, kind_of
from dbplatform.ledger.ledger import Ledger
from dbplatform.monitoring.metrics import KINDS
from dbplatform.operations.runbooks import runbooks
from dbplatform.postgres.connection import Target
from dbplatform.quality.checks import CHECK_TYPES, Check
from dbplatform.quality.policy import COMMON_OPTIONS
from dbplatform.web.app import create_app

FOLDER = Path(__file__).parent / "reference"
REASON = "With accepted_until: 2026-12-31 beside it: why."
SYSTEMS = Path(__file__).parent / "systems"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "claims" / "results.json"
_HEAD = "<!-- Written by `make docs` from the code: change the code, not this page. -->\n\n"


def pages() -> dict[str, str]:
    """The text of each page by its file's name."""
    return {
        "commands.md": _HEAD + commands(),
        "declaration.md": _HEAD + declaration(),
        "metrics.md": _HEAD + metrics(),
        "alerts.md": _HEAD + alerts(),
        "errors.md": _HEAD + errors(),
        "api.md": _HEAD + api(),
        **{f"../systems/{name}.md": text for name, text in measured().items()},
    }


def commands() -> str:
    """Every verb with its options, as ``--help`` shows them."""
    parts = ["# Commands\n", _code(_help(dbplatform, "dbplatform"))]
    root = click.Context(dbplatform, info_name="dbplatform", max_content_width=110)
    for verb in VERBS:
        command = dbplatform.get_command(root, verb)
        assert command is not None
        parts += [f"\n## {verb}\n", _code(_help(command, f"dbplatform {verb}"))]
        if isinstance(command, click.Group):
            for name, sub in command.commands.items():
                parts += [f"\n### {verb} {name}\n", _code(_help(sub, f"dbplatform {verb} {name}"))]
    return "\n".join(parts)


def declaration() -> str:
    """Every key of ``defs.yaml``, and every check type with its options."""
    parts = ["# The declaration\n", "`type: dbplatform.ManagedDatabase`, and below `attributes`:\n"]
    parts += _model(Database, "attributes")
    parts += ["\n## Check types\n", "| type | written | meaning |", "|---|---|---|"]
    for check in CHECK_TYPES.values():
        purpose = " ".join((check.__doc__ or "").split("\n\n")[0].split())
        parts.append(f"| `{check.type}` | `{check.example}` | {purpose} |")
    parts += ["\n## Options of checks\n", "| option | default | of | meaning |", "|---|---|---|---|"]
    for option in COMMON_OPTIONS:
        having = [check for check in CHECK_TYPES.values() if option in check.model_fields]
        # ``reason`` is no field of its own: it becomes a part of the one that it explains.
        field = having[0].model_fields[option] if having else FieldInfo(default=None, description=REASON)
        parts.append(f"| `{option}` | {_default(field.default)} | {_types(having)} | {field.description} |")
    for check in CHECK_TYPES.values():
        own = {name: field for name, field in check.model_fields.items() if name not in COMMON_OPTIONS}
        if any(field.description for field in own.values()):
            parts += [f"\n## {check.type}\n", "| option | default | meaning |", "|---|---|---|"]
            parts += [f"| `{name}` | {_standard(field)} | {field.description or ''} |" for name, field in own.items()]
    return "\n".join(parts) + "\n"


def _types(having: Sequence[type[Check]]) -> str:
    lacking = [check for check in CHECK_TYPES.values() if check not in having]
    if not (having and lacking):
        return "all"
    shown, words = (lacking, "all but ") if len(lacking) < 3 else (having, "")
    return words + ", ".join(f"`{check.type}`" for check in shown)


def metrics() -> str:
    """What a collection measures, and the limits that hold where none are declared."""
    parts = ["# Metrics\n", "What to do about each: [alerts](alerts.md). How they are collected and judged:"]
    parts += ["[watch and alert](../how-to/watch-and-alert.md).\n"]
    parts += ["| metric | unit | meaning | warning | critical | needs |", "|---|---|---|---|---|---|"]
    for kind in KINDS.values():
        needs = f"{kind.min_sample:g} {kind.sample_unit}" if kind.min_sample else ""
        limits = [(limit or "").replace("<", "&lt;") for limit in (kind.warn, kind.critical)]
        name, unit = f"[`{kind.name}`](alerts.md#{kind.name})", kind.unit.replace("_", " ")
        parts.append(f"| {name} | {unit} | {kind.meaning} | {' | '.join(limits)} | {needs} |")
    return "\n".join(parts) + "\n"


def errors() -> str:
    """Every error that a person can meet, by the folder that knows it."""
    parts = ["# Errors\n", "`--json` gives the kind, the sentence, the next step, and where a mistake was written."]
    parts += [
        "Words in braces are filled in. Exit code 2: nothing was changed. 3: the command was right, the work failed.\n"
    ]
    parts += ["| kind | exit | in | sentence |", "|---|---|---|---|"]
    rows = []
    for error in _every_error():
        sentence = " ".join(inspect.cleandoc(error.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
        sentence = sentence.replace("|", "&#124;").replace("<", "&lt;").replace("{message}", "(said where it is met)")
        room = error.__module__.split(".")[1]
        rows.append(f"| `{kind_of(error)}` | {error.exit_code} | {room} | {sentence} |")
    return "\n".join([*parts, *sorted(set(rows))]) + "\n"


def _every_error() -> list[type[PlatformError]]:
    for module in pkgutil.walk_packages(package.__path__, "dbplatform."):
        if not module.name.startswith("dbplatform.defs"):
            importlib.import_module(module.name)
    found, left = [], [UsageError, WorkError]
    while left:
        below = left.pop().__subclasses__()
        left += below
        found += [error for error in below if error.__module__.startswith("dbplatform.")]
    return found


def alerts() -> str:
    """What each alert means and what to do: the pages that messages link to."""
    parts = ["# Alerts\n", "Every message names one of these. `dbplatform alerts runbook NAME` shows it, too.\n"]
    for page in runbooks().values():
        parts += [f"\n## {page.name}\n", f"{page.meaning}\n", page.advice]
        parts += [f"\nUsual limits: {page.limits.replace('<', '&lt;')}."] if page.limits else []
        parts += [f"\n<{page.document}>"] if page.document else []
    return "\n".join(parts) + "\n"


def api() -> str:
    """Every address of the status service, and the fields of every document."""
    nothing = Ledger(Target("none", ""))
    described = create_app(nothing, Path()).openapi()
    parts = ["# HTTP API\n", "What it is for, and who may use it: [the status service](../how-to/status-service.md)."]
    parts += ["\n| request | answer | meaning |", "|---|---|---|"]
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            asked = "&".join(f"{one['name']}=" for one in route.get("parameters", ()) if one["in"] == "query")
            ok = next(answer for status, answer in route["responses"].items() if status.startswith("2"))
            schema = ok["content"].get("application/json", {}).get("schema", {})
            document = _schema(schema) if schema else ", ".join(f"`{one}`" for one in ok["content"])
            meaning = " ".join(route["description"].split("\n\n")[0].split())
            parts.append(f"| `{method.upper()} {path}{'?' + asked if asked else ''}` | {document} | {meaning} |")
    for name, schema in sorted(described["components"]["schemas"].items()):
        if "properties" not in schema:
            continue
        parts += [
            f"\n## {name}\n",
            " ".join(schema.get("description", "").split()),
            "\n| field | type | meaning |",
            "|---|---|---|",
        ]
        for field, about in schema["properties"].items():
            parts.append(f"| `{field}` | {_schema(about)} | {about.get('description', '')} |")
    return "\n".join(parts) + "\n"


def measured() -> dict[str, str]:
    """The pages of the systems as people wrote them, with what the last results say of each claim."""
    results = json.loads(RESULTS.read_text())
    page = (SYSTEMS / "claims.md").read_text()
    begin, end = page.index("<!-- claims: "), page.index("<!-- /claims -->")
    shown = f"{page[begin:end].splitlines()[0]}\n{surroundings(results['about'])}\n{table(results['claims'])}"
    pages = {name: with_verdicts((SYSTEMS / f"{name}.md").read_text(), results["claims"]) for name in DOCUMENTS}
    return {"claims": f"{page[:begin]}{shown}{page[end:]}", **pages}


def _schema(schema: dict[str, Any]) -> str:
    """A type in words, with a link to the document that it is."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_schema(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_schema(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict) and schema["additionalProperties"]:
        return f"by name: {_schema(schema['additionalProperties'])}"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    return str(schema.get("format") or schema.get("type") or "any")


def _model(model: type[BaseModel], title: str) -> list[str]:
    rows = [f"\n## {title}\n", "| key | default | meaning |", "|---|---|---|"]
    below: list[str] = []
    for name, field in model.model_fields.items():
        inner = _inner(field.annotation)
        meaning = field.description or ""
        if inner is not None and inner is not Check:  # the checks have sections of their own
            below += _model(inner, name)
            meaning = meaning or " ".join((inner.__doc__ or "").split("\n\n")[0].split())
        rows.append(f"| `{field.alias or name}` | {_standard(field)} | {meaning} |")
    return rows + below


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, Later):
        return annotation.model
    if typing.get_origin(annotation) in (list, typing.Union, types.UnionType, typing.Annotated):
        for argument in typing.get_args(annotation):
            found = _inner(argument)
            if found is not None:
                return found
    return None


def _standard(field: FieldInfo) -> str:
    return "required" if field.is_required() else _default(field.default)


def _default(value: Any) -> str:
    if value is PydanticUndefined or value is None or value in ("", [], {}) or isinstance(value, BaseModel):
        return ""
    return f"`{value}`"


def _help(command: click.Command, name: str) -> str:
    settings = dbplatform.context_settings
    return command.get_help(click.Context(command, info_name=name, terminal_width=110, **settings))


def _code(text: str) -> str:
    return f"```text\n{text.strip()}\n```"


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
