"""PostgreSQL operations as a Dagster code location.

The package itself knows nothing of Dagster until ``ManagedDatabase`` is asked for: the command line starts without it.
"""

from typing import Any

__all__ = ["ManagedDatabase"]


def __getattr__(name: str) -> Any:
    if name == "ManagedDatabase":
        from dbplatform.orchestration.component import ManagedDatabase

        return ManagedDatabase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
