"""`python -m maskmatch.train`; what it does is in maskmatch/commands/train.py."""

import sys

from maskmatch.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
