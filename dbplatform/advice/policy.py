"""What may be declared of advice: how much evidence it needs, and what is known of the machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dbplatform.postgres.words import DurationWords, Interval, Policy, SizeWords


class AdvicePolicy(Policy):
    """How much evidence advice needs; and the machine of the server, which SQL cannot ask for."""

    window: DurationWords = Field(
        default=Interval.parse("7 days"),
        json_schema_extra={"default": "7 days"},
        description="The statements of so long a time are looked at.",
    )
    min_calls: int = Field(default=5, ge=1, description="A statement that was called less often asks for no index.")
    unused_after: DurationWords = Field(
        default=Interval.parse("14 days"),
        json_schema_extra={"default": "14 days"},
        description="An index is unused when nothing was read by it for so long; as long the statistics must reach "
        "back, on the replica, too.",
    )
    unused_min_size: SizeWords = Field(
        default=10 << 20, json_schema_extra={"default": "10MB"}, description="Smaller unused indexes are left alone."
    )
    large_table_rows: int = Field(
        default=1_000_000, ge=1, description="From so many rows on a table may want autovacuum settings of its own."
    )
    memory: SizeWords | None = Field(
        default=None,
        description="The memory of the server's machine; left out: known of the embedded server alone.",
    )
    storage: Literal["ssd", "hdd"] | None = Field(
        default=None, description="What the server's data lie on; left out: random_page_cost is not judged."
    )
