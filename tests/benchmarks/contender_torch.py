"""PyTorch in this process, as its tutorials train: eager, or with the model compiled."""

import os
from typing import Any

ALL_THREADS = "all-threads"
COMPILED = "compiled"
FUSED = "fused"

import torch  # noqa: E402
from tests.benchmarks import torch_models, values  # noqa: E402


class Contender:
    """Steps of zero_grad, forward, backward and Adam, on one thread unless the variant says otherwise."""

    def __init__(self, variant: str) -> None:
        self._variant = variant
        torch.set_num_threads(os.cpu_count() or 1 if variant == ALL_THREADS else 1)

    def setup(self, model: str) -> dict[str, Any]:
        """As in the protocol."""
        self._batch = {name: torch.from_numpy(array) for name, array in values.batch(model).items()}
        module = torch_models.module(model)
        self._network: Any = torch.compile(module) if self._variant == COMPILED else module
        fused = True if self._variant == FUSED else None
        self._optimizer = torch.optim.Adam(module.parameters(), values.LEARNING_RATE, fused=fused)
        loss = self._network(**self._batch)
        loss.backward()
        return {"loss": loss.item(), "gradients": values.fingerprint(torch_models.gradients(module))}

    def run(self, steps: int) -> None:
        """As in the protocol."""
        for _ in range(steps):
            self._optimizer.zero_grad()
            loss = self._network(**self._batch)
            loss.backward()
            self._optimizer.step()
            loss.item()
