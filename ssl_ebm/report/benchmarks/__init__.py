"""The suites of ``ssl-ebm benchmark``, one module each, and what they share: rows, and timing."""
