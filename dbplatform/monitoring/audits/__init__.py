"""Audits: what the catalog says of a database's structure and of its security, rule by rule.

``finding`` is what an audit tells, ``structure`` and ``security`` are the two audits, ``access`` tells who may do what;
their larger statements are in ``postgres/sql``. They read catalogs only, each statement under the limits of the session
(``collect.session``). A rule whose statement was refused is *not examined*: it has neither passed nor failed, and says
why.
"""
