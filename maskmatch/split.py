"""`python -m maskmatch.split`; what it does is in maskmatch/commands/split.py."""

import sys

from maskmatch.commands.split import main

if __name__ == "__main__":
    sys.exit(main())
