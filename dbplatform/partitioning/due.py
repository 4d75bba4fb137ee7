"""Which partitions are due to be retired: by their bounds in the catalog, against what ``retain`` keeps."""

from __future__ import annotations

from collections.abc import Sequence

from dbplatform.partitioning.bounds import FIRST, Point
from dbplatform.partitioning.existing import ExistingPartition
from dbplatform.partitioning.policy import PartitionPolicy


def cutoff_of(policy: PartitionPolicy, head: Point) -> Point:
    """Rows before this are not kept any longer; ``head`` is now, or the greatest number."""
    assert policy.retain is not None
    if isinstance(policy.retain.keep, int):
        return head - policy.retain.keep
    try:
        return head - policy.retain.keep.relativedelta
    except (ValueError, OverflowError):
        return FIRST


def due_partitions(partitions: Sequence[ExistingPartition], cutoff: Point) -> tuple[ExistingPartition, ...]:
    """Those that hold nothing but rows before the cutoff. One that reaches beyond it stays, however wide it is."""
    return tuple(one for one in partitions if one.bounds.upper <= cutoff)
