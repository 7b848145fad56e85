"""Let people see: figures for papers and notebooks, and the report page."""

from carelab.show import plots, report

__all__ = ["plots", "report"]
