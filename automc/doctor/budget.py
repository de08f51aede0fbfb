"""How long the doctor may take, part by part: what it does not get to, it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Budget:
    """Seconds for the parts that look at as much as there is time for; the others take what they take.

    leaks_s: comparing samples of the splits. accuracy_s: the base on train and validation. space_s: sampled candidates.
    clock: monotonic seconds, replaced in tests.
    """

    leaks_s: float = 8.0
    accuracy_s: float = 8.0
    space_s: float = 20.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def until(self, seconds: float) -> Deadline:
        return Deadline(self.clock() + seconds, self.clock)


@dataclass(frozen=True)
class Deadline:
    """A moment of a clock."""

    moment: float
    clock: Callable[[], float]

    def over(self) -> bool:
        return self.clock() >= self.moment
