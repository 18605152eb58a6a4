"""PyTorch: sessions as modules, whose forward and backward run on the server in the middle of local autograd.

import torch
import backwire as bw
import backwire.torch

body = backwire.torch.RemoteModule(client.create_session(graph, bw.Adam(1e-3)))
model = torch.nn.Sequential(torch.nn.Linear(784, 64), body, torch.nn.Linear(32, 10))  # the ends train here

local = torch.optim.Adam(model.parameters(), 1e-3)
for x, y in loader:
    torch.nn.functional.cross_entropy(model(x), y).backward()
    local.step()
    local.zero_grad()
    body.step()

Needs the extra `torch`, and is imported by its full name, so that `import backwire` does without.
"""

try:
    import torch as _torch  # noqa: F401 - whether it is there
except ImportError:
    raise ImportError("backwire.torch needs PyTorch; install it with: pip install 'backwire[torch]'") from None

from backwire.torch._export import from_module
from backwire.torch._module import RemoteModule
from backwire.torch._optimizer import RemoteOptimizer

__all__ = ["RemoteModule", "RemoteOptimizer", "from_module"]
