"""Parameter groups: what holds for some parameters only, chosen by name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from backwire_server.optim.errors import NOT_NEGATIVE, OptimizerError, check_fields
from backwire_server.optim.rule import Rule


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """How parameters with matching names differ from the rest.

    Attributes:
        pattern: A glob over the whole name: `*` matches any characters, dots and slashes too, `?` one, `[ab]` one of
            those listed. Case counts.
        learning_rate_factor: What the learning rate is multiplied by, zero or more.
        weight_decay: Replaces the rule's weight decay, zero or more; None keeps it.
        frozen: True to leave the parameters as they are. Nothing else may be set then.
        rule: Replaces the update rule; None keeps it.
    """

    pattern: str
    learning_rate_factor: float = 1.0
    weight_decay: float | None = None
    frozen: bool = False
    rule: Rule | None = None

    def __post_init__(self) -> None:
        if not self.pattern:
            raise OptimizerError("pattern", "pattern is empty; give a name or a glob such as '*bias'")
        check_fields(self, learning_rate_factor=NOT_NEGATIVE)
        if self.weight_decay is not None:
            check_fields(self, weight_decay=NOT_NEGATIVE)
        if self.frozen and (self.learning_rate_factor != 1 or self.weight_decay is not None or self.rule is not None):
            raise OptimizerError("frozen", "frozen goes with no other setting; drop it, or drop the others")

    def matches(self, name: str) -> bool:
        """Whether a parameter of this name belongs to the group, unless an earlier group takes it."""
        return fnmatchcase(name, self.pattern)


def check_groups(groups: Sequence[ParameterGroup], names: Iterable[str]) -> None:
    """Raises OptimizerError for a group whose pattern matches none of the names."""
    known = list(names)
    for index, group in enumerate(groups):
        if not any(map(group.matches, known)):
            shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            raise OptimizerError(
                f"optimizer.groups[{index}].pattern",
                f"pattern {group.pattern!r} matches no trainable parameter; match one of: {shown or '(none)'}",
            )


def treatment(
    name: str, shape: tuple[int, ...], rule: Rule, groups: Sequence[ParameterGroup]
) -> tuple[Rule, float] | None:
    """The rule and the learning rate factor for a parameter: those of the first group that matches. None if frozen."""
    group = next((group for group in groups if group.matches(name)), None)
    if group is None:
        return rule.for_shape(shape)
    if group.frozen:
        return None
    chosen, factor = (group.rule or rule).for_shape(shape)
    if group.weight_decay is not None:
        chosen = replace(chosen, weight_decay=group.weight_decay)
    return chosen, factor * group.learning_rate_factor
