"""Scales on which objectives are learned: where equal steps mean about as much everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_EDGE = 1e-3  # shares nearer to 0 or 1 than this are taken as this: the logit of 0 is not a number
_FAR = 4.0  # worse than the median by so many times what the best twentieth is better is all the same: no good


@dataclass(frozen=True)
class Scale:
    """One objective's scale, from its told values. Monotone, so that less stays better.

    logit: of shares to be maximised, which arrive negated (-1 to 0). log: of positive costs. plain: of all else.
    ceiling: what is worse, on the scale, is as bad as this; broken candidates would else decide the fit.
    """

    kind: Literal["logit", "log", "plain"]
    ceiling: float

    @classmethod
    def of(cls, values: Floats, *, squash: bool = True) -> Scale:
        """values: (n,) finite, to be minimised."""
        if len(values) and (values >= -1).all() and (values <= 0).all() and (values < 0).any():
            kind: Literal["logit", "log", "plain"] = "logit"
        else:
            kind = "log" if (values > 0).all() else "plain"
        scale = cls(kind, np.inf)
        if not squash or not len(values):
            return scale
        seen = scale.forward(values)
        middle = float(np.median(seen))
        return cls(kind, middle + _FAR * max(middle - float(np.quantile(seen, 0.05)), 1e-9))

    def forward(self, values: Floats) -> Floats:
        if self.kind == "logit":
            share = np.clip(-values, _EDGE, 1 - _EDGE)
            scaled = -np.log(share / (1 - share))
        else:
            scaled = np.log(np.maximum(values, 1e-300)) if self.kind == "log" else values
        return np.minimum(scaled, self.ceiling)

    def back(self, scaled: Floats) -> Floats:
        if self.kind == "logit":
            return -1.0 / (1.0 + np.exp(scaled))
        return np.exp(np.minimum(scaled, 700.0)) if self.kind == "log" else scaled
