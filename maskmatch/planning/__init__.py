"""Settings chosen from a folder and a machine, each with its reason: `make_plan` looks, `tried_out` takes steps."""

from maskmatch.planning.choice import Choice
from maskmatch.planning.machine import Machine, this_machine
from maskmatch.planning.plan import Plan, make_plan, tried_out

__all__ = ["Choice", "Machine", "Plan", "make_plan", "this_machine", "tried_out"]
