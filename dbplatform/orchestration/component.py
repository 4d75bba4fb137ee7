"""``dbplatform.ManagedDatabase``: the Dagster component behind a ``defs.yaml``.

The model of its attributes is the plain declaration, which knows no Dagster; the file itself is read by the
declaration's own loader, so that every mistake has its line and no secret is resolved while loading.
"""

from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster.components import Scaffolder, ScaffoldRequest
from pydantic import BaseModel

from dbplatform.declaration.database import Database
from dbplatform.declaration.loading import FILE, Declared, load_file
from dbplatform.declaration.project import Project
from dbplatform.declaration.scaffold import database_files, database_name
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.advice import advice_assets
from dbplatform.orchestration.assets import last_stage, rehearsal_assets, writing_assets
from dbplatform.orchestration.audit_checks import audit_checks
from dbplatform.orchestration.automation import automated
from dbplatform.orchestration.benchmarks import benchmark_assets
from dbplatform.orchestration.capacity import planning_assets
from dbplatform.orchestration.checks import table_assets
from dbplatform.orchestration.cleanup import cleanup_assets
from dbplatform.orchestration.jobs import jobs_of
from dbplatform.orchestration.live import live_assets
from dbplatform.orchestration.partition_checks import partition_checks
from dbplatform.orchestration.periods import period_assets
from dbplatform.orchestration.physical import physical_assets
from dbplatform.orchestration.resources import options_at_launch, pools
from dbplatform.orchestration.restore import restore_job
from dbplatform.orchestration.retirement import retirement_assets
from dbplatform.orchestration.reviews import review_jobs
from dbplatform.orchestration.safety import backup_assets
from dbplatform.orchestration.schedules import schedules_of
from dbplatform.orchestration.schema_checks import schema_checks
from dbplatform.orchestration.upkeep import upkeep_assets
from dbplatform.orchestration.watch import watching_assets


class ManagedDatabaseScaffolder(Scaffolder[Any]):
    """``dg scaffold defs dbplatform.ManagedDatabase my_db``: a declaration that loads and runs as it is."""

    def scaffold(self, request: ScaffoldRequest[Any]) -> None:
        for path, text in database_files(database_name(request.target_path.name)).items():
            file = request.target_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")


@dg.scaffold_with(ManagedDatabaseScaffolder)
@dataclass
class ManagedDatabase(dg.Component):
    """A PostgreSQL database with its whole operations graph: migrations, partitions, seeds, data-quality checks."""

    platform: Platform
    declared: Declared

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return Database

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "ManagedDatabase":
        project = Project.find(context.path)
        declared = load_file(context.path / FILE, project)
        assert declared is not None, "Dagster gave this component a file of another type"
        return cls(platform=Platform(project), declared=declared)

    def build_defs(self, context: dg.ComponentLoadContext | None = None) -> dg.Definitions:
        assets = writing_assets(self.platform, self.declared)
        filled = last_stage(assets)
        assets += live_assets(self.platform, self.declared, deps=filled)
        assets += table_assets(self.platform, self.declared, deps=filled)
        assets += backup_assets(self.platform, self.declared, deps=filled)
        assets += physical_assets(self.platform, self.declared)
        assets += retirement_assets(self.platform, self.declared)
        assets += watching_assets(self.platform, self.declared)
        assets += advice_assets(self.platform, self.declared)
        assets += upkeep_assets(self.platform, self.declared)
        assets += cleanup_assets(self.platform, self.declared)
        assets += planning_assets(self.platform, self.declared)
        assets += benchmark_assets(self.platform, self.declared)
        assets += rehearsal_assets(self.platform, self.declared)
        assets += period_assets(self.platform, self.declared)
        assets = automated(self.declared, assets)
        jobs = jobs_of(self.declared, assets)
        return dg.Definitions(
            assets=assets,
            asset_checks=[
                *schema_checks(self.platform, self.declared),
                *partition_checks(self.platform, self.declared),
                *audit_checks(self.platform, self.declared),
            ],
            jobs=[*jobs, *restore_job(self.platform, self.declared), *review_jobs(self.platform, self.declared)],
            schedules=schedules_of(self.platform, self.declared, jobs),
            resources={"options": options_at_launch(), "pools": pools(str(self.platform.project.root))},
        )
