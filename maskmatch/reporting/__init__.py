"""One page of HTML on one run, or on several side by side."""

from maskmatch.reporting.examine import Examined, examine
from maskmatch.reporting.page import MARK, render
from maskmatch.reporting.recorded import Recorded, read_recorded

__all__ = ["MARK", "Examined", "Recorded", "examine", "read_recorded", "render"]
