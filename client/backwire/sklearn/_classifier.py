"""RemoteClassifier: a neural network that tells classes apart."""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import validate_data

from backwire._arrays import Array
from backwire._builder._graph import Graph
from backwire.sklearn import _network
from backwire.sklearn._estimator import DTYPES, RemoteEstimator
from backwire.sklearn._network import Network


class RemoteClassifier(ClassifierMixin, RemoteEstimator):  # type: ignore[misc]
    """A classifier that a Backwire server trains by cross-entropy: a perceptron, or any network that `bw` can build.

    Features of float32 are computed with in float32, others in float64. The fitted estimator speaks for a session on
    the server; its pickles and copies have all of the session, and `predict` works wherever `target` leads. The same
    `random_state` and data give the same bits.

    Args:
        hidden_layer_sizes: The units of each hidden layer.
        activation: That of hidden layers: `"identity"`, `"relu"`, `"tanh"`, `"logistic"`, `"gelu"` or `"silu"`.
        network: A function of features [batch, features], a `Value`, that returns [batch, units], on which the output
            layer is put; it replaces the hidden layers. A function of a module can be pickled, a lambda cannot.
        learning_rate: That of Adam.
        optimizer: Replaces Adam, such as `bw.AdamW(1e-3, weight_decay=0.01)`.
        epochs: How many times `fit` goes over the data.
        batch_size: The most examples in a step.
        validation_fraction: The share of the examples that is held out, for callbacks to watch; None for none.
        callbacks: What may end the training early, such as `bw.EarlyStopping()`; `fit` works with copies.
        random_state: What parameters and the order of examples are drawn from; None for another each time.
        target: Where the server is; `"embedded"` starts one, which all estimators of this process share.
        profile: See `bw.connect`.

    Attributes:
        classes_: The labels, sorted.
        n_features_in_: How many features it was fitted with.
        feature_names_in_: Their names, where the data had some.
        history_: How the last `fit` or `partial_fit` went.
        session_: The session on the server.

    Example:
        >>> from backwire.sklearn import RemoteClassifier
        >>> from sklearn.datasets import load_iris
        >>> x, y = load_iris(return_X_y=True)
        >>> model = RemoteClassifier((16,), learning_rate=0.02, epochs=60, random_state=0, target=client.target)
        >>> model.fit(x, y).score(x, y) > 0.9
        True
    """

    classes_: Array

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Trains a new network on features [examples, features] and labels [examples].

        Args:
            X: The features.
            y: The labels: integers or texts.
            sample_weight: What each example counts, [examples]; None for 1.
        """
        rows, labels = self._checked(X, y, reset=True)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        return self._fit(rows, numbers, sample_weight)

    def partial_fit(
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Goes on training, once over these examples in their order.

        Args:
            X: The features.
            y: The labels.
            classes: All labels that there will ever be; the first call needs them.
            sample_weight: What each example counts, [examples]; None for 1.
        """
        first = not hasattr(self, "_trained")
        rows, labels = self._checked(X, y, reset=first)
        self._settle(classes)
        numbers = np.searchsorted(self.classes_, labels).clip(max=len(self.classes_) - 1)
        if not np.array_equal(self.classes_[numbers], labels):
            raise ValueError(f"y has labels that are not in classes={self.classes_}; name all in the first call")
        return self._go_on(rows, numbers, sample_weight, first=first)

    def predict(self, X: ArrayLike) -> Array:  # noqa: N803
        """Returns the most probable label of each example, [examples]."""
        probability = self.predict_proba(X)
        labels: Array = self.classes_[probability.argmax(axis=1)]
        return labels

    def predict_proba(self, X: ArrayLike) -> Array:  # noqa: N803
        """Returns the probability of each class, [examples, classes], in the order of `classes_`."""
        return self._predict(X, _network.PROBABILITY)

    def predict_log_proba(self, X: ArrayLike) -> Array:  # noqa: N803
        """Returns the logarithms of the probabilities, without underflow."""
        return self._predict(X, _network.LOG_PROBABILITY)

    def _graph(self, network: Network, rows: Array, targets: Array) -> Graph:  # noqa: ARG002 - classes_ says more
        return _network.classifier(network, rows.shape[1], len(self.classes_), rows.dtype)

    def _checked(self, x: ArrayLike, y: ArrayLike, *, reset: bool) -> tuple[Array, Array]:
        rows, labels = validate_data(self, x, y, dtype=DTYPES, reset=reset)
        check_classification_targets(labels)
        return rows, column_or_1d(labels, warn=True)

    def _settle(self, classes: ArrayLike | None) -> None:
        """Takes the classes of the first call, and holds those of later ones against them."""
        if classes is None and not hasattr(self, "classes_"):
            raise ValueError("classes must be passed on the first call to partial_fit; give all labels there will be")
        if classes is None:
            return
        labels = unique_labels(classes)
        if hasattr(self, "classes_") and not np.array_equal(labels, self.classes_):
            raise ValueError(f"classes={labels} are not those of the first call, {self.classes_}; leave them out")
        self.classes_ = labels
