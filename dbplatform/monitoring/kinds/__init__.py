"""The metrics, by what they speak of. ``monitoring.metrics.KINDS`` puts them together."""
