"""What a run does by itself about its warnings, with `train.act_on_warnings`: each remedy once.

    no pseudo-label is confident          the threshold is eased, then the warm-up prolonged
    all confident ones are of one class   the warm-up is prolonged, then the unlabelled losses weigh less
    a class is lost                       the threshold is eased, then the unlabelled losses weigh less
    val is behind for some time           the unlabelled losses weigh less
    val has not risen for long            the run ends, and keeps its best

What was done, and what led to it, is part of the checkpoint: a resumed run does the same at the same step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from maskmatch.config import Config, MethodConfig
from maskmatch.training.pseudo_label_watch import CollapseWatch
from maskmatch.training.step import TrainStep

EASED = 0.85  # of the threshold
LIGHTER = 0.3  # of the weights
BEHIND = 3  # validations in a row below the run's own best; with a baseline, BEHIND_BASELINE below that one's
BEHIND_BASELINE = 2
FOR_LONG = 0.4  # of the steps, without a new best,
STALE = 4  # and so many validations

REMEDIES = {
    "empty": ("threshold", "warmup"),
    "one": ("warmup", "weight"),
    "lost": ("threshold", "weight"),
    "behind": ("weight",),
}
"""By the kind of the warning, in the order in which they are tried."""


@dataclass
class Remedies:
    """The method's numbers as they are now, and why.

    Args:
        config: of the run, resolved.
        train_step: whose method is changed.
        watch: whose warnings are acted on.
    """

    config: Config
    train_step: TrainStep
    watch: CollapseWatch
    taken: list[str] = field(default_factory=list)
    behind: int = 0  # validations in a row
    since_best: list[float] = field(default_factory=list)  # mIoU of the validations since the best one
    stopped: bool = False

    @property
    def method(self) -> MethodConfig:
        """As it is now."""
        return self.train_step.method.config

    def on_warnings(self, kinds: list[str], step: int) -> list[str]:
        """What is done after `step` steps about warnings of these kinds, a line each."""
        return [line for kind in kinds if (line := self._take(kind.split(" ")[0], step))]

    def on_validation(self, miou: float, baseline: float | None, best_step: int, step: int) -> list[str]:
        """The same about a validation.

        Args:
            miou: of the selected network.
            baseline: of the supervised-only baseline, if there is one.
            best_step: when the run was best, or its baseline, whichever was later.
            step: steps so far.
        """
        if self.train_step.method.ramp_up.factor(step - 1) < 1:  # the unlabelled losses are not all there yet
            return []
        self.since_best = [] if best_step == step else [*self.since_best, miou]
        below = miou < baseline if baseline is not None else best_step != step
        self.behind = self.behind + 1 if below else 0
        found = []
        if self.behind >= (BEHIND if baseline is None else BEHIND_BASELINE) and (line := self._take("behind", step)):
            found.append(line)
        if self._is_stale(best_step, step):
            self.stopped = True
            found.append(f"the run ends, as val has not risen since step {best_step}")
        return found

    def _is_stale(self, best_step: int, step: int) -> bool:
        steps, mious = self.config.train.steps or 0, self.since_best
        long = step - best_step >= FOR_LONG * steps and len(mious) >= STALE
        return long and step < steps and mious[-1] <= sum(mious) / len(mious)  # or it is on its way up again

    def _take(self, kind: str, step: int) -> str | None:
        for name in REMEDIES[kind]:
            if name not in self.taken:
                self.taken.append(name)
                self.behind = 0
                return _CHANGES[name](self, step)
        return None

    def _ease_threshold(self, step: int) -> str:
        before, now = self.method.threshold, EASED * self.method.threshold
        self._set(threshold=now)
        return f"the threshold is eased from {before:g} to {now:.3g}"

    def _prolong_warmup(self, step: int) -> str:
        steps = self.config.train.steps or 0
        more = min(max(self.config.method.warmup_steps or 0, steps // 10), (steps - step) // 2)
        self._set(warmup_steps=step + more)
        return f"the warm-up is prolonged to step {step + more}"

    def _lower_weight(self, step: int) -> str:
        before = self.method
        self._set(lambda_u=LIGHTER * before.lambda_u, lambda_m=LIGHTER * before.lambda_m)
        return f"the unlabelled losses weigh {LIGHTER:g} of what they did"

    def _set(self, **numbers: float) -> None:
        self.train_step.reconfigure(replace(self.method, **numbers))  # type: ignore[arg-type]
        self.watch.start_anew(self.method.threshold)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        numbers = {name: getattr(self.method, name) for name in ("threshold", "warmup_steps", "lambda_u", "lambda_m")}
        own = {name: getattr(self, name) for name in ("taken", "behind", "since_best", "stopped")}
        return {"method": numbers, "watch": self.watch.state_dict()} | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        if not state:
            return
        self._set(**state["method"])
        self.watch.load_state_dict(state["watch"])
        self.taken, self.behind = list(state["taken"]), state["behind"]
        self.since_best, self.stopped = list(state["since_best"]), state["stopped"]


_CHANGES: dict[str, Callable[[Remedies, int], str]] = {
    "threshold": Remedies._ease_threshold,
    "warmup": Remedies._prolong_warmup,
    "weight": Remedies._lower_weight,
}
