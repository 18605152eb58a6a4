"""What losses ask of labels."""

from functools import partial
from typing import Any

from backwire_server.engine.ops.loss import no_class
from backwire_server.xla.registry import kernel, refuse


@kernel("ClassLabels", plain=(0,))
def class_labels(labels: Any, *, classes: int) -> Any:
    """The labels, all of which must be classes."""
    refuse((labels < 0) | (labels >= classes), labels, partial(no_class, classes=classes))
    return labels
