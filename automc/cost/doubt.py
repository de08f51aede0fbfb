"""How far off a fit to few measurements may be: what they left of it, and how unlike them a network is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL = 0.9
"""Share of the networks whose cost lies within a stated interval; here, where errors are normal."""
_PRIOR = 0.1
_PRIOR_ERROR, _PRIOR_COUNT = 0.04, 2.5
"""As if, before any measurement, each column were known to 1 / sqrt(_PRIOR) of its scale, and _PRIOR_COUNT of them had
been _PRIOR_ERROR off. Of 6 x 56 such priors, and of errors as fitted and as left out, what kept the share of networks
within the interval nearest to 88 to 95 %, with 3, 4, 5, 7, 10, 20 and 50 measurements, chosen and drawn at random, in
the mean over graphics processors, over CPUs and over phones alike, of the 35 device columns of HELP's tables on which
B1 does not judge intervals."""


@dataclass(frozen=True)
class Doubt:
    """reach: relative error that LEVEL of networks keep whose columns the measurements tell all about.
    still_open: (k, k) covariance of the coefficients, in units of the variance of one measurement."""

    reach: float
    still_open: Floats

    def half_width(self, rows: Floats) -> Floats:
        """(n,) of LEVEL intervals, as shares of what is predicted. rows: (n, k) columns over what is predicted.

        A column that no measurement has adds nothing, as nothing is said of what it costs.
        """
        wide: Floats = self.reach * np.sqrt(1.0 + _leverage(rows, self.still_open))
        return wide


def doubt_of(design: Floats, errors: Floats, *, left_out: bool = False) -> Doubt:
    """The doubt that n measurements leave.

    design: (n, k) columns over the measured cost. errors: (n,) relative, of the fit to all of them, or (left_out) of
    each measurement by the fit to the others. The interval is that of a prediction by least squares, with Student's
    quantile at the degrees of freedom that are left (Gelman et al. 2013, 14.2, with a conjugate prior).
    """
    from scipy.special import stdtrit

    still_open = _covariance(design)
    hold = _leverage(design, still_open)
    free = float((1.0 - hold).sum())
    # what is left out is off by 1 / sqrt(1 - hold) of a measurement's own error, what is fitted by sqrt(1 - hold)
    squares = float((errors**2 * (1.0 - hold)).mean()) * free if left_out else float((errors**2).sum())
    known = _PRIOR_COUNT + free
    deviation = float(np.sqrt((_PRIOR_COUNT * _PRIOR_ERROR**2 + squares) / known))
    return Doubt(float(stdtrit(known, (1.0 + LEVEL) / 2)) * deviation, still_open)


def _covariance(design: Floats) -> Floats:
    """(k, k); columns that are 0 throughout are left out of it."""
    scale = np.sqrt((design**2).mean(axis=0))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    scaled = design * inverse
    found: Floats = np.linalg.inv(_PRIOR * np.eye(design.shape[1]) + scaled.T @ scaled) * np.outer(inverse, inverse)
    return found


def _leverage(rows: Floats, covariance: Floats) -> Floats:
    """(n,) variance of a prediction for `rows`, in units of a measurement's."""
    found: Floats = np.einsum("ij,jk,ik->i", rows, covariance, rows)
    return found
