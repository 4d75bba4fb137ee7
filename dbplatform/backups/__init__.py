"""Logical backups that are proven by a restore.

``create`` dumps one snapshot and writes down what was in it; ``verify`` reads the files again; ``restore`` brings a
database back; ``drill`` restores into a scratch database and compares it with what was written down; ``prune`` removes
old backups, never the newest proven one; ``proof`` tells what is proven to whoever wants to delete rows.
"""
