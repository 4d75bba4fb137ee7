"""Asset checks that are asked of the platform, several in one step: of the migrations, the health, the partitions.

Which checks there are, and what each finds, is said where they belong; how they run is said here. A dry run asks
nothing, and one that could not run has not passed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import Found, check_result, step


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One check: what it says when it passes, and how it is asked in a run, by the run's id."""

    words: str
    ask: Callable[[str], Found]


def asset_checks(
    declared: Declared, step_name: str, asked: Mapping[dg.AssetCheckKey, Asked]
) -> list[dg.AssetChecksDefinition]:
    """The checks of one step ``<database>/<step_name>``; none where nothing is asked."""
    if not asked:
        return []

    @dg.multi_asset_check(
        name=f"{declared.name}__{step_name}",
        specs=[dg.AssetCheckSpec(key.name, asset=key.asset_key, description=one.words) for key, one in asked.items()],
        can_subset=True,
    )
    def checks(
        context: dg.AssetCheckExecutionContext, options: dg.ResourceParam[Options]
    ) -> Iterator[dg.AssetCheckResult]:
        if options.dry_run:
            return
        with step(context, f"{declared.name}/{step_name}"):
            for key, one in asked.items():
                if key in context.selected_asset_check_keys:
                    yield check_result(key.asset_key, key.name, partial(one.ask, context.run.run_id))

    return [checks]
