"""What nodes take, in the words of a drawing."""

from backwire._cli import _options
from backwire._inspection import NodeCost

Notes = tuple[str, ...]


def notes(cost: NodeCost | None, *, backward: bool) -> Notes:
    """Returns what a node takes in a forward pass, with `backward` also in a backward one; nothing if it is unknown."""
    if cost is None:
        return ()
    forward = _words(cost.forward_flops, cost.forward_seconds)
    if not backward:
        return (forward,)
    return forward, f"∇ {_words(cost.backward_flops, cost.backward_seconds)}"


def gradient_notes(cost: NodeCost | None) -> Notes:
    """Returns what the gradient of a node takes; nothing if that is unknown."""
    return () if cost is None else (_words(cost.backward_flops, cost.backward_seconds),)


def microseconds(seconds: float) -> str:
    """Returns a time as drawings and tables tell it."""
    return f"{1e6 * seconds:,.1f} µs"


def _words(flops: int, seconds: float) -> str:
    work = _options.scaled(flops, "FLOP")
    return f"{work}, {microseconds(seconds)}" if seconds else work
