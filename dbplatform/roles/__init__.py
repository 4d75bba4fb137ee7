"""Least-privilege roles of one database: monitor, migrate, backup, archive, read.

Each is a role without login, named after the database, that people grant to logins of their own: no password is ever
written or shown here. ``wanted`` says which rights each needs, and why; ``actual`` reads those that are there;
``statements`` turns the difference into GRANT and REVOKE, each with its undo; ``plan`` and ``apply`` put them together.
``acting`` lets a session work as one of them. What a role is not granted, PostgreSQL itself refuses.
"""
