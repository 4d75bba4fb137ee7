"""What people write about the audits of a database: which of their findings are meant."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from pydantic import Field, field_validator

from dbplatform.monitoring.audits import security, structure
from dbplatform.monitoring.audits.finding import Audit, with_accepted
from dbplatform.postgres.words import Policy


class AcceptedFinding(Policy):
    """A finding of ``dbplatform health --structure`` or ``--security`` that is meant, and why."""

    rule: str = Field(description="The rule as the report names it, such as no_primary_key.")
    object: str = Field(
        default="*",
        min_length=1,
        description="The object as the report names it; * and ? stand for any characters. Left out: every one, and "
        "that the rule could not be examined.",
    )
    reason: str = Field(min_length=1, description="Why it is meant.")

    @field_validator("rule")
    @classmethod
    def _known(cls, rule: str) -> str:
        rules = (*structure.RULES, *security.RULES)
        if rule not in rules:
            raise ValueError(f"{rule!r} is no rule; the rules are {', '.join(rules)}")
        return rule


class HealthPolicy(Policy):
    """What is accepted of the structure and the security of a database."""

    accept: list[AcceptedFinding] = Field(default=[], description="Findings that are meant.")


def accepted(audit: Audit, accepting: Sequence[AcceptedFinding]) -> Audit:
    """The audit with the reasons of what is accepted. Pure."""
    return with_accepted(
        audit,
        lambda rule, object: next(
            (one.reason for one in accepting if one.rule == rule and fnmatchcase(object, one.object)), None
        ),
    )
