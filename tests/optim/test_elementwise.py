"""The building blocks of update rules."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from backwire_server.optim.elementwise import sign


@given(hnp.arrays(st.sampled_from([np.float32, np.float64]), 20))
def test_sign_is_exact_for_every_number(values: NDArray[Any]) -> None:
    expected = np.sign(values)
    with np.errstate(over="ignore", invalid="ignore"):
        sign(values)
    np.testing.assert_array_equal(values, expected)
