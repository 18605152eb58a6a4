"""Models of other kinds that PyTorch exports: each is a module and an input of it."""

import math
from collections.abc import Callable
from typing import Any

import torch

nn: Any = torch.nn
F: Any = torch.nn.functional


class Fitted(nn.Module):
    """Modules of one name, and what is done with them."""

    def __init__(self, compute: Callable[[Any, Any], Any], **modules: Any) -> None:
        super().__init__()
        self.compute = compute
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Any) -> Any:
        return self.compute(self, x)


def inverted_residuals() -> tuple[Any, Any]:
    """Depthwise-separable convolutions that squeeze and excite."""

    def compute(m: Any, x: Any) -> Any:
        h = F.hardswish(m.norm(m.expand(x)))
        h = F.hardswish(m.depth(h))
        scale = torch.sigmoid(m.excite(F.relu(m.squeeze(h.mean((2, 3))))))
        x = x + m.project(h * scale[:, :, None, None])
        return m.head(F.adaptive_avg_pool2d(x, 1).flatten(1))

    modules = {
        "expand": nn.Conv2d(3, 6, 1, bias=False),
        "norm": nn.BatchNorm2d(6),
        "depth": nn.Conv2d(6, 6, 5, padding=2, groups=6),
        "squeeze": nn.Linear(6, 2),
        "excite": nn.Linear(2, 6),
        "project": nn.Conv2d(6, 3, 1),
        "head": nn.Linear(3, 4),
    }
    modules["norm"].running_var.uniform_(0.5, 2)
    return Fitted(compute, **modules), torch.randn(2, 3, 7, 9)


def convolutional_lstm() -> tuple[Any, Any]:
    def compute(m: Any, x: Any) -> Any:
        h = x.new_zeros(2, 3, 5, 4)
        c, seen = torch.zeros_like(h), []
        for step in range(3):
            i, f, o, g = torch.split(m.gates(torch.cat([x[:, step], h], 1)), 3, 1)
            c = torch.sigmoid(f + 1.0) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            seen.append(m.last(h))
        return torch.stack(seen, 1)

    modules = {"gates": nn.Conv2d(5, 12, 3, padding=1), "last": nn.Conv2d(3, 1, 1)}
    return Fitted(compute, **modules), torch.randn(2, 3, 2, 5, 4)


def dilated_causal() -> tuple[Any, Any]:
    """A stack of gated causal convolutions with skip connections."""

    def compute(m: Any, x: Any) -> Any:
        x, skipped = m.first(x), 0
        for power, (gate, skip) in enumerate(zip(m.gates, m.skips, strict=True)):
            a, b = gate(F.pad(x, (2**power, 0))).chunk(2, 1)
            h = torch.tanh(a) * torch.sigmoid(b)
            x, skipped = x + h, skipped + skip(h)
        return F.log_softmax(m.last(F.relu(skipped)), 1)

    modules = {
        "first": nn.Conv1d(1, 4, 1),
        "gates": nn.ModuleList([nn.Conv1d(4, 8, 2, dilation=2**power) for power in range(3)]),
        "skips": nn.ModuleList([nn.Conv1d(4, 5, 1) for _ in range(3)]),
        "last": nn.Conv1d(5, 6, 1),
    }
    return Fitted(compute, **modules), torch.randn(2, 1, 12)


def coupling_flow() -> tuple[Any, Any]:
    """Log-likelihoods by affine couplings, permutations and a linear map."""

    def compute(m: Any, x: Any) -> Any:
        logarithm = 0.0
        for index, net in enumerate(m.nets):
            kept, moved = x[:, :3], x[:, 3:]
            found = net(kept)
            scale, shift = 2 * torch.tanh(found[:, ::2] / 2), found[:, 1::2]
            moved, logarithm = moved * torch.exp(scale) + shift, logarithm + scale.sum(1)
            x = torch.cat([kept, moved], 1)
            x = x[:, [1, 0, 3, 2, 5, 4]] if index == 0 else torch.flip(x, (1,))
        return -0.5 * (m.mix(x) ** 2).sum(1) - 3 * math.log(2 * math.pi) + logarithm

    nets = nn.ModuleList([nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6)) for _ in range(3)])
    return Fitted(compute, nets=nets, mix=nn.Linear(6, 6, bias=False)), torch.randn(4, 6)


class RootMeanSquare(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Any) -> Any:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotary_block() -> tuple[Any, Any]:
    """A block of a language model: root mean squares, rotated queries and keys, grouped queries, SwiGLU."""

    def rotated(x: Any, angles: Any) -> Any:
        a, b = x[..., :2], x[..., 2:]
        return x * angles.cos() + torch.cat((-b, a), -1) * angles.sin()

    def compute(m: Any, x: Any) -> Any:
        steps = torch.arange(x.shape[1]).float()
        angles = torch.outer(steps, torch.tensor([1.0, 0.01])).repeat(1, 2)
        n = m.first(x)
        q, k, v = (layer(n).reshape(2, 5, -1, 4).transpose(1, 2) for layer in (m.q, m.k, m.v))
        q, k = rotated(q, angles), rotated(k, angles)
        k, v = (each.repeat_interleave(2, 1) for each in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + m.out(mixed.transpose(1, 2).reshape(2, 5, 8))
        n = m.second(x)
        return x + m.down(F.silu(m.gate(n)) * m.up(n))

    sizes = {"q": (8, 8), "k": (8, 4), "v": (8, 4), "out": (8, 8), "gate": (8, 12), "up": (8, 12), "down": (12, 8)}
    layers = {name: nn.Linear(*size, bias=False) for name, size in sizes.items()}
    return Fitted(compute, first=RootMeanSquare(8), second=RootMeanSquare(8), **layers), torch.randn(2, 5, 8)


def messages() -> tuple[Any, Any]:
    """Attention along the edges of a graph: sums and maxima scattered to the nodes."""
    source, target = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2, 4], [1, 2, 3, 4, 5, 0, 3, 5, 1]])

    def compute(m: Any, x: Any) -> Any:
        h = m.first(x)
        pairs = torch.cat([h[:, source], h[:, target]], -1)
        weight = torch.exp(F.leaky_relu(m.score(pairs)).squeeze(-1))
        spread = target[:, None].expand(x.shape[0], -1, 4)
        total = torch.zeros_like(x[..., 0]).scatter_add(1, target.expand(x.shape[0], -1), weight)
        mixed = torch.zeros_like(h).scatter_add(1, spread, weight[..., None] * h[:, source]) / total[..., None]
        largest = torch.zeros_like(h).scatter_reduce(1, spread, h[:, source], "amax", include_self=True)
        return m.last(F.elu(mixed, 0.5) + largest)

    modules = {"first": nn.Linear(3, 4), "score": nn.Linear(8, 1), "last": nn.Linear(4, 2)}
    return Fitted(compute, **modules), torch.randn(2, 6, 3)


def experts() -> tuple[Any, Any]:
    """The best two of three experts, then order statistics of what they say."""

    def compute(m: Any, x: Any) -> Any:
        share, best = torch.topk(F.softmax(m.gate(x), -1), 2, -1)
        found = m.all(x).reshape(-1, 3, 5)
        picked = torch.gather(found, 1, best[..., None].expand(-1, -1, 5))
        y = (picked * (share / share.sum(-1, keepdim=True))[..., None]).sum(1)
        y = F.glu(torch.cat([y, y.roll(1, -1)], -1))
        return y.sort(-1)[0] + y.cumsum(-1) + y.std(1, keepdim=True) + y.prod(1, keepdim=True)

    return Fitted(compute, gate=nn.Linear(4, 3), all=nn.Linear(4, 15)), torch.randn(3, 4)


def warped() -> tuple[Any, Any]:
    """Two resolutions of an image, one sampled along a grid that is learned."""

    def compute(m: Any, x: Any) -> Any:
        coarse = F.mish(m.coarse(F.max_pool2d(m.fine(x), 2)))
        up = F.interpolate(coarse, size=(6, 8), mode="bicubic", align_corners=True)
        moves = torch.tanh(m.moves(x)).permute(0, 2, 3, 1)
        return m.last(torch.cat([up, F.grid_sample(m.fine(x), moves, align_corners=False)], 1))

    modules = {
        "fine": nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.PReLU(3)),
        "coarse": nn.Conv2d(3, 3, 3, padding=2, dilation=2),
        "moves": nn.Conv2d(2, 2, 1),
        "last": nn.Conv2d(6, 2, 1),
    }
    return Fitted(compute, **modules), torch.randn(2, 2, 6, 8)


def reduced() -> tuple[Any, Any]:
    """Reductions, norms and pieces of straight lines, added up."""

    def compute(m: Any, x: Any) -> Any:
        z = F.local_response_norm(m.layer(x), 2)
        bent = F.softshrink(z, 0.1) + F.hardsigmoid(z) + F.celu(z, 0.5) + F.softplus(z, beta=2) + z.clamp(-0.3, 0.4)
        masked = (z @ z.transpose(1, 2)).masked_fill(torch.ones(4, 4).triu(1) > 0, float("-inf")).softmax(-1) @ z
        first, *_, last = z.chunk(3, 1)
        found = [bent.amax(1), masked.norm(dim=1), z.logsumexp(1), z.var(1), z.flip(1).cumsum(1)[:, 0]]
        return torch.stack(found, 1).sum(1) + first[:, 0] * last[:, -1] + torch.atan2(z, z + 5).sum(1)

    return Fitted(compute, layer=nn.Linear(3, 6)), torch.randn(2, 4, 3)
