"""Packages that only some seeds need; imported when one does."""

from __future__ import annotations

import importlib
from typing import Any

from dbplatform.seeding.errors import SeedPackageMissing


def needed(package: str) -> Any:
    """The package's module; raises ``SeedPackageMissing`` with the way to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise SeedPackageMissing(package=package, hint=f"Install it: pip install {package}.") from error
