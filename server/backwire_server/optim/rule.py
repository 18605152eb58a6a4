"""What every update rule is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Piece(NamedTuple):
    """What a rule works on. All arrays have the same shape and dtype, float32 or float64, and are C-contiguous.

    Attributes:
        parameters: The values to change.
        gradients: Their gradients, only to be read.
        state: What the rule remembers about them, by name, to be changed in place.
        scratch: The rule's `scratch_count` arrays of working memory, with anything in them.
    """

    parameters: Array
    gradients: Array
    state: Mapping[str, Array]
    scratch: Sequence[Array]


@dataclass(frozen=True, slots=True)
class Rule(ABC):
    """How gradients change parameters. A frozen dataclass of figures; what changes lives in the state it is given.

    A rule allocates nothing, so that a step cannot fail halfway. Unless it is `per_tensor` it is elementwise: it may be
    given any piece of a parameter vector, one-dimensional, in any order.

    Attributes:
        scratch_count: How many arrays of working memory an update needs.
        per_tensor: True when the rule must see whole parameters in their own shape.
        weight_decay: The strength of the weight decay, zero or more.
    """

    scratch_count: ClassVar[int] = 1
    per_tensor: ClassVar[bool] = False

    weight_decay: float = field(default=0.0, kw_only=True)

    def in_one_pass(self, dtype: "np.dtype[Any]") -> bool:  # noqa: ARG002 - most rules go over all in many
        """Whether an update needs no working memory and goes over its piece about once, so that this may be long."""
        return False

    @abstractmethod
    def init(self, vector: Array) -> dict[str, Array]:
        """The state before the first step, for parameters of the shape and dtype of `vector`. New arrays."""

    @abstractmethod
    def update(self, piece: Piece, step: int, learning_rate: float) -> None:
        """Applies one step in place. Steps are counted from 1."""

    def for_shape(self, shape: tuple[int, ...]) -> tuple["Rule", float]:  # noqa: ARG002 - most rules suit every shape
        """What updates a parameter of this shape, and its learning rate relative to this rule's."""
        return self, 1.0
