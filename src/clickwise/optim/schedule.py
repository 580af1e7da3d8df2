"""Learning-rate schedules: a factor for the step, the same for dense parameters and tables of a part."""

from __future__ import annotations

import dataclasses
from typing import Literal

from clickwise.recipe import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up, then a plateau, polynomial decay and a constant end, or levels; steps s count from 1.

        s < W          1 − (W − s) / (W · 2^warmup_factor)
        W ≤ s ≤ D      1
        D < s ≤ D + N  max(((D + N − s) / N)^p, end)
        s > D + N      end

    with W `warmup_steps`, D `decay_start_step` (null: never decay), N `decay_steps` (0: never decay), p `decay_power`
    and `end` the `end_factor`. W, D and N may be given in epochs instead.

    warmup_steps, warmup_epochs        W: the rate rises for so long; 0: not at all
    warmup_factor                      it begins at about 2^-warmup_factor; 0: at 1 / W
    decay_start_step, decay_start_epoch   D: the rate falls from there on; null: never
    decay_steps, decay_epochs          N: for so long; 0: never
    decay_power                        p: 2 falls fast first, 1 evenly
    end_factor                         what is left of the rate at the end
    levels                             [[until, factor], …] instead of plateau and decay: `factor` up to the end of
                                       epoch `until`, after the last `until` the last factor; it may be a fraction
    compat                             one step late, as a reference steps: step s has the factor of step s − 1.
                                       tf2_dlrm: the first step that of step 0, where a warm-up is at no rate;
                                       tf2_wide_deep: the first the whole rate; tf2_wide_deep_2021: the first that of
                                       step 1, as the second has. null: not late

    NOTE[DIFF] One of the reference's schedules rises again after the end, the other drops
    to zero at once for N = 0; this one does neither.
    """

    warmup_steps: int = 0
    warmup_factor: int = 0
    decay_start_step: int | None = None
    decay_steps: int = 0
    decay_power: float = 2.0
    end_factor: float = 0.0
    warmup_epochs: float = 0.0
    decay_start_epoch: float | None = None
    decay_epochs: float = 0.0
    levels: tuple[tuple[float, ...], ...] = ()
    compat: Literal["tf2_dlrm", "tf2_wide_deep", "tf2_wide_deep_2021"] | None = None

    def __post_init__(self) -> None:
        for key in ("warmup_steps", "warmup_factor", "decay_steps", "warmup_epochs", "decay_epochs"):
            require(getattr(self, key) >= 0, key, found=getattr(self, key), expected="0 or more")
        for steps, epochs in TOLD_TWICE:
            require(getattr(self, steps) in (0, None) or getattr(self, epochs) in (0, None), epochs,
                    found=getattr(self, epochs), expected=f"{steps} or {epochs}, not both")
        require(self.decay_power > 0, "decay_power", found=self.decay_power, expected="a number above 0")
        require(0 <= self.end_factor <= 1, "end_factor", found=self.end_factor, expected="a share of the rate, 0 to 1")
        start = self.decay_start_step
        require(start is None or start >= self.warmup_steps, "decay_start_step", found=start,
                expected=f"a step at or after the end of the warm-up ({self.warmup_steps})")
        start = self.decay_start_epoch
        require(start is None or start >= self.warmup_epochs, "decay_start_epoch", found=start,
                expected=f"at or after the end of the warm-up (epoch {self.warmup_epochs:g})")
        require(all(len(level) == 2 and level[1] >= 0 for level in self.levels), "levels", found=self.levels,
                expected="pairs [until which epoch, factor of the rate], such as [[13, 0.25], [20, 0.125]]")
        untils = [level[0] for level in self.levels]
        require(untils == sorted(set(untils)) and all(until > 0 for until in untils), "levels", found=self.levels,
                expected="epochs above 0 that grow")
        decays = self.decay_steps or self.decay_epochs
        require(not (self.levels and decays), "levels", found=self.levels, expected="levels or a decay, not both")

    @property
    def counts_epochs(self) -> bool:
        """Whether `factor` needs the length of an epoch."""
        return bool(self.warmup_epochs or self.decay_start_epoch or self.decay_epochs or self.levels)

    def warmup(self, steps_per_epoch: int = 0) -> float:
        """W: the first step with the whole rate, where it is whole."""
        return self.warmup_steps + self.warmup_epochs * steps_per_epoch

    def factor(self, step: int, steps_per_epoch: int = 0) -> float:
        """What the base learning rate is multiplied with at this step (1, 2, …)."""
        if self.compat == "tf2_wide_deep" and step == 1:
            return 1.0
        if self.compat is not None:
            step = max(step - 1, 1 if self.compat == "tf2_wide_deep_2021" else 0)
        warmup = self.warmup(steps_per_epoch)
        if step < warmup:
            return 1.0 - (warmup - step) / (warmup * 2.0**self.warmup_factor)
        if self.levels:
            return next((factor for until, factor in self.levels if step <= until * steps_per_epoch),
                        self.levels[-1][1])
        start, length = self.decay_start_step, self.decay_steps + self.decay_epochs * steps_per_epoch
        if self.decay_start_epoch is not None:
            start = self.decay_start_epoch * steps_per_epoch
        if start is None or length == 0 or step <= start:
            return 1.0
        left = start + length - step
        if left <= 0:
            return self.end_factor
        return max((left / length) ** self.decay_power, self.end_factor)


TOLD_TWICE = (("warmup_steps", "warmup_epochs"), ("decay_start_step", "decay_start_epoch"),
              ("decay_steps", "decay_epochs"))
