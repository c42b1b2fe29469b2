"""`python -m maskmatch.export`; what it does is in maskmatch/commands/export.py."""

import sys

from maskmatch.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
