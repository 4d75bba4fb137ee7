"""Schema migrations of one database: find the files, compare them with the history, apply what is pending.

Files and history are Flyway's, so that either tool can take over from the other. Call it through ``engine``:
``plan_migrations`` only reads, ``apply_migrations`` writes, ``history`` tells what was done.
"""
