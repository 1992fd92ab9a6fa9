"""report.html: a training run or an evaluation on one page."""

from condseg_sdk.report.write import check_report_folder, write_evaluation_report, write_report

__all__ = ["check_report_folder", "write_evaluation_report", "write_report"]
