"""Estimators of scikit-learn beyond what its own checks ask for."""

import copy
import gc
import pickle
from typing import Any

import numpy as np
import pytest

import backwire as bw

pytest.importorskip("sklearn", reason="scikit-learn is an extra")

from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from backwire.sklearn import RemoteClassifier, RemoteRegressor


@pytest.fixture(scope="module")
def iris() -> tuple[Any, Any]:
    x, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(x), load_iris().target_names[y]


@pytest.fixture
def settings(client: bw.Client) -> dict[str, Any]:
    return {"target": client.target, "random_state": 0, "epochs": 30, "learning_rate": 0.02}


def test_a_classifier_learns_digits_it_has_not_seen(settings: dict[str, Any]) -> None:
    x, y = load_digits(return_X_y=True)
    model = RemoteClassifier((64,), **settings, batch_size=64).fit(x[:1200] / 16, y[:1200])
    assert model.score(x[1200:] / 16, y[1200:]) > 0.9


def test_texts_are_labels_and_probabilities_are_in_their_order(iris: Any, settings: dict[str, Any]) -> None:
    x, y = iris
    model = RemoteClassifier((16,), **settings).fit(x, y)
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    probability = model.predict_proba(x)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(x)), probability)
    assert probability[y == "setosa", 0].min() > 0.5


def test_the_same_seed_gives_the_same_bits_and_another_does_not(iris: Any, settings: dict[str, Any]) -> None:
    first, same = (RemoteClassifier((8,), batch_size=20, **settings).fit(*iris) for _ in range(2))
    other = RemoteClassifier((8,), batch_size=20, **{**settings, "random_state": 1}).fit(*iris)
    assert first.session_.digest() == same.session_.digest() != other.session_.digest()


def test_a_pickle_and_a_copy_go_on_from_the_same_bits_in_sessions_of_their_own(
    iris: Any, settings: dict[str, Any]
) -> None:
    x, y = iris
    model = RemoteClassifier((8,), **settings).fit(x, y)
    others = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    unused = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(model))))
    assert all(other.session_.digest() == model.session_.digest() for other in [*others, unused])
    for other in others:
        other.partial_fit(x, y)
    assert others[0].session_.digest() == others[1].session_.digest() != model.session_.digest()


def test_partial_fit_is_a_step_for_each_batch_in_order(settings: dict[str, Any]) -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    model = RemoteClassifier((), batch_size=20, **settings)
    for _ in range(3):
        model.partial_fit(x, y, classes=[0, 1])
    assert model.session_.info().step == 9
    session = model.session_
    for part in range(3):
        chosen = slice(20 * part, 20 * part + 20)
        model.partial_fit(x[chosen], y[chosen])
    twin = RemoteClassifier((), batch_size=20, **settings).partial_fit(x, y, classes=[0, 1])
    for _ in range(3):
        twin.partial_fit(x, y)
    assert session.digest() == twin.session_.digest()


def test_fit_begins_anew_after_partial_fit(iris: Any, settings: dict[str, Any]) -> None:
    x, y = iris
    model = RemoteClassifier((8,), **settings).partial_fit(x, y, np.unique(y))
    assert model.fit(x, y).session_.digest() == RemoteClassifier((8,), **settings).fit(x, y).session_.digest()


def test_an_example_of_weight_three_counts_as_three(settings: dict[str, Any]) -> None:
    draw = np.random.default_rng(0)
    x, y, weight = draw.normal(size=(30, 4)), draw.normal(size=(30, 2)), draw.integers(4, size=30)
    weighted = RemoteRegressor((8,), **settings).fit(x, y, weight)
    repeated = RemoteRegressor((8,), **settings).fit(x.repeat(weight, axis=0), y.repeat(weight, axis=0))
    np.testing.assert_allclose(weighted.predict(x), repeated.predict(x), rtol=1e-7)
    assert np.abs(weighted.predict(x) - RemoteRegressor((8,), **settings).fit(x, y).predict(x)).max() > 1e-3


def test_predictions_have_the_shape_and_precision_of_what_was_given(settings: dict[str, Any]) -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 3)).astype("float32"), np.arange(20.0) / 20
    flat = RemoteRegressor((4,), **settings).fit(x, y)
    assert flat.predict(x).shape == (20,)
    assert flat.predict(x).dtype == "float32"
    wide = RemoteRegressor((4,), **settings).fit(x.astype("float64"), np.stack([y, -y], axis=1))
    assert wide.predict(x).shape == (20, 2)
    assert wide.predict(x).dtype == "float64"


def test_a_pipeline_in_a_grid_search_finds_the_rate_that_learns(iris: Any, settings: dict[str, Any]) -> None:
    model = make_pipeline(StandardScaler(), RemoteClassifier((8,), **settings))
    search = GridSearchCV(model, {"remoteclassifier__learning_rate": [1e-6, 0.05]}, cv=2).fit(*iris)
    assert search.best_params_ == {"remoteclassifier__learning_rate": 0.05}
    assert search.best_score_ > 0.9


def convolutional(x: bw.Value) -> bw.Value:
    assert x.shape == ("batch", 64)
    planes = bw.reshape(x, (x.shape[0], 1, 8, 8))
    return bw.flatten(bw.max_pool2d(bw.relu(bw.conv2d(planes, 8, 3, name="conv")), 2))


def test_a_network_of_ones_own_takes_the_place_of_the_layers(settings: dict[str, Any]) -> None:
    x, y = load_digits(return_X_y=True)
    model = RemoteClassifier(network=convolutional, **settings).fit(x[:300] / 16, y[:300])
    assert set(model.session_.parameters()) == {"conv/weight", "conv/bias", "output/weight", "output/bias"}
    assert pickle.loads(pickle.dumps(model)).score(x[:300] / 16, y[:300]) > 0.9


def test_callbacks_watch_held_out_examples_and_stay_as_they_were_given(iris: Any, settings: dict[str, Any]) -> None:
    stopping = bw.EarlyStopping(patience=2)
    model = RemoteClassifier((64,), **{**settings, "epochs": 500}, validation_fraction=0.2, callbacks=[stopping])
    model.fit(*iris)
    assert 2 < len(model.history_.epochs) < 500
    assert "loss was not better" in model.history_.stopped
    assert np.isnan(stopping.best)
    assert clone(model).get_params()["callbacks"] == [stopping]


def test_the_session_of_an_estimator_that_is_gone_is_deleted(
    client: bw.Client, iris: Any, settings: dict[str, Any]
) -> None:
    model = RemoteClassifier((4,), **settings).fit(*iris)
    first = model.session_.id
    model.fit(*iris)
    second = model.session_.id
    assert first in {each.id for each in client.sessions()}, "it is deleted when another is made"
    del model
    gc.collect()
    third = RemoteClassifier((4,), **settings).fit(*iris)
    found = {each.id for each in client.sessions()}
    assert third.session_.id in found
    assert not {first, second} & found


def test_what_cannot_be_done_is_refused_with_the_remedy(iris: Any, settings: dict[str, Any]) -> None:
    x, y = iris
    with pytest.raises(bw.InvalidRequestError, match="use one of identity, relu"):
        RemoteClassifier(activation="sine", **settings).fit(x, y)
    with pytest.raises(bw.ShapeError, match="flatten it"):
        RemoteClassifier(network=lambda x: bw.reshape(x, (-1, 2, 2)), **settings).fit(x, y)
    with pytest.raises(ValueError, match="give one above 0"):
        RemoteClassifier(**settings).fit(x, y, np.zeros(len(x)))
    with pytest.raises(ValueError, match="first call to partial_fit"):
        RemoteClassifier(**settings).partial_fit(x, y)
    model = RemoteClassifier((), **settings).partial_fit(x, y, classes=np.unique(y))
    with pytest.raises(ValueError, match="not those of the first call"):
        model.partial_fit(x, y, classes=["setosa", "virginica"])
    with pytest.raises(ValueError, match="labels that are not in"):
        model.partial_fit(x[:1], ["zinnia"])
    with pytest.raises(NotFittedError):
        _ = RemoteRegressor(**settings).session_
