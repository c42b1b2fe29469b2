"""`python -m maskmatch.evaluate`; what it does is in maskmatch/commands/evaluate.py."""

import sys

from maskmatch.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
