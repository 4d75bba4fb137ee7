"""Failing rows moved aside, each into a table with the columns that it had, and the way back."""
