"""The models as PyTorch's users write them: modules whose forward returns the loss.

Parameters have the names that they have in Backwire, with dots for slashes, and its first values.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tests.benchmarks import values
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Array = values.Array


def module(model: str) -> nn.Module:
    """Returns a model, in train mode, with the values that Backwire's begins with."""
    made = _MODELS[model](model)
    with torch.no_grad():
        for name, parameter, turn, turned in _layouts(made):
            shape = turned(np.empty(tuple(parameter.shape), np.float32)).shape
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(turn(values.parameter(name, shape)))))
    return made.train()


def gradients(made: nn.Module) -> dict[str, Array]:
    """Returns the gradients by Backwire's names, in Backwire's layout."""
    return {name: turned(parameter.grad.numpy()) for name, parameter, _, turned in _layouts(made)}


class Mlp(nn.Module):
    """A perceptron with Relu."""

    def __init__(self, model: str) -> None:
        super().__init__()
        _, widths = values.MLPS[model]
        self.depth = len(widths) - 1
        for index in range(self.depth):
            self.add_module(f"hidden{index}", nn.Linear(widths[index], widths[index + 1]))
        self.top = nn.Linear(widths[-1], values.CLASSES)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        for index in range(self.depth):
            x = F.relu(getattr(self, f"hidden{index}")(x))
        return F.cross_entropy(self.top(x), y)


class LeNet(nn.Module):
    """LeNet-5 with Relu and maximum pooling."""

    def __init__(self, _: str) -> None:
        super().__init__()
        self.conv0, self.conv1 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.dense0, self.dense1, self.top = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, values.CLASSES)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv0(x)), 2)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2).flatten(1)
        return F.cross_entropy(self.top(F.relu(self.dense1(F.relu(self.dense0(x))))), y)


class NormedConv(nn.Module):
    """A 3x3 convolution without bias, and batch normalization."""

    def __init__(self, channels: int, filters: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.conv(x))
        return normed


class Residual(nn.Module):
    """Two such convolutions beside the identity, or beside a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        stride = 1 if channels == filters else 2
        self.first, self.second = NormedConv(channels, filters, stride), NormedConv(filters, filters)
        self.shortcut = nn.Conv2d(channels, filters, 1, stride=2, bias=False) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet8(nn.Module):
    """The residual network of MLPerf Tiny."""

    def __init__(self, _: str) -> None:
        super().__init__()
        filters = values.RESNET_FILTERS
        self.stem = NormedConv(3, filters[0])
        self.block0, self.block1 = Residual(filters[0], filters[0]), Residual(filters[0], filters[1])
        self.block2 = Residual(filters[1], filters[2])
        self.top = nn.Linear(filters[2], values.CLASSES)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.block2(self.block1(self.block0(F.relu(self.stem(x)))))
        return F.cross_entropy(self.top(F.adaptive_avg_pool2d(x, 1).flatten(1)), y)


class Layer(nn.Module):
    """Causal self-attention and two dense layers, each after a layer normalization and beside the identity."""

    def __init__(self) -> None:
        super().__init__()
        width = values.TRANSFORMER_WIDTH
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.before(x)
        split = (*x.shape[:2], values.TRANSFORMER_HEADS, -1)
        q, k, v = (part(normed).view(split).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.narrow(F.gelu(self.wide(self.between(x))))


class Transformer(nn.Module):
    """A decoder over a small vocabulary."""

    def __init__(self, _: str) -> None:
        super().__init__()
        width = values.TRANSFORMER_WIDTH
        self.embedding = nn.Embedding(values.VOCABULARY, width)
        self.positions = nn.Parameter(torch.zeros(values.TRANSFORMER_LENGTH, width))
        for index in range(values.TRANSFORMER_LAYERS):
            self.add_module(f"layer{index}", Layer())
        self.last = nn.LayerNorm(width)
        self.top = nn.Linear(width, values.VOCABULARY)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.embedding(x) + self.positions
        for index in range(values.TRANSFORMER_LAYERS):
            h = getattr(self, f"layer{index}")(h)
        return F.cross_entropy(self.top(self.last(h)).flatten(0, 1), y.flatten())


class Lstm(nn.Module):
    """A recurrent layer whose last output is classified."""

    def __init__(self, _: str) -> None:
        super().__init__()
        self.lstm = nn.LSTM(values.LSTM_WIDTH, values.LSTM_WIDTH)
        self.top = nn.Linear(values.LSTM_WIDTH, values.CLASSES)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        _, (last, _) = self.lstm(x)
        return F.cross_entropy(self.top(last[0]), y)


_MODELS: dict[str, Callable[[str], nn.Module]] = {
    **dict.fromkeys(values.MLPS, Mlp),
    "LeNet": LeNet,
    "ResNet-8": ResNet8,
    "transformer": Transformer,
    "LSTM": Lstm,
}

_LSTM_NAMES = {"weight_ih_l0": "W", "weight_hh_l0": "R", "bias_ih_l0": "Wb", "bias_hh_l0": "Rb"}
Turn = Callable[[Array], Array]


def _layouts(made: nn.Module) -> list[tuple[str, Any, Turn, Turn]]:
    """Returns Backwire's name of every parameter, the parameter, and the ways from Backwire's layout and to it."""
    found: list[tuple[str, Any, Turn, Turn]] = []
    for path, part in made.named_modules():
        for name, parameter in part.named_parameters(recurse=False):
            kind, turn, turned = name, _same, _same
            if isinstance(part, nn.Linear) and name == "weight":
                turn = turned = _transposed
            elif isinstance(part, nn.LayerNorm | nn.BatchNorm2d) and name == "weight":
                kind = "scale"
            elif isinstance(part, nn.LSTM):
                kind, turn, turned = _LSTM_NAMES[name], _from_onnx_gates, _to_onnx_gates
            full = "/".join(filter(None, [*path.split("."), kind]))
            found.append((full, parameter, turn, turned))
    return found


def _same(array: Array) -> Array:
    return array


def _transposed(array: Array) -> Array:
    return array.T


def _from_onnx_gates(array: Array) -> Array:
    """From [1, 4 * width, ...] with gates i, o, f, c to [4 * width, ...] with gates i, f, g, o."""
    gates: Array = array[0].reshape(4, -1, *array.shape[2:])
    return gates[[0, 2, 3, 1]].reshape(array.shape[1:])


def _to_onnx_gates(array: Array) -> Array:
    gates: Array = array.reshape(4, -1, *array.shape[1:])
    return gates[[0, 3, 1, 2]].reshape(1, *array.shape)
