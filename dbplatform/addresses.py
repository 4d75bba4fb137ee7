"""Where the two user interfaces answer, for links in reports, messages and runs."""

from __future__ import annotations

import os


def service_address() -> str:
    """Where the status service answers: ``DBPLATFORM_SERVICE_URL``, by default on this machine."""
    return os.environ.get("DBPLATFORM_SERVICE_URL", "http://127.0.0.1:8765").rstrip("/")


def dagster_address() -> str:
    """Where the Dagster UI answers: ``DBPLATFORM_DAGSTER_UI``, by default on this machine."""
    return os.environ.get("DBPLATFORM_DAGSTER_UI", "http://127.0.0.1:3000").rstrip("/")
