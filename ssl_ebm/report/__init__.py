"""What a person looks at: pages, figures, animations."""

from ssl_ebm.report.density import DensityReport

__all__ = ["DensityReport"]
