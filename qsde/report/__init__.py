"""One HTML file per calibrated surface: works offline, prints well, safe to forward."""

from qsde.report.page import render, write_report

__all__ = ["render", "write_report"]
