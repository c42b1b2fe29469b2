"""`python -m maskmatch.plan`; what it does is in maskmatch/commands/plan.py."""

import sys

from maskmatch.commands.plan import main

if __name__ == "__main__":
    sys.exit(main())
