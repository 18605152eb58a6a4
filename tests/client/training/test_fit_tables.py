"""Tables of pandas, polars and Arrow are trained on as they are."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import backwire as bw
from backwire._arrays import FLOAT32, INT64
from backwire._info import InputInfo
from backwire._training._data import source

INPUTS = (InputInfo("x", FLOAT32, ("batch", 2)), InputInfo("y", INT64, ("batch",)))
X, Y = np.arange(10.0).reshape(5, 2), np.arange(5)
FRAME = pd.DataFrame({"y": Y, "x": list(X), "name": list("abcde")})
TABLE = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 2), "y": pa.array(Y)})


@pytest.mark.parametrize(
    "data",
    [
        FRAME,
        {"x": pd.DataFrame(X), "y": FRAME["y"]},
        (pd.DataFrame(X), FRAME["y"].astype("Int64")),
        [FRAME[:2], FRAME[2:4], FRAME[4:]],
        TABLE,
        {"x": X, "y": TABLE["y"]},
        TABLE.to_batches(max_chunksize=2),
    ],
    ids=lambda data: type(data).__name__,
)
def test_rows_of_tables_are_examples(data: Any) -> None:
    batches = list(source(data, INPUTS, size=2, shuffle=False, seed=0).epoch(1))  # type: ignore[arg-type]
    assert [len(batch["y"]) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in batches]), X)
    np.testing.assert_array_equal(np.concatenate([batch["y"] for batch in batches]), Y)


def test_a_column_of_texts_is_no_input() -> None:
    with pytest.raises(bw.DTypeError, match="no number"):
        source(FRAME.assign(x=FRAME["name"]), INPUTS, size=2, shuffle=False, seed=0)
