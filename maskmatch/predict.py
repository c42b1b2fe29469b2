"""`python -m maskmatch.predict`; what it does is in maskmatch/commands/predict.py."""

import sys

from maskmatch.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
