"""``dbplatform.ManagedDatabase``: the Dagster component behind a ``defs.yaml``.

The model of its attributes is the plain declaration, which knows no Dagster; the file itself is read by the
declaration's own loader, so that every mistake has its line and no secret is resolved while loading.
"""

import re
import textwrap
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster.components import Scaffolder, ScaffoldRequest
from pydantic import BaseModel

from dbplatform.declaration.database import Database
from dbplatform.declaration.loading import FILE, Declared, load_file
from dbplatform.declaration.project import Project
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.assets import last_stage, writing_assets
from dbplatform.orchestration.checks import table_assets
from dbplatform.orchestration.jobs import jobs_of, schedules_of
from dbplatform.orchestration.resources import options_at_launch
from dbplatform.orchestration.safety import backup_assets

_SCAFFOLD = """\
type: dbplatform.ManagedDatabase
attributes:
  name: {name}
  owners: ["team:data"]
  connection:
    environment: development      # url_env: THE_VARIABLE_THAT_HOLDS_THE_URL; left out: the embedded server
  migrations:
    directory: migrations
  quality:
    - table: public.item
      checks:
        - row_count: {{min: 0}}
"""

_FIRST_MIGRATION = """\
-- The first migration of {name}. Names are Flyway's: V<version>__<words>.sql.

create table item (
    id bigint generated always as identity primary key,
    name text not null,
    created_at timestamptz not null default now()
);
comment on table item is 'An example: replace it by your own.';
"""


class ManagedDatabaseScaffolder(Scaffolder[Any]):
    """``dg scaffold defs dbplatform.ManagedDatabase my_db``: a declaration that loads and runs as it is."""

    def scaffold(self, request: ScaffoldRequest[Any]) -> None:
        folder = request.target_path
        name = re.sub(r"[^a-z0-9_]", "_", folder.name.lower())
        (folder / "migrations").mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(_SCAFFOLD.format(name=name))
        (folder / "migrations" / "V1__first.sql").write_text(textwrap.dedent(_FIRST_MIGRATION).format(name=name))


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
        assets += table_assets(self.platform, self.declared, deps=filled)
        assets += backup_assets(self.platform, self.declared, deps=filled)
        jobs = jobs_of(self.declared, assets)
        return dg.Definitions(
            assets=assets,
            jobs=jobs,
            schedules=schedules_of(self.declared, jobs),
            resources={"options": options_at_launch()},
        )
