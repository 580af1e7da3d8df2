"""Learning-rate schedules: a factor for the step, the same for dense parameters and tables."""

from __future__ import annotations

import dataclasses

from clickwise.recipe import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up, a plateau, polynomial decay, then a constant end; steps count from 1.

        s ≤ W          1 − (W − s) / (W · 2^warmup_factor)
        W < s ≤ D      1
        D < s ≤ D + N  max(((D + N − s) / N)^p, end)
        s > D + N      end

    with W `warmup_steps`, D `decay_start_step` (null: never decay), N `decay_steps` (0: never decay), p `decay_power`
    and `end` the `end_factor`. NOTE[DIFF] One of the reference's schedules rises again after the end, the other drops
    to zero at once for N = 0; this one does neither.
    """

    warmup_steps: int = 0
    warmup_factor: int = 0
    decay_start_step: int | None = None
    decay_steps: int = 0
    decay_power: float = 2.0
    end_factor: float = 0.0

    def __post_init__(self) -> None:
        for key in ("warmup_steps", "warmup_factor", "decay_steps"):
            require(getattr(self, key) >= 0, key, found=getattr(self, key), expected="0 or more")
        require(self.decay_power > 0, "decay_power", found=self.decay_power, expected="a number above 0")
        require(0 <= self.end_factor <= 1, "end_factor", found=self.end_factor, expected="a share of the rate, 0 to 1")
        start = self.decay_start_step
        require(start is None or start >= self.warmup_steps, "decay_start_step", found=start,
                expected=f"a step at or after the end of the warm-up ({self.warmup_steps})")

    def factor(self, step: int) -> float:
        """What the base learning rate is multiplied with at this step (1, 2, …)."""
        if step <= self.warmup_steps:
            return 1.0 - (self.warmup_steps - step) / (self.warmup_steps * 2.0**self.warmup_factor)
        if self.decay_start_step is None or self.decay_steps == 0 or step <= self.decay_start_step:
            return 1.0
        left = self.decay_start_step + self.decay_steps - step
        if left <= 0:
            return self.end_factor
        return max((left / self.decay_steps) ** self.decay_power, self.end_factor)
