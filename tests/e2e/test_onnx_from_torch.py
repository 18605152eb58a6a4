"""Models that PyTorch exports, by either exporter: outputs and gradients here are those of PyTorch."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import backwire as bw
import backwire.onnx

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
nn: Any = torch.nn

from tests.e2e import exported_models as others  # noqa: E402 - it needs PyTorch
from tests.e2e.exported_models import Fitted  # noqa: E402


def perceptron() -> tuple[Any, Any]:
    layers = [nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)]
    return nn.Sequential(*layers), torch.randn(4, 5)


def convolutions() -> tuple[Any, Any]:
    layers = [
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU6(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 2, groups=2),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    ]
    return nn.Sequential(*layers), torch.randn(3, 2, 12, 12)


class Gates(nn.Module):
    """A gated recurrent cell unrolled by hand: split, chunk, stack, slices."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(4, 12)
        self.u = nn.Linear(6, 12, bias=False)
        self.start = nn.Parameter(torch.zeros(6))

    def forward(self, x: Any) -> Any:
        h = self.start.expand(x.shape[0], 6)
        seen = []
        for t in range(3):
            z, n = (self.w(x[:, t]) + self.u(h)).chunk(2, 1)
            h = torch.sigmoid(z) * h + (1 - torch.sigmoid(z)) * torch.tanh(n)
            seen.append(h)
        return torch.stack(seen, 1).mean(1)


class Attention(nn.Module):
    """A pre-norm transformer block with causal attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.second = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, x: Any) -> Any:
        q, k, v = (part.reshape(2, 5, 2, 4).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        mask = torch.full((5, 5), -1e9).triu(1)
        weights = torch.softmax(q @ k.transpose(-1, -2) / 2.0 + mask, -1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(2, 5, 8))
        return x + self.mlp(self.second(x))


def gates() -> tuple[Any, Any]:
    return Gates(), torch.randn(2, 3, 4)


def attention() -> tuple[Any, Any]:
    return Attention(), torch.randn(2, 5, 8)


def batch_norm() -> tuple[Any, Any]:
    module = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ELU(), nn.Flatten(), nn.Linear(12, 2))
    module[1].running_mean.uniform_(-1, 1)
    module[1].running_var.uniform_(0.5, 2)
    return module, torch.randn(3, 1, 4, 4)


def grouped_queries() -> tuple[Any, Any]:
    def compute(m: Any, x: Any) -> Any:
        q, k, v = (layer(x).reshape(2, 5, -1, 2).transpose(1, 2) for layer in (m.q, m.k, m.v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    return Fitted(compute, q=nn.Linear(8, 8), k=nn.Linear(8, 4), v=nn.Linear(8, 4)), torch.randn(2, 5, 8)


def tracked_instances() -> tuple[Any, Any]:
    norm = nn.InstanceNorm1d(4, affine=True, track_running_stats=True)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(nn.Conv1d(2, 4, 3), norm, nn.PReLU(4)), torch.randn(2, 2, 7)


def lstm() -> tuple[Any, Any]:
    layer = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    return Fitted(lambda m, x: m.last(m.layer(x)[0][:, -1]), layer=layer, last=nn.Linear(8, 2)), torch.randn(2, 5, 3)


def shifted_windows() -> tuple[Any, Any]:
    def compute(m: Any, x: Any) -> Any:
        h = torch.roll(m.norm(x), (-1, -1), (1, 2)).reshape(2, 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(8, 4, 8)
        q, k, v = m.qkv(h).reshape(8, 4, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        places = torch.arange(4)[:, None] - torch.arange(4)[None] + 3
        scores = q @ k.transpose(-2, -1) / 2 + m.bias(places).permute(2, 0, 1)
        h = (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5)
        return x + torch.roll(h.reshape(2, 4, 4, 8), (1, 1), (1, 2))

    modules = {"norm": nn.LayerNorm(8), "qkv": nn.Linear(8, 24), "bias": nn.Embedding(7, 2)}
    return Fitted(compute, **modules), torch.randn(2, 4, 4, 8)


def decoder_of_images() -> tuple[Any, Any]:
    layers = [
        nn.Conv2d(2, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.Hardswish(),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.PixelShuffle(2),
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"),
    ]
    return nn.Sequential(*layers), torch.randn(2, 2, 3, 4)


def masked_attention() -> tuple[Any, Any]:
    def compute(m: Any, x: Any) -> Any:
        batch, steps = x.shape[:2]
        q, k, v = (layer(x).view(batch, steps, -1, 2).transpose(1, 2) for layer in (m.q, m.k, m.v))
        k, v = (each[:, :, None].expand(batch, 1, 2, steps, 2).reshape(batch, 2, steps, 2) for each in (k, v))
        seen = (torch.arange(steps)[:, None] >= torch.arange(steps)[None])[None, None].expand(batch, 1, steps, steps)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    return Fitted(compute, q=nn.Linear(8, 4), k=nn.Linear(8, 2), v=nn.Linear(8, 2)), torch.randn(2, 5, 8)


BOTH = [perceptron, convolutions, gates, attention, batch_norm]
BOTH += [tracked_instances, lstm, shifted_windows, decoder_of_images, masked_attention]
BOTH += [others.inverted_residuals, others.convolutional_lstm, others.dilated_causal, others.coupling_flow]
BOTH += [others.rotary_block, others.messages, others.experts, others.warped, others.reduced]
EXPORTS = [(make, dynamo) for make in BOTH for dynamo in (False, True)]
EXPORTS.append((grouped_queries, True))  # the older exporter refuses them
OPEN = (masked_attention, lstm, others.messages, others.experts)  # exported for any batch


def exported(module: Any, x: Any, *, dynamo: bool, open_batch: bool) -> onnx.ModelProto:
    if dynamo:
        pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters deprecate parts of each other
        if dynamo:
            shapes = ({0: "batch"},) if open_batch else None
            program = torch.onnx.export(
                module,
                (x,),
                input_names=["x"],
                output_names=["y"],
                dynamo=True,
                optimize=False,
                verbose=False,
                dynamic_shapes=shapes,
            )
            made: onnx.ModelProto = program.model_proto
            return made
        file = io.BytesIO()
        torch.onnx.export(
            module,
            (x,),
            file,
            input_names=["x"],
            output_names=["y"],
            dynamo=False,
            do_constant_folding=False,
            dynamic_axes={"x": {0: "batch"}} if open_batch else None,
        )
        return onnx.load_from_string(file.getvalue())


@pytest.mark.parametrize(
    ("make", "dynamo"), EXPORTS, ids=[f"{make.__name__}-{'dynamo' if dynamo else 'legacy'}" for make, dynamo in EXPORTS]
)
def test_outputs_and_gradients_are_those_of_torch(
    client: bw.Client, make: Callable[[], tuple[Any, Any]], dynamo: bool, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    module, x = make()
    module.eval()
    for parameter in module.parameters():  # equal ones, such as gains of 1, would be exported as one
        parameter.data.add_(torch.randn_like(parameter) / 10)
    graph = backwire.onnx.load(exported(module, x, dynamo=dynamo, open_batch=make in OPEN))
    session = client.create_session(graph, optimizer=bw.SGD(0.01))
    forward = session.forward({"x": x.numpy()})

    expected = module(x.requires_grad_())
    np.testing.assert_allclose(forward.outputs["y"], expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    seed = torch.randn_like(expected)
    expected.backward(seed)
    wrt = forward.backward({"y": seed.numpy()}, wrt=["x"])
    np.testing.assert_allclose(wrt["x"], x.grad.numpy(), rtol=1e-3, atol=1e-4)
    gradients = session.gradients()
    trained = dict(module.named_parameters())
    assert gradients.keys() == trained.keys()
    for name, parameter in trained.items():
        np.testing.assert_allclose(gradients[name], parameter.grad.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)

    session.step()
    torch.optim.SGD(module.parameters(), 0.01).step()
    backwire.onnx.save(session, tmp_path / "stepped.onnx")
    again = client.create_session(backwire.onnx.load(tmp_path / "stepped.onnx"))
    y = again.forward({"x": x.detach().numpy()}, "eval").outputs["y"]
    np.testing.assert_allclose(y, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)
