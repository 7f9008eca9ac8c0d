"""Callbacks and metrics: quality of prediction, collapse, progress."""
