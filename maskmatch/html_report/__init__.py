"""One page of HTML on one run, or on several side by side."""

from maskmatch.html_report.examined import Examined, examine
from maskmatch.html_report.page import MARK, render
from maskmatch.html_report.recorded import Recorded, read_recorded

__all__ = ["MARK", "Examined", "Recorded", "examine", "read_recorded", "render"]
