"""Checks written from what a table is: its constraints, its comments and its data, each with the evidence for it."""
