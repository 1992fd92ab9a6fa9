"""report.html: what a person wants to know about a training run or an evaluation, on one page."""

from condseg_sdk.training.report.write import write_evaluation_report, write_report

__all__ = ["write_evaluation_report", "write_report"]
