"""RemoteRegressor: a neural network that predicts numbers."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from backwire._arrays import Array
from backwire._builder._graph import Graph
from backwire.sklearn import _network
from backwire.sklearn._estimator import DTYPES, RemoteEstimator
from backwire.sklearn._network import Network


class RemoteRegressor(RegressorMixin, RemoteEstimator):  # type: ignore[misc]
    """A regressor that a Backwire server trains by least squares: a perceptron, or any network that `bw` can build.

    Targets should be about 1 in size, as with sklearn's `TransformedTargetRegressor`. All else is as in
    `RemoteClassifier`, the arguments too.

    Attributes:
        n_features_in_: How many features it was fitted with.
        feature_names_in_: Their names, where the data had some.
        history_: How the last `fit` or `partial_fit` went.
        session_: The session on the server.

    Example:
        >>> from backwire.sklearn import RemoteRegressor
        >>> x = np.linspace(-3, 3, 200)[:, None]
        >>> model = RemoteRegressor((32,), learning_rate=0.02, random_state=0, target=client.target)
        >>> model.fit(x, np.sin(x[:, 0])).score(x, np.sin(x[:, 0])) > 0.98
        True
    """

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Trains a new network.

        Args:
            X: The features, [examples, features].
            y: The targets, [examples] or [examples, outputs].
            sample_weight: What each example counts, [examples]; None for 1.
        """
        rows, targets = self._checked(X, y, reset=True)
        return self._fit(rows, targets, sample_weight)

    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Goes on training, once over these examples in their order; arguments are those of `fit`."""
        first = not hasattr(self, "_trained")
        rows, targets = self._checked(X, y, reset=first)
        return self._go_on(rows, targets, sample_weight, first=first)

    def predict(self, X: ArrayLike) -> Array:  # noqa: N803
        """Returns the prediction for each example, of the shape that the targets of `fit` had."""
        found = self._predict(X, _network.PREDICTION)
        return found[:, 0] if self._flat else found

    def _graph(self, network: Network, rows: Array, targets: Array) -> Graph:
        return _network.regressor(network, rows.shape[1], targets.shape[1], rows.dtype)

    def _checked(self, x: ArrayLike, y: ArrayLike, *, reset: bool) -> tuple[Array, Array]:
        rows, targets = validate_data(self, x, y, dtype=DTYPES, multi_output=True, y_numeric=True, reset=reset)
        targets = np.asarray(targets, rows.dtype)
        if reset:
            self._flat = targets.ndim == 1
        return rows, targets[:, None] if targets.ndim == 1 else targets

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
