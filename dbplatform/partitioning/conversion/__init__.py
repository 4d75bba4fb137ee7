"""Online conversion: a live plain table becomes partitioned while it is read and written, and back again.

``shape`` reads everything that hangs on a table, ``refusals`` says what cannot come along, ``forward`` and ``backward``
write the statements, ``marks`` keeps the phase in the managed database, ``convert`` walks through the phases. The
strategy and its reasons: docs/adr/0007-a-table-is-converted-by-attaching-it.md.
"""
