"""Live tables: what changed in them is known the moment it is committed, and read again without a gap.

A trigger of each statement notes the keys of its rows in ``dbplatform.live_event`` and notifies; it commits with the
change or not at all. ``install`` makes these, ``events`` reads what was noted since a token, ``policy`` is what may be
declared. Who listens is ``web/push``. Why a token is a snapshot and no number: ADR 16.
"""
