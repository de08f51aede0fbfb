"""What few measurements leave in doubt, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from automc.cost.doubt import doubt_of

ALIKE = np.ones((4, 1))
"""Four measurements of one column: hold of each 1 / 4.1, free 4 - 4 / 4.1 = 3.024, known with the prior 5.524."""


def test_four_alike_that_are_ten_per_cent_off() -> None:
    errors = np.array([0.1, -0.1, 0.1, -0.1])
    # sqrt((2.5 x 0.04^2 + 4 x 0.1^2) / 5.524) = 0.0892; Student's 95 % quantile at 5.524 degrees: 1.974
    fitted = doubt_of(ALIKE, errors)
    assert fitted.reach == pytest.approx(0.1761, abs=5e-4)
    # left out, each is further off than measurements are: 0.1^2 x (1 - 1 / 4.1) of them counts, 3.024 times
    assert doubt_of(ALIKE, errors, left_out=True).reach == pytest.approx(0.1376, abs=5e-4)
    assert fitted.half_width(np.array([[1.0]]))[0] == pytest.approx(0.1761 * (1 + 1 / 4.1) ** 0.5, abs=1e-3)


def test_a_network_twice_as_large_as_any_measured_is_in_more_doubt() -> None:
    found = doubt_of(ALIKE, np.full(4, 0.1))
    near, far = found.half_width(np.array([[1.0], [2.0]]))
    assert far / near == pytest.approx(((1 + 4 / 4.1) / (1 + 1 / 4.1)) ** 0.5)


def test_a_column_that_no_measurement_has_adds_no_doubt() -> None:
    found = doubt_of(np.column_stack([ALIKE, np.zeros(4)]), np.full(4, 0.1))
    one, both = found.half_width(np.array([[1.0, 0.0], [1.0, 9.0]]))
    assert one == both
