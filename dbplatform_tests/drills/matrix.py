"""How a fault matrix is written: all of its cases in one list, a few of them for every run of the tests."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet


def cases(*values: Any, sample: Container[Any]) -> list[ParameterSet]:
    """Parameters for ``parametrize``: ``make test`` runs those in ``sample``, ``make drill`` all of them.

    A case is named by its first value, or by its first two where the same point is met more than once.
    """

    def sampled(value: Any) -> bool:
        first = value if not isinstance(value, tuple) else value[0]
        return first in sample or (isinstance(value, tuple) and value[:2] in sample)

    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.drill(sample=sampled(value)))
        for value in values
    ]
