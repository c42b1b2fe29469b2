"""`python -m maskmatch.report`; what it does is in maskmatch/commands/report.py."""

import sys

from maskmatch.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
