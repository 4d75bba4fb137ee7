"""The declared databases as their graphs make them have no drift."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dbplatform.declaration.loading import load_file
from dbplatform.declaration.project import Project
from dbplatform.migrations.drift.engine import blueprint, build, drift
from dbplatform.migrations.engine import apply_migrations
from dbplatform.partitioning.apply import apply_partitions
from dbplatform.postgres.connection import connect
from dbplatform_tests.installation import REPOSITORY
from dbplatform_tests.postgres.drift_support import created

DEFS = REPOSITORY / "dbplatform" / "defs"


@pytest.mark.parametrize("name", sorted(file.parent.name for file in DEFS.glob("*/defs.yaml")))
def test_a_declared_database_has_no_drift_after_its_partitions_were_made(server_url: str, name: str) -> None:
    declared = load_file(DEFS / name / "defs.yaml", Project(DEFS.parent, DEFS))
    assert declared is not None
    asked = declared.database
    assert asked.migrations is not None
    folders = asked.migrations.folders(DEFS / name)
    with (
        created(server_url) as target,
        created(server_url) as scratch,
        connect(target, work="test") as live,
        connect(scratch, work="test") as empty,
    ):
        apply_migrations(live, folders, asked.migrations)
        apply_partitions(live, asked.partitioned_tables, now=datetime.now(UTC))
        partitioned = [table.table for table in asked.partitioned_tables]
        plan = blueprint(live, folders, asked.migrations, partitioned=partitioned, database=name)
        expected = build(empty, plan, server_wide=False)
        report = drift(live, plan, expected)
    assert [str(difference) for difference in report.differences] == []
    assert len(expected.objects) > 10
