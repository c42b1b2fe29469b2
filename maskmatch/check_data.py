"""`python -m maskmatch.check_data`; what it does is in maskmatch/commands/check_data.py."""

import sys

from maskmatch.commands.check_data import main

if __name__ == "__main__":
    sys.exit(main())
