"""The HTML report of a run: one page that needs nothing beside it."""

from oncofm.results.report.content import Download, LeftOut, Page, ReportedCase, ReportedLesion
from oncofm.results.report.page import render_report
from oncofm.results.report.preview import Preview, draw_preview

__all__ = [
    "Download",
    "LeftOut",
    "Page",
    "Preview",
    "ReportedCase",
    "ReportedLesion",
    "draw_preview",
    "render_report",
]
