"""What people write about the quality of a table.

A check is a mapping with one key that names its type. The type's value is a plain column, a list or a mapping; the
options that all checks have stand in that mapping or beside the type::

    - not_null: tailnum
    - unique: [carrier, flight]
      severity: warn
    - range: {column: distance, min: 1, max: 6000, owner: "team:ops"}

Each mistake is one sentence, and the ``loc`` of pydantic's error is the path in the file that was read:
``("checks", 2, "range", "min")``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import InitErrorDetails

from dbplatform.postgres.words import DurationWords, Interval, IntervalWords, Policy, RelationName
from dbplatform.quality.checks import CHECK_TYPES, Check
from dbplatform.quality.checks.base import Sampleable, WrongField
from dbplatform.quality.checks.sample import Sample, SampleWords
from dbplatform.quality.masks import MaskWords
from dbplatform.quality.unchanged.words import UnchangedWords

COMMON_OPTIONS = (
    "name", "where", "severity", "blocking", "tolerance", "owner", "accepted_until", "reason", "keep_rows",
    "quarantine", "sample",
)  # fmt: skip
NOT_BUILT_TYPES: tuple[str, ...] = ()

FAILED_ROWS_KEPT = 100_000
"""How many failing rows of one check are kept by default; the total is exact whatever it is."""

_LONGEST = timedelta(days=24)

_Path = tuple[str | int, ...]


class _Mistakes(Exception):
    """What is wrong with one check: paths below it, sentences, and the values that were written."""

    def __init__(self, *found: tuple[_Path, str, Any]) -> None:
        self.found = found

    def as_validation_error(self) -> ValidationError:
        """The same for pydantic, which puts the path of the check before each of these paths."""
        details = [
            InitErrorDetails(type="value_error", ctx={"error": ValueError(text)}, loc=loc, input=value)
            for loc, text, value in self.found
        ]
        return ValidationError.from_exception_data("check", details)


def _check(value: Any) -> Check:
    try:
        return value if isinstance(value, Check) else _parsed(value)
    except _Mistakes as mistakes:
        raise mistakes.as_validation_error() from None


def _parsed(value: Any) -> Check:
    if not isinstance(value, Mapping):
        raise _Mistakes(((), f"{value!r} is no check; write one as in 'not_null: tailnum'", value))
    kind = _kind(value)
    cls = CHECK_TYPES[kind]
    fields, written = _fields(cls, value, kind)
    try:
        check = cls.model_validate(fields)
    except ValidationError as error:
        raise _Mistakes(*(_mistake(cls, mistake, written) for mistake in error.errors())) from None
    return check


def _kind(value: Mapping[Any, Any]) -> str:
    """The one key of the mapping that names a type."""
    kinds = [key for key in value if key not in COMMON_OPTIONS]
    allowed = ", ".join(CHECK_TYPES)
    if not kinds:
        raise _Mistakes(((), f"a check needs a type; the types are {allowed}", dict(value)))
    for kind in kinds:
        if kind in NOT_BUILT_TYPES:
            raise _Mistakes(((kind,), f"{kind} checks are not built yet", value[kind]))
    unknown = [kind for kind in kinds if kind not in CHECK_TYPES]
    if unknown:
        wrong = unknown[0]
        near = difflib.get_close_matches(str(wrong), [*CHECK_TYPES, *COMMON_OPTIONS], n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        if len(kinds) > len(unknown):
            text = f"{wrong!r} is no option of a check; {guess}beside the type stand {', '.join(COMMON_OPTIONS)}"
        else:
            text = f"{wrong!r} is no type of check; {guess}the types are {allowed}"
        raise _Mistakes(((_key(wrong),), text, value[wrong]))
    if len(kinds) > 1:
        raise _Mistakes(((kinds[1],), f"a check has one type, not {' and '.join(kinds)}", value[kinds[1]]))
    return str(kinds[0])


def _fields(cls: type[Check], value: Mapping[Any, Any], kind: str) -> tuple[dict[str, Any], dict[str, _Path]]:
    """The fields of the check, and where each of them is written."""
    body = value[kind]
    fields: dict[str, Any] = {}
    written: dict[str, _Path] = {}
    mistakes: list[tuple[_Path, str, Any]] = []

    def take(option: Any, path: _Path, given: Any) -> None:
        field = cls.aliases.get(option, option)
        if option == "quarantine" and field not in cls.model_fields:
            text = f"{kind} does not judge each row by itself, so that none can be moved aside; leave quarantine out"
            mistakes.append((path, text, given))
        elif option == "sample" and field not in cls.model_fields:
            mistakes.append((path, f"{kind} proves nothing on a sample: {cls.no_sample}; leave sample out", given))
        elif field not in cls.model_fields and field != "reason":
            mistakes.append((path, f"{kind} has no option {option!r}; it has {_options(cls)}", given))
        elif field in fields:
            mistakes.append((path, f"{option} is given twice", given))
        else:
            fields[field], written[field] = given, path

    if isinstance(body, Mapping):
        for option, given in body.items():
            take(option, (kind, _key(option)), given)
    elif cls.bare is None or body is None:
        raise _Mistakes(((kind,), f"{kind} needs its options; write it as in '{cls.example}'", body))
    else:
        take(cls.bare, (kind,), body)
    for option, given in value.items():
        if option != kind:
            take(option, (option,), given)
    if cls.needs_name and "name" not in fields:
        mistakes.append(((kind,), f"{kind} needs a name; write it as in '{cls.example}'", body))
    if mistakes:
        raise _Mistakes(*mistakes)
    return fields, written


def _mistake(cls: type[Check], error: Any, written: dict[str, _Path]) -> tuple[_Path, str, Any]:
    """One of pydantic's errors in the words and at the place of the file."""
    loc, given = error["loc"], error["input"]
    text = (
        error["msg"].removeprefix("Value error, ").replace("valid tuple", "list").replace("valid dictionary", "mapping")
    )
    if error["type"] == "missing":
        return (cls.type,), f"{cls.type} needs {loc[-1]}; write it as in '{cls.example}'", given
    if error["type"] == "too_short":
        text = "write at least one"
    wrong = error.get("ctx", {}).get("error")
    if isinstance(wrong, WrongField):
        return written[wrong.field], text, given
    if not loc:
        return (cls.type,), f"{cls.type}: {text}", given
    inner = tuple(part for part in loc[1:] if part != "[key]")
    return (*written.get(loc[0], (cls.type, loc[0])), *inner), text, given


def _options(cls: type[Check]) -> str:
    own = [name for name in cls.model_fields if name not in COMMON_OPTIONS]
    return ", ".join([*own, *(name for name in COMMON_OPTIONS if name in cls.model_fields or name == "reason")])


def _key(key: Any) -> str | int:
    return key if isinstance(key, str | int) else str(key)


_JSON_SCHEMA = {
    "type": "object",
    "description": f"One of {', '.join(CHECK_TYPES)}, and the options {', '.join(COMMON_OPTIONS)}.",
    "properties": {
        **{
            kind: {"description": f"{(cls.__doc__ or '').splitlines()[0]} {cls.example}"}
            for kind, cls in CHECK_TYPES.items()
        },
        **{option: {} for option in COMMON_OPTIONS},
    },
    "additionalProperties": False,
}

#: A check as people write it, and the model of its type after validation.
CheckPolicy = Annotated[SerializeAsAny[Check], BeforeValidator(_check), WithJsonSchema(_JSON_SCHEMA)]


class FailedRowsPolicy(Policy):
    """How many of the rows that fail a check are kept in the ledger, and for how long."""

    keep: NonNegativeInt = Field(
        default=FAILED_ROWS_KEPT, description="Of each check at most; its number of failing rows is exact all the same."
    )
    retain: IntervalWords = Field(
        default=Interval(days=90),
        description="Older rows are removed, but never those of the newest run of a declared check.",
    )
    retain_unreviewed: IntervalWords = Field(
        default=Interval(months=12), description="In place of retain, for a failing report that nobody has reviewed."
    )


class TablePolicy(Policy):
    """The checks of one table; their names are unique in it."""

    table: RelationName = Field(description="The table: schema.table.")
    unchanged: UnchangedWords | None = Field(
        default=None,
        description="Of which partitions the answers of an earlier run are taken over: ``proven`` (the server compares "
        "row versions) or ``immutable after 3 months``. Left out: all are read.",
    )
    mask: MaskWords = Field(
        default={},
        description="Columns whose values never leave the database: a list (redacted), or each with redact, hash or "
        "partial.",
    )
    statement_timeout: DurationWords = Field(
        default=Interval(microseconds=3_600_000_000),
        description="How long one statement of its checks may take, else the check has errored; a shorter one of the "
        "role holds.",
    )
    sample: SampleWords | None = Field(
        default=None,
        description="Judge the checks that allow it by a part of the rows, and say so in their results: 1% (of the "
        "blocks), 100000 rows, 1% bernoulli (each row by chance). A check may write its own, or all.",
    )
    checks: list[CheckPolicy] = Field(description="At least one, each of one of the types below.")

    @field_validator("statement_timeout")
    @classmethod
    def _at_most_what_the_server_takes(cls, timeout: Interval) -> Interval:
        if timeout.timedelta > _LONGEST:
            raise ValueError("PostgreSQL takes at most 24 days")
        return timeout

    @field_validator("checks")
    @classmethod
    def _some_with_different_names(cls, checks: list[Check]) -> list[Check]:
        if not checks:
            raise ValueError("a table has at least one check; write one as in 'not_null: tailnum'")
        first: dict[str, int] = {}
        for index, check in enumerate(checks):
            if check.name in first:
                sentence = (
                    f"check {first[check.name] + 1} has the name {check.name}, too; give one of them another name"
                )
                raise _Mistakes(((index,), sentence, check.name)).as_validation_error()
            first[check.name] = index
        return checks

    @field_validator("checks")
    @classmethod
    def _fit_for_the_sample(cls, checks: list[Check], info: ValidationInfo) -> list[Check]:
        of_table: Sample | None = info.data.get("sample")
        if of_table is None or of_table.all:
            return checks
        meant = [(i, check) for i, check in enumerate(checks) if isinstance(check, Sampleable) and not check.sample]
        if not meant:
            raise ValueError("no check of this table can be judged by its sample; leave sample out of the table")
        for index, check in meant:
            if check.all_or_none is not None:
                sentence = f"{check.all_or_none[1]}, or write sample: all for {check.name}"
                raise _Mistakes(((index,), sentence, check.name)).as_validation_error()
        return checks

    @property
    def of_all_rows(self) -> TablePolicy:
        """The same without samples: where two tables are compared, the rows of one sample are not in the other."""
        checks = [
            check.model_copy(update={"sample": None}) if isinstance(check, Sampleable) else check
            for check in self.checks
        ]
        return self.model_copy(update={"sample": None, "checks": checks})

    def sample_of(self, check: Check) -> Sample | None:
        """By which part of the rows a check is to be judged; none: by all of them."""
        if not isinstance(check, Sampleable):
            return None
        wish = check.sample or self.sample
        return None if wish is None or wish.all else wish

    @property
    def statement_timeout_ms(self) -> int:
        """The same in milliseconds, at least one."""
        return max(1, int(self.statement_timeout.timedelta.total_seconds() * 1000))

    def check(self, name: str) -> Check | None:
        """The check of that name."""
        return next((check for check in self.checks if check.name == name), None)
