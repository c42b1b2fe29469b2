"""How fast: operators, steps and loaders against others; speed/command.py has the options."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks and maskmatch of this checkout
from benchmarks.speed.command import main

if __name__ == "__main__":
    sys.exit(main())
