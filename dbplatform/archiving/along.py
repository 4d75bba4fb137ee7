"""Step three where rows of other tables leave along: a row goes with all that refer to it, or all of them stay.

The rows of a batch are locked, and so are the exported ones that refer to them, downwards (FOR UPDATE): from then on
nobody can change them, or come to refer to them (manual: "13.3.2 Row-Level Locks"). Later statements therefore see all
there is. A row is whole when it is what was exported, and every row that refers to it is in the file, unchanged, held
by the proven backup, and whole itself, and none of the file is missing. Whole rows leave with what refers to them,
children first, in the transaction of the batch.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from psycopg import sql

from dbplatform.archiving import records
from dbplatform.archiving.children import any_of
from dbplatform.archiving.content import same_columns, same_key, same_row
from dbplatform.archiving.errors import RowsHeldBack
from dbplatform.archiving.kept import reading
from dbplatform.archiving.points import reached
from dbplatform.archiving.proof import ProvenSnapshot, covered
from dbplatform.archiving.records import Reason, reason_to_stay
from dbplatform.archiving.shape import TableShape, read_references
from dbplatform.archiving.staging import Staging, staging
from dbplatform.archiving.verify import require_same_columns
from dbplatform.postgres.connection import AutocommitConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildFile:
    """Exported rows that leave along with those of ``parent_id``, to which ``columns`` refer."""

    archive_id: uuid.UUID
    parent_id: uuid.UUID
    shape: TableShape
    columns: tuple[tuple[str, str], ...]
    location: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One table of a family at work. In statements its row is called ``t<place>``, that of the file ``x<place>``."""

    place: int
    archive_id: uuid.UUID
    shape: TableShape
    stage: Staging
    parent: Member | None
    columns: tuple[tuple[str, str], ...]

    @property
    def row(self) -> str:
        return f"t{self.place}"

    @property
    def stored(self) -> str:
        return f"x{self.place}"

    @property
    def match(self) -> sql.Composed:
        """Whether the two rows have the same key."""
        return same_key(self.shape.key, self.row, self.stored)

    @property
    def same(self) -> sql.Composed:
        """Whether the two rows have the same contents."""
        return same_row(self.shape.names, self.row, self.stored)

    @property
    def table(self) -> sql.Composed:
        """The table under the name of its row."""
        return sql.SQL("{} as {}").format(self.shape.table.identifier, sql.Identifier(self.row))

    @property
    def file(self) -> sql.Composed:
        """The file's rows under their name."""
        return sql.SQL("{} as {}").format(self.stage.table, sql.Identifier(self.stored))

    @property
    def line(self) -> tuple[list[sql.Composed], list[sql.Composed]]:
        """The files from this one up to the root, and how their rows belong together."""
        if self.parent is None:
            return [self.file], []
        files, joins = self.parent.line
        return [self.file, *files], [same_columns(self.columns, self.stored, self.parent.stored), *joins]


@contextmanager
def family(connection: AutocommitConnection, root: Member, files: Sequence[ChildFile]) -> Iterator[tuple[Member, ...]]:
    """The root and a member for each file, parents first, the files loaded. Raises ``ArchiveDamaged``."""
    with ExitStack() as stack:
        members = {root.archive_id: root}
        for place, file in enumerate(files, start=1):
            names = file.shape.names
            stage = stack.enter_context(staging(connection, file.shape.table, names, by_place=False, number=place))
            with reading(file.location, file.sha256, connection) as reader:
                require_same_columns(file.shape, reader.metadata)
                for block in reader.blocks():
                    stage.add(block)
            stage.index([own for own, _ in file.columns])
            stage.index(file.shape.key)
            stage.analyze()
            members[file.archive_id] = Member(
                place=place,
                archive_id=file.archive_id,
                shape=file.shape,
                stage=stage,
                parent=members[file.parent_id],
                columns=file.columns,
            )
        yield tuple(members.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The rows ``[first, end)`` of the root's file, with all that leaves along; the transaction is the caller's."""

    connection: AutocommitConnection
    members: tuple[Member, ...]
    proof: ProvenSnapshot
    first: int
    end: int
    name: str
    total: int

    @property
    def root(self) -> Member:
        return self.members[0]

    def leave(self) -> int:
        """Delete the whole rows with what refers to them, and account for every other; how many left of the root's.

        Raises ``RowsHeldBack`` where a trigger keeps a row: then the transaction must be rolled back.
        """
        self._lock()
        verdicts = self._judged()
        whole = [place for place, reason in verdicts if reason is None]
        for member in reversed(self.members[1:]):
            self._delete(member, whole)
        reached(self.name, "children", self.end, self.total)
        gone = self._delete_rows(self.root, whole)
        self._require_all(self.root, gone, len(whole))
        kept = [(place, reason) for place, reason in verdicts if reason is not None]
        records.keep(self.connection, self.root.archive_id, [row[0] for row in kept], [row[1] for row in kept])
        return gone

    @property
    def _among(self) -> sql.Composed:
        return self.root.stage.between(self.first, self.end, self.root.stored)

    def _lock(self) -> None:
        for member in self.members:
            files, joins = member.line
            self.connection.execute(
                sql.SQL("select from {} where {} for update of {}").format(
                    sql.SQL(", ").join([member.table, *files]),
                    sql.SQL(" and ").join([member.match, *joins, self._among]),
                    sql.Identifier(member.row),
                )
            )

    def _judged(self) -> list[tuple[int, Reason | None]]:
        root = self.root
        rows = self.connection.execute(
            sql.SQL(
                "select {place}, t.same, t.held, t.referred, {whole} from {file} left join lateral"
                " (select {same} as same, {held} as held, {referred} as referred from {table} where {match}) as t"
                " on true where {among} order by 1"
            ).format(
                place=root.stage.ordinal_of(root.stored),
                whole=self._whole(root),
                file=root.file,
                same=root.same,
                held=covered(self.proof, root.row, root.shape.table),
                referred=self._referred(root),
                table=root.table,
                match=root.match,
                among=self._among,
            )
        ).fetchall()
        return [
            (place, reason_to_stay(same, held, referred) or (None if whole else "children"))
            for place, same, held, referred, whole in rows
        ]

    def _whole(self, member: Member) -> sql.Composed:
        """Whether all that refers to the row is in the files, unchanged and whole, and all in the files is there."""
        parts: list[sql.Composable] = [sql.SQL("true")]
        for child in (one for one in self.members if one.parent is member):
            belongs = same_columns(child.columns, child.stored, member.stored)
            refers = same_columns(child.columns, child.row, member.stored)
            stands = [
                child.match,
                child.same,
                covered(self.proof, child.row, child.shape.table),
                sql.SQL("not {}").format(self._referred(child)),
                self._whole(child),
            ]
            parts.append(
                sql.SQL("not exists (select from {} where {} and not exists (select from {} where {}))").format(
                    child.table, refers, child.file, sql.SQL(" and ").join(stands)
                )
            )
            parts.append(
                sql.SQL("not exists (select from {} where {} and not exists (select from {} where {} and {}))").format(
                    child.file, belongs, child.table, child.match, child.same
                )
            )
        return sql.SQL("({})").format(sql.SQL(" and ").join(parts))

    def _referred(self, member: Member) -> sql.Composed:
        """Whether a row refers to this one that does not leave along; the catalog is asked in this transaction."""
        along = [(one.shape.table, set(one.columns)) for one in self.members if one.parent is member]
        return any_of(
            [
                reference.refers_to(member.row)
                for reference in read_references(self.connection, member.shape.oid)
                if (reference.child, set(reference.columns)) not in along
            ]
        )

    def _delete(self, member: Member, whole: list[int]) -> None:
        """Delete the member's rows that belong to whole ones, and account for all that belong to the batch."""
        files, joins = member.line
        place = member.stage.ordinal_of(member.stored)
        rows = self.connection.execute(
            sql.SQL(
                "select {place}, {root_place} = any(%s), (select {same} from {table} where {match})"
                " from {files} where {among}"
            ).format(
                place=place,
                root_place=self.root.stage.ordinal_of(self.root.stored),
                same=member.same,
                table=member.table,
                match=member.match,
                files=sql.SQL(", ").join(files),
                among=sql.SQL(" and ").join([*joins, self._among]),
            ),
            (whole,),
        ).fetchall()
        leaving = sum(goes for _, goes, _ in rows)
        gone = self._delete_rows(member, whole)
        self._require_all(member, gone, leaving)
        kept = [(where, _reason_of_child(same)) for where, goes, same in rows if not goes]
        records.keep(self.connection, member.archive_id, [row[0] for row in kept], [row[1] for row in kept])
        stand = records.read_progress(self.connection, member.archive_id)
        assert stand is not None
        records.advance(self.connection, member.archive_id, stand.position, stand.position + len(rows), gone)

    def _delete_rows(self, member: Member, whole: list[int]) -> int:
        files, joins = member.line
        return self.connection.execute(
            sql.SQL("delete from {} using {} where {} and {} = any(%s)").format(
                member.table,
                sql.SQL(", ").join(files),
                sql.SQL(" and ").join([member.match, *joins]),
                self.root.stage.ordinal_of(self.root.stored),
            ),
            (whole,),
        ).rowcount

    def _require_all(self, member: Member, gone: int, expected: int) -> None:
        if gone != expected:
            raise RowsHeldBack(
                rows=expected - gone,
                table=str(member.shape.table),
                hint="Look for a trigger or a rule that keeps rows on DELETE, and for row-level security.",
            )


def _reason_of_child(same: bool | None) -> Reason:
    return reason_to_stay(same, held=True, referred=False) or "parent"
