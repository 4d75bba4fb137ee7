"""Work that follows a change of data, whoever made it: declared on the assets, begun by one sensor for all databases.

- ``maintenance/analyze`` after a seed has loaded rows, or an archive has taken some: plans follow.
- The checks of partitioned tables, with their report, after partitions of one were made.

A change is a new data version, which an asset takes only in a run that changed data (``steps.data_version``): a seed
that had nothing to load begins nothing. What the same run already did behind the change is not done twice, several
changes make one run, and a freeze holds back what changes the database until it ends.

The condition of a freeze, and of the window of maintenance, is evaluated where the declarations are: in the code
location. Dagster takes 500 assets with a condition in such a sensor; where there are more, several sensors share the
databases.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any
from zlib import crc32

import dagster as dg
from dagster._record import copy

from dbplatform.declaration.loading import Declared
from dbplatform.orchestration import keys, schedules

NAME = "dbplatform_automation"
SECONDS = 60
#: Assets with a condition in one sensor: Dagster takes 500, and people may have some of their own.
MOST = 400

_Condition = dg.AutomationCondition[Any]


@dataclass(frozen=True, eq=False)
class MayBegin(dg.AutomationCondition[Any]):
    """True while maintenance of the database may begin by itself."""

    declared: Declared

    @property
    def name(self) -> str:
        return f"no freeze of {self.declared.name} is in force, and its window is open"

    @property
    def description(self) -> str:
        return schedules.hindrance(self.declared, schedules.current_time()) or ""

    def evaluate(self, context: dg.AutomationContext[Any]) -> dg.AutomationResult[Any]:
        hindered = schedules.hindrance(self.declared, schedules.current_time()) is not None
        return dg.AutomationResult(context, context.get_empty_subset() if hindered else context.candidate_subset)


def automated(declared: Declared, assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets of a database, those that follow others with their condition."""
    every = {key for asset in assets for key in asset.keys}
    conditions = {**_analyze(declared, every), **_checks(declared, every)}
    return [
        asset.map_asset_specs(
            lambda spec: (
                spec.replace_attributes(automation_condition=conditions[spec.key]) if spec.key in conditions else spec
            )
        )
        if conditions.keys() & asset.keys
        else asset
        for asset in assets
    ]


def _analyze(declared: Declared, every: set[dg.AssetKey]) -> dict[dg.AssetKey, _Condition]:
    key = keys.maintenance(declared.name, "analyze")
    data = sorted(one for one in every if one.path[1] in ("seed", "archive"))
    if key not in every or not data:
        return {}
    return {key: _follows(data, of=key) & MayBegin(declared)}


def _checks(declared: Declared, every: set[dg.AssetKey]) -> dict[dg.AssetKey, _Condition]:
    report = keys.quality_report(declared.name)
    tables = [policy.table for policy in declared.database.partitioned_tables]
    checked = [keys.table(declared.name, table) for table in tables]
    if report not in every or not tables:
        return {}
    # The same for all of them, so that they come in one run, which the report ends.
    condition = _follows([keys.partitions(declared.name, table) for table in tables], of=report)
    return {key: condition for key in (*checked, report) if key in every}


def _follows(data: Iterable[dg.AssetKey], *, of: dg.AssetKey) -> _Condition:
    """One of these has changed since ``of`` was made or asked for, and neither it nor one of them is being made."""
    data = list(data)
    changed = _any(data, dg.AutomationCondition.data_version_changed())
    handled = _any([of], dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated())
    busy = _any([*data, of], dg.AutomationCondition.in_progress())
    return changed.since(handled) & ~busy


def _any(assets: Iterable[dg.AssetKey], condition: _Condition) -> _Condition:
    return reduce(or_, (dg.AutomationCondition.asset_matches(key, condition) for key in assets))


class _Automation(dg.AutomationConditionSensorDefinition):
    """Dagster's own, but for its runs: one for each database, with its tag; and a tick that says who has to wait."""

    def __init__(self, databases: Sequence[Declared], **about: Any) -> None:
        # What is beta is pinned with Dagster's version; whoever starts a run need not read of it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            super().__init__(**about)
        self._databases = databases

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> Any:
        found = super().evaluate_tick(context)
        requests = [one for request in found.run_requests or () for one in _by_database(request)]
        return copy(found, run_requests=requests, skip_message=None if requests else self._words())

    def _words(self) -> str:
        now = schedules.current_time()
        hindrances = [schedules.hindrance(one, now) for one in self._databases]
        return "; ".join(["Nothing begins", *(words for words in hindrances if words is not None)])


def _by_database(request: dg.RunRequest) -> list[dg.RunRequest]:
    assets, checks = request.asset_selection or [], request.asset_check_keys or []
    return [
        request.with_replaced_attrs(
            asset_selection=[key for key in assets if key.path[0] == database],
            asset_check_keys=[check for check in checks if check.asset_key.path[0] == database],
            tags={**request.tags, "dbplatform/database": database},
        )
        for database in sorted({key.path[0] for key in assets})
    ]


def automation_sensors(databases: Sequence[Declared]) -> list[dg.SensorDefinition]:
    """The sensors over the conditions of these databases; they run as soon as the daemon does.

    One, or the least power of two with which none has more than ``MOST``. A database keeps its sensor, and with it what
    that has seen, while others come and go, until their number is doubled. The first sensor has what is not ours, too.
    """
    shares = _shares(databases)
    others = [one.name for share in shares[1:] for one in share]
    everything: dg.AssetSelection = dg.AssetSelection.all()
    if others:
        everything = everything - dg.AssetSelection.groups(*others)
    sensors = [_sensor(NAME, shares[0], everything)]
    for number, share in enumerate(shares[1:], 2):
        if share:
            groups = dg.AssetSelection.groups(*(one.name for one in share))
            sensors.append(_sensor(f"{NAME}_{number}", share, groups))
    return sensors


def _shares(databases: Sequence[Declared]) -> list[list[Declared]]:
    number = 1
    while True:
        shares: list[list[Declared]] = [[] for _ in range(number)]
        for one in databases:
            shares[crc32(one.name.encode()) % number].append(one)
        if number >= len(databases) or all(sum(map(_conditions, share)) <= MOST for share in shares):
            return shares
        number *= 2


def _conditions(declared: Declared) -> int:
    """How many assets of a database have a condition, at most."""
    tables = len(declared.database.partitioned_tables)
    return 1 + (1 + tables if tables and declared.database.quality else 0)


def _sensor(name: str, databases: Sequence[Declared], target: dg.AssetSelection) -> dg.SensorDefinition:
    return _Automation(
        databases,
        name=name,
        target=target,
        use_user_code_server=True,
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        emit_backfills=False,
        description="Begins what follows a change of data: ANALYZE after seeds and archives, checks after partitions.",
    )
