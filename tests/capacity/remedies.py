"""What the advice of the operator's guide is worth: the same deployment with other settings."""

from collections.abc import Callable
from dataclasses import replace

from tests.capacity.costs import Costs
from tests.capacity.fleet import Setting
from tests.capacity.scale import Outcome, simulate

NODES = 100
REMEDIES: dict[str, Callable[[Setting], Setting]] = {
    "as assumed": lambda each: each,
    "no passing checkpoints": lambda each: replace(each, passing=False),
    "`--lease 0.5`": lambda each: replace(each, lease=0.5),
    "`--checkpoint-bytes 16MiB`": lambda each: replace(each, checkpoint_bytes=16 << 20),
    "both": lambda each: replace(each, lease=0.5, checkpoint_bytes=16 << 20),
    "both, and file servers a quarter in use": lambda each: replace(
        each, lease=0.5, checkpoint_bytes=16 << 20, server_share=0.25
    ),
}


def tried(costs: Costs, setting: Setting, seed: int) -> dict[str, Outcome]:
    """Returns what becomes of NODES nodes with each of them."""
    return {name: simulate(NODES, costs, remedy(setting), seed) for name, remedy in REMEDIES.items()}
