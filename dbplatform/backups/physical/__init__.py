"""Physical backups: of a whole server, restored to a chosen moment.

A base backup and the WAL since belong to a server, known by its system identifier, and serve every database on it.
``base`` takes base backups; ``spool`` and ``archive`` bring the WAL into the archive, ``receive`` does so for servers
that the platform does not run; ``targets`` tells which moments of the ``past`` can be restored, before anything starts;
``cluster`` brings a whole server up at one of them, aside; ``recover`` copies one database out of it; ``drill`` proves
it; ``prune`` removes what is too old.
"""
