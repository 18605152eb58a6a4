"""What scikit-learn asks of every estimator."""

from typing import Any

import pytest

import backwire as bw

pytest.importorskip("sklearn", reason="scikit-learn is an extra")

from sklearn.utils.estimator_checks import parametrize_with_checks

from backwire.sklearn import RemoteClassifier, RemoteRegressor


@parametrize_with_checks(
    [RemoteClassifier(epochs=60, learning_rate=1e-2), RemoteRegressor(epochs=60, learning_rate=1e-2)]
)  # type: ignore[untyped-decorator]
def test_an_estimator_is_as_scikit_learn_wants_it(estimator: Any, check: Any, client: bw.Client) -> None:
    check(estimator.set_params(target=client.target))
