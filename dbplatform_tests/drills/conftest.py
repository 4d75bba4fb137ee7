"""Drills: every case of a fault matrix by ``--drill-all``, a sample of them otherwise."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cases that are not in the sample; they are deselected, not skipped."""
    if config.getoption("--drill-all"):
        return
    left_out = [item for item in items if (mark := item.get_closest_marker("drill")) and not mark.kwargs.get("sample")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
