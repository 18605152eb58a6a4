"""Estimators of scikit-learn that a Backwire server trains: they work in pipelines, grid searches and pickles.

from backwire.sklearn import RemoteClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

model = make_pipeline(StandardScaler(), RemoteClassifier(hidden_layer_sizes=(64, 32)))
search = GridSearchCV(model, {"remoteclassifier__learning_rate": [1e-3, 1e-2]}).fit(x, y)
search.predict(x)

Needs the extra `sklearn`, and is imported by its full name, so that `import backwire` does without.
"""

try:
    import sklearn as _sklearn  # noqa: F401 - whether it is there
except ImportError:
    raise ImportError("backwire.sklearn needs scikit-learn; install it with: pip install 'backwire[sklearn]'") from None

from backwire.sklearn._classifier import RemoteClassifier
from backwire.sklearn._regressor import RemoteRegressor

__all__ = ["RemoteClassifier", "RemoteRegressor"]
