"""MaskMatch itself: views, teacher, pseudo-labels, losses. No I/O and no loop, so usable in any trainer."""

from maskmatch.method.branches import BRANCHES, COMPARABLE, DIVISORS, Branch, Losses, Part, PseudoLabels
from maskmatch.method.maskmatch import MaskMatch
from maskmatch.method.teacher import Teacher

__all__ = ["BRANCHES", "COMPARABLE", "DIVISORS", "Branch", "Losses", "MaskMatch", "Part", "PseudoLabels", "Teacher"]
