"""How far sequences have come."""

from __future__ import annotations

from dbplatform.monitoring.probes.collecting import Collecting, Probe, one
from dbplatform.postgres.connection import AutocommitConnection

_NAME = "sequence_used_ratio"


def _measure(connection: AutocommitConnection, into: Collecting) -> None:
    row = one(connection, "metrics_sequences")
    count, hidden, worst = row["sequences"], row["hidden"], row["worst"]
    into.worst["sequences"] = row["nearest"] or ()
    unread = f"{hidden} of {count} sequences may not be read by the user"
    if hidden:
        grant = f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {row['schemas']} TO {into.facts.user};"
        into.missing.append(f"SELECT on {hidden} sequences, to see how far they are: {grant}")
    if worst is not None:
        sequence, ratio, last = worst
        detail = unread if hidden else f"{sequence} is at {int(last):,}"
        labels = {"sequence": sequence}
        into.found(_NAME, max(0.0, float(ratio)), labels=labels, detail=detail, complete=not hidden)
    elif hidden:
        into.unknown(unread, _NAME)
    else:
        into.nothing("no sequence has been used yet" if count else "no sequence comes to an end", _NAME)


SEQUENCES = Probe((_NAME,), _measure)
