"""What each part of the method gives; ablation/command.py has the options."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks and maskmatch of this checkout
from benchmarks.ablation.command import main
from maskmatch.commands.command_line import run

if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
