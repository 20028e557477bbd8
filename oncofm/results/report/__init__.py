"""The HTML report of a run or a batch: one page that needs nothing beside it."""

from oncofm.results.report.batch_content import (
    BatchPage,
    Distribution,
    Example,
    HeadFigures,
    ReasonGroup,
)
from oncofm.results.report.content import Download, LeftOut, Page, ReportedCase, ReportedLesion
from oncofm.results.report.page import render_batch_report, render_report
from oncofm.results.report.preview import Preview, draw_preview

__all__ = [
    "BatchPage",
    "Distribution",
    "Download",
    "Example",
    "HeadFigures",
    "LeftOut",
    "Page",
    "Preview",
    "ReasonGroup",
    "ReportedCase",
    "ReportedLesion",
    "draw_preview",
    "render_batch_report",
    "render_report",
]
