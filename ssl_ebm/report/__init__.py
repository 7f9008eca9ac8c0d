"""What a person looks at: pages, figures, animations."""

from ssl_ebm.report.density import DensityReport
from ssl_ebm.report.text_report import TextReport

__all__ = ["DensityReport", "TextReport"]
