"""``dbplatform worker``: this machine executes steps of runs that were begun elsewhere."""

from __future__ import annotations

import os

import click

from dbplatform.cli.common import note, platform_of


@click.command()
@click.option("--steps", type=click.IntRange(1, 64), default=1, show_default=True, help="How many at the same time.")
@click.option("--name", default="dbplatform", show_default=True, help="Another name, for a second one on this machine.")
@click.pass_context
def command(context: click.Context, steps: int, name: str) -> int:
    """Execute steps of runs, until it is stopped: by Ctrl-C or SIGTERM once the steps that it has are done.

    DBPLATFORM_CELERY_URL names the Redis that hands out the steps. The ledger, Dagster's record of runs and the
    databases are reached by URL, backups, archives and reports lie in buckets: machines share no disk. The project, its
    secrets and the version of dbplatform are the same on all of them.
    """
    from dbplatform.orchestration.instance import prepare_instance
    from dbplatform.orchestration.workers import require_workers

    require_workers()
    from dbplatform.orchestration.worker import work

    platform = platform_of(context)
    prepare_instance(platform)
    os.environ["DBPLATFORM_PROJECT"] = str(platform.project.root)
    platform.ledger.engine.dispose()  # it can be reached, and has this version's tables
    note(f"executes {steps} step{'' if steps == 1 else 's'} at the same time (Ctrl-C stops it)")
    return work(steps=steps, name=name)
