"""RemoteEstimator: what the classifier and the regressor share."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from backwire._arrays import Array
from backwire._builder._graph import Graph
from backwire._session import Session
from backwire._training._callbacks import Callback
from backwire._training._optimizers import Adam, Optimizer
from backwire.sklearn._network import FEATURES, TARGET, WEIGHT, Network, perceptron
from backwire.sklearn._sessions import Place, Trained

DTYPES = (np.float64, np.float32)


class RemoteEstimator(BaseEstimator, ABC):  # type: ignore[misc]
    """An estimator whose parameters a session has; see its subclasses."""

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (100,),
        *,
        activation: str = "relu",
        network: Network | None = None,
        learning_rate: float = 3e-3,
        optimizer: Optimizer | None = None,
        epochs: int = 200,
        batch_size: int = 200,
        validation_fraction: float | None = None,
        callbacks: Sequence[Callback] = (),
        random_state: Any = None,
        target: str | None = "embedded",
        profile: str | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.network = network
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.random_state = random_state
        self.target = target
        self.profile = profile

    @property
    def session_(self) -> Session:
        """The session that was trained, to save or to export; raises NotFittedError before `fit`."""
        check_is_fitted(self, "_trained")
        return self._trained.session

    @abstractmethod
    def _graph(self, network: Network, rows: Array, targets: Array) -> Graph:
        """Returns what is trained on examples such as these."""

    def _fit(self, rows: Array, targets: Array, sample_weight: ArrayLike | None) -> Self:
        """Trains a new session on examples that were checked."""
        weights = _weights(sample_weight, rows)
        self._create(rows, targets)
        self.history_ = self._trained.session.fit(
            {FEATURES: rows, TARGET: targets, WEIGHT: weights},
            epochs=self.epochs,
            batch_size=self.batch_size,
            validation=self.validation_fraction,
            callbacks=copy.deepcopy(list(self.callbacks)),
            seed=self._seed,
            progress=False,
        )
        return self

    def _go_on(self, rows: Array, targets: Array, sample_weight: ArrayLike | None, *, first: bool) -> Self:
        """Trains on examples once, in their order, and makes the session if it is the first time."""
        weights = _weights(sample_weight, rows)
        if first:
            self._create(rows, targets)
        self.history_ = self._trained.session.fit(
            {FEATURES: rows, TARGET: targets, WEIGHT: weights},
            batch_size=self.batch_size,
            shuffle=False,
            progress=False,
        )
        return self

    def _create(self, rows: Array, targets: Array) -> None:
        network = self.network or perceptron(self.hidden_layer_sizes, self.activation)
        graph = self._graph(network, rows, targets)
        optimizer = self.optimizer or Adam(self.learning_rate)
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        place = Place(self.target, self.profile)
        self._trained = Trained(place, lambda client: client.create_session(graph, optimizer, self._seed))

    def _predict(self, x: ArrayLike, output: str) -> Array:
        check_is_fitted(self, "_trained")
        rows = validate_data(self, x, dtype=DTYPES, reset=False)
        return self._trained.session.predict({FEATURES: rows}, output, batch_size=self.batch_size, progress=False)


def _weights(sample_weight: ArrayLike | None, rows: Array) -> Array:
    """Returns a weight for each row, 1 on average; raises ValueError for weights that cannot be."""
    if sample_weight is None:
        return np.ones(len(rows), rows.dtype)
    weights = np.asarray(check_array(sample_weight, ensure_2d=False, dtype=rows.dtype, input_name="sample_weight"))
    if weights.ndim == 0:
        weights = np.full(len(rows), weights)
    if weights.shape != (len(rows),):
        raise ValueError(f"sample_weight has shape {list(weights.shape)}, not [{len(rows)}]; give one for each example")
    if weights.min() < 0 or not weights.any():
        raise ValueError("Sample weights must be 0 or more and contain at least one non-zero number; give one above 0")
    return np.asarray(weights / weights.mean())
