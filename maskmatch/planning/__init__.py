"""Settings chosen from a folder: `make_plan` looks at it and says what it chose and why."""

from maskmatch.planning.choice import Choice
from maskmatch.planning.plan import Plan, make_plan

__all__ = ["Choice", "Plan", "make_plan"]
