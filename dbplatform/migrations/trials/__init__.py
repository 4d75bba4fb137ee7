"""Migrations run where nothing can be hurt, in a scratch database that the caller brings, and what that shows.

``try_out`` runs what is pending, ``round_trip`` all versions up, down and up; ``live`` looks at the tables that would
be locked, ``query_plans`` at the statements of the application.
"""
