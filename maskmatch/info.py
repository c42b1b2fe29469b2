"""`python -m maskmatch.info`; what it does is in maskmatch/commands/info.py."""

import sys

from maskmatch.commands.info import main

if __name__ == "__main__":
    sys.exit(main())
