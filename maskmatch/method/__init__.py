"""MaskMatch itself: views, teacher, pseudo-labels, losses. No I/O and no loop, so usable in any trainer."""

from maskmatch.method.maskmatch import BRANCHES, COMPARABLE, DIVISORS, Branch, Losses, MaskMatch, PseudoLabels
from maskmatch.method.teacher import Teacher

__all__ = ["BRANCHES", "COMPARABLE", "DIVISORS", "Branch", "Losses", "MaskMatch", "PseudoLabels", "Teacher"]
