"""The status service: what the ledger says, over HTTP, for people and programs.

The one thing that it changes is that a report was reviewed.
"""
