"""Checks of a partitioned table, partition by partition: what has changed is read, the rest is taken over.

Each check that can be put together is asked of each partition, by its own name, in the snapshot of all checks
(``reading``); where the last answer of a partition still holds (``witness.changed``), it is taken from the ledger, its
failing rows with it. The other checks are asked of the whole table, as always, and so are those that would tell values
of a masked column: what a partition answers to them is kept nowhere. In doubt it reads: without a partitioned table, on
a replica, under row-level security, or when a partition cannot be asked, the whole table is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import QualityResult
from dbplatform.postgres.catalog import row_count
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.attempt import Refused
from dbplatform.quality.by_partition import Answered
from dbplatform.quality.checks.base import Check, Outcome
from dbplatform.quality.checks.conditions import Count
from dbplatform.quality.checks.keys import Relationship
from dbplatform.quality.checks.measures import NullRatio
from dbplatform.quality.checks.rows import RowCheck
from dbplatform.quality.examination import Examination
from dbplatform.quality.failed_rows import Batch, batches, bound_of, key_columns
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult, PartitionsRead, TableResult
from dbplatform.quality.run import Run
from dbplatform.quality.unchanged import answers, known, reading, witness
from dbplatform.quality.unchanged.known import Answer, Known
from dbplatform.quality.unchanged.reading import Read
from dbplatform.quality.unchanged.witness import Server, Table, Tree, Witness
from dbplatform.quality.ways import PartitionWay, PartitionWays

_Keep = Callable[[Session, Examination, Batch, dict[str, QualityResult]], None]


@dataclass(slots=True)
class _Leaf:
    """One partition in this run."""

    table: Table
    earlier: Known | None
    why: str
    """Why it is read; or what speaks for not reading it."""
    wanted: list[Check] = field(default_factory=list)
    """The checks that must read it."""
    found: dict[str, Answer] = field(default_factory=dict)
    rows: int = 0
    promised: bool = False
    """That it is unchanged was not proven, but promised."""

    @property
    def name(self) -> str:
        return str(self.table.relation)


@dataclass(slots=True)
class _Plan:
    """What is read of which partition, and by whom."""

    tree: Tree
    server: Server
    columns: answers.Columns
    leaves: list[_Leaf]
    whole: dict[str, str]
    references: dict[Relation, Witness]
    prints: dict[str, str]


class Partitions:
    """The partitions of one table, with a memory in the ledger. Good for one examination."""

    def __init__(self, ledger: Ledger, database: str, policy: TablePolicy, *, full: bool = False) -> None:
        assert policy.unchanged is not None
        self.ledger, self.database, self.policy, self.full = ledger, database, policy, full
        self.unchanged = policy.unchanged
        self.answered: set[str] = set()
        self.read: PartitionsRead | None = None
        self._run: Run | None = None
        self._plan: _Plan | None = None
        self._remembered: set[str] = set()
        """The declared checks whose answers may be kept."""

    def answers(self, run: Run, checks: Sequence[Check]) -> Answered | None:
        """Read what has changed, and put the answers of all partitions together."""
        plan = self._planned(run, checks)
        if isinstance(plan, str):
            return None
        self._run, self._plan = run, plan
        self._read(run, plan)
        found = Answered(sum(leaf.rows for leaf in plan.leaves), {}, {})
        for check in checks:
            every = [leaf.found[check.name] for leaf in plan.leaves if check.name in leaf.found]
            if check.name in plan.whole or len(every) < len(plan.leaves):
                continue
            put = partial(self._together, run, plan, check, every)
            counts = all(isinstance(part, Count) for part in check.parts)  # the server need not be asked to add them
            joined = put() if counts else run.attempt(put)
            if isinstance(joined, Refused):
                continue
            found.parts[check.name] = joined
            if every[0].own is not None:
                found.own[check.name] = (sum(answer.own or 0 for answer in every),)
        self.answered = set(found.parts)
        self.read = PartitionsRead(all=len(plan.leaves), read=sum(bool(leaf.wanted) for leaf in plan.leaves))
        return found

    def explain(self, run: Run, checks: Sequence[Check]) -> PartitionWays:
        """Which partitions would be read, and which checks read the whole table."""
        plan = self._planned(run, checks)
        if isinstance(plan, str):
            return PartitionWays(partitions=(), refused=plan, whole={})
        ways = tuple(PartitionWay(partition=leaf.name, read=bool(leaf.wanted), why=leaf.why) for leaf in plan.leaves)
        return PartitionWays(partitions=ways, refused=None, whole=plan.whole)

    def note(self, check: Check, outcome: Outcome) -> Outcome:
        """Say how many of the failing rows were not read now."""
        if self._plan is None or check.name not in self.answered or not outcome.failed_rows:
            return outcome
        unread = [leaf for leaf in self._plan.leaves if check not in leaf.wanted and leaf.found[check.name].failed]
        rows = sum(leaf.found[check.name].failed for leaf in unread)
        since = known.oldest(leaf.earlier for leaf in unread if leaf.earlier)
        if not rows or since is None:
            return outcome
        where = "a partition that is" if len(unread) == 1 else f"{len(unread)} partitions that are"
        said = f"Of the failing rows {rows:,} were found before, in {where} unchanged since {since:%Y-%m-%d %H:%M} UTC."
        return replace(outcome, message=f"{outcome.message} {said}")

    def record(self, session: Session, stored: dict[str, QualityResult], *, bound: int, keep: _Keep) -> None:
        """Keep the failing rows, partition by partition, and what is known of each now."""
        known.forget(session, self.database, str(self.policy.table), but=self._remembered)
        run, plan = self._run, self._plan
        if run is None or plan is None:
            return
        key = key_columns(self._examination(run, run.relation, (), ()))
        for leaf in plan.leaves:
            failing = [
                check
                for check in run.checks
                if check.name in self.answered and stored[check.name].failed_rows and leaf.found[check.name].failed
            ]
            unkept = []
            for check in failing:
                copied = None
                if check not in leaf.wanted and not run.masked:  # what was masked then may be masked otherwise now
                    most = max(0, bound_of(check, bound) - stored[check.name].kept_rows)
                    answer, result = leaf.found[check.name], stored[check.name]
                    copied = known.take_over_rows(session, answer, result, key=key, most=most)
                if copied is None:
                    unkept.append(check)
                else:
                    leaf.found[check.name] = copied
            self._keep_rows(session, run, leaf, unkept, stored, bound, keep)
        known.save(
            session,
            self.database,
            str(run.relation),
            {leaf.name: one for leaf in plan.leaves if (one := _known(plan, leaf)) != leaf.earlier},
            existing=[leaf.name for leaf in plan.leaves],
        )

    def _planned(self, run: Run, checks: Sequence[Check]) -> _Plan | str:
        """What must be read; or why the table can only be read as a whole."""
        self._remembered = {check.name for check in self.policy.checks if not check.tells(run.masks)}
        tree = run.attempt(partial(witness.tree_of, run.connection, run.relation, self.unchanged))
        if isinstance(tree, Refused):
            return tree.reason
        if tree.refused:
            return tree.refused
        server = run.attempt(partial(witness.server_of, run.connection))
        if isinstance(server, str | Refused):
            return server if isinstance(server, str) else server.reason
        columns = answers.Columns.of(run.connection, run.relation)
        plan = _Plan(tree, server, columns, [], {}, {}, {})
        for check in checks:
            why = (
                answers.whole(run.connection, run.relation, check, tree, columns, run.proofs)
                if check.name in self._remembered
                else "its column is masked: no value of it is kept"
            )
            if why is None and isinstance(check, Relationship) and check.name not in run.proofs:
                why = self._reference(run, plan, check)
            if why is not None:
                plan.whole[check.name] = why
        chosen = [check for check in checks if check.name not in plan.whole]
        if not chosen:
            return "no check can be answered partition by partition"
        plan.prints = answers.fingerprints(chosen, self.policy, run.proofs)
        self._remembered -= plan.whole.keys()
        earlier = known.load(self.ledger, self.database, str(run.relation), names=self._remembered)
        same_references: dict[str, bool] = {}
        for table in tree.leaves:
            plan.leaves.append(self._leaf(run, plan, table, earlier.get(str(table.relation)), chosen, same_references))
        return plan

    def _leaf(
        self, run: Run, plan: _Plan, table: Table, earlier: Known | None, chosen: list[Check], same: dict[str, bool]
    ) -> _Leaf:
        if self.full:
            return _Leaf(table, None, "everything is to be read", list(chosen))
        if earlier is None:
            return _Leaf(table, None, "it has not been read before", list(chosen))
        why = run.attempt(
            partial(witness.changed, run.connection, plan.server, table, earlier.witness),
        )
        if isinstance(why, Refused):
            why = f"it cannot be compared: {why.reason}"
        if why is not None:
            return _Leaf(table, None, why, list(chosen))
        leaf = _Leaf(table, earlier, "", rows=earlier.witness.rows, promised=witness.promised(table, earlier.witness))
        for check in chosen:
            answer = earlier.answers.get(check.name)
            declared = answer is not None and answer.fingerprint == plan.prints[check.name]
            if answer is not None and declared and self._same_reference(run, plan, check, answer.reference, same):
                leaf.found[check.name] = answer
            else:
                leaf.wanted.append(check)
        if leaf.wanted:
            names = ", ".join(check.name for check in leaf.wanted)
            leaf.why = f"unchanged, but new or changed is {names}"
        else:
            how = "as promised" if leaf.promised else "by its row versions"
            leaf.why = f"unchanged since {earlier.read_at:%Y-%m-%d %H:%M} UTC, {how}"
        return leaf

    def _reference(self, run: Run, plan: _Plan, check: Relationship) -> str | None:
        """Witness the table that a check refers to; why that cannot be, where it cannot."""
        relation = check.to.relation
        if relation in plan.references:
            return None
        table = run.attempt(partial(witness.table_of, run.connection, relation))
        if isinstance(table, Refused | str):
            return f"of {relation.words}: {table if isinstance(table, str) else table.reason}"
        rows = run.attempt(partial(row_count, run.connection, relation))
        if isinstance(rows, Refused):
            return rows.reason
        plan.references[relation] = Witness.of(plan.server, table, rows)
        return None

    def _same_reference(
        self, run: Run, plan: _Plan, check: Check, earlier: Witness | None, same: dict[str, bool]
    ) -> bool:
        """Whether the table that a check refers to, if any, has the rows that it had."""
        if earlier is None or not isinstance(check, Relationship):
            return True
        key = f"{check.to.relation} {earlier}"
        if key not in same:
            now = plan.references[check.to.relation]
            table = Table(
                relation=check.to.relation,
                refused=None,
                immutable=False,
                identity=now.table,
                counters=now.counters,
            )
            why = run.attempt(partial(witness.changed, run.connection, plan.server, table, earlier))
            same[key] = why is None
        return same[key]

    def _read(self, run: Run, plan: _Plan) -> None:
        """Ask the partitions what is wanted of them; a check that one cannot answer is asked of the whole table."""
        groups: dict[tuple[str, ...], list[_Leaf]] = {}
        for leaf in plan.leaves:
            if leaf.wanted:
                groups.setdefault(tuple(check.name for check in leaf.wanted), []).append(leaf)
        for leaves in groups.values():
            found = reading.read(run, [leaf.table.relation for leaf in leaves], leaves[0].wanted)
            for leaf, read in zip(leaves, found, strict=True):
                self._take(run, plan, leaf, read)

    def _take(self, run: Run, plan: _Plan, leaf: _Leaf, read: Read | None) -> None:
        """Note what was read of a partition."""
        if leaf.earlier is None:
            leaf.rows = 0 if read is None else read.rows
        for check in leaf.wanted:
            if read is None or check.name not in read.values:
                plan.whole[check.name] = f"{leaf.table.relation.words} cannot be asked by itself"
                continue
            proven, own = check.name in run.proofs, read.own.get(check.name)
            values = tuple(answers.as_text(value) for value in read.values[check.name])
            counted = int(own[0]) if own and not proven else None
            reference = plan.references.get(check.to.relation) if isinstance(check, Relationship) else None
            leaf.found[check.name] = Answer(
                fingerprint=plan.prints[check.name],
                values=values,
                own=counted,
                failed=_failed(check, values, counted, proven=proven),
                reference=None if proven else reference,
            )

    def _together(self, run: Run, plan: _Plan, check: Check, every: list[Answer]) -> list[Any]:
        values = [answer.values for answer in every]
        return answers.together(run.connection, check, plan.columns, values, proven=check.name in run.proofs)

    def _keep_rows(
        self,
        session: Session,
        run: Run,
        leaf: _Leaf,
        checks: list[Check],
        stored: dict[str, QualityResult],
        bound: int,
        keep: _Keep,
    ) -> None:
        """Read the failing rows of a partition: those of checks that have room for all of them together."""
        before = {check.name: stored[check.name].kept_rows for check in checks}
        room = {check.name: bound_of(check, bound) - before[check.name] for check in checks}
        roomy = [check for check in checks if leaf.found[check.name].failed <= room[check.name]]
        short = [check.model_copy(update={"keep_rows": room[check.name]}) for check in checks if check not in roomy]
        for group in (roomy, *([check] for check in short)):
            results = tuple(replace(run.result_of(check), failed_rows=leaf.found[check.name].failed) for check in group)
            part = self._examination(run, leaf.table.relation, tuple(group), results)
            for batch in batches(part, bound=bound):
                keep(session, part, batch, stored)
        for check in checks:
            result = stored[check.name]
            leaf.found[check.name] = replace(
                leaf.found[check.name],
                result_id=result.id,
                first=before[check.name] + 1,
                kept=result.kept_rows - before[check.name],
            )

    @staticmethod
    def _examination(
        run: Run, relation: Relation, checks: tuple[Check, ...], results: tuple[CheckResult, ...]
    ) -> Examination:
        """The examination of a part of the table, in whose snapshot its failing rows are read."""
        return Examination(
            connection=run.connection,
            relation=relation,
            checks=checks,
            result=TableResult(table=str(relation), row_count=None, checks=results, seconds=0),
            at=datetime.now(UTC),
            masks=run.all_masks,
            key_of=run.relation,
        )


def _failed(check: Check, values: Sequence[str | None], own: int | None, *, proven: bool) -> int:
    if proven:
        return 0
    if isinstance(check, RowCheck | NullRatio):
        return int(values[1] or 0)
    return own or 0


def _known(plan: _Plan, leaf: _Leaf) -> Known:
    """What a later run may take over: the witness of the moment in which the rows were read."""
    if leaf.earlier is None:
        seen = Witness.of(plan.server, leaf.table, leaf.rows)
        return Known(witness=seen, answers=leaf.found, read_at=datetime.now(UTC))
    seen = leaf.earlier.witness
    if not leaf.promised and (leaf.table.immutable, leaf.table.counters) != (seen.immutable, seen.counters):
        # The rows are proven to be the same: what is seen now is a witness, too. A promise alone proves nothing.
        seen = Witness.of(plan.server, leaf.table, leaf.rows)
    return Known(witness=seen, answers=leaf.earlier.answers | leaf.found, read_at=leaf.earlier.read_at)
