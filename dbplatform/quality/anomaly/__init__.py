"""Values that are not what their own past lets expect: seasons, the baseline, and the history in the ledger.

What is measured, and how it is declared, belongs to ``quality.checks.anomaly``. Only ``baseline`` and ``choice``
compute, and import NumPy.
"""
