"""The check types, one class each, in modules by what they look at. Importing a module here makes its types known."""

from dbplatform.quality.checks import anomaly, keys, measures, query, rows, shape
from dbplatform.quality.checks.base import CHECK_TYPES, Check

__all__ = ["CHECK_TYPES", "Check", "anomaly", "keys", "measures", "query", "rows", "shape"]
