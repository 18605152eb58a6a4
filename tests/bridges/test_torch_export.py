"""Modules of PyTorch that move to the server."""

from typing import Any

import pytest

import backwire as bw

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
pytest.importorskip("onnx", reason="onnx is an extra")

import backwire.torch  # noqa: E402 - it needs PyTorch

nn: Any = torch.nn


@pytest.fixture(autouse=True)
def _drawn() -> None:
    torch.manual_seed(0)


def network() -> Any:
    """Two equal norms in a row, which exporters like to make one."""
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3))


@pytest.mark.parametrize("dynamo", [False, True])
def test_a_moved_module_trains_as_the_local_one_for_any_batch(client: bw.Client, dynamo: bool) -> None:
    if dynamo:
        pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs it")
    local = network()
    local[0].bias.requires_grad_(False)
    example = [torch.randn(2, 4)]
    remote = backwire.torch.from_module(client, local, example, optimizer=bw.SGD(0.1), dynamo=dynamo)
    optimizer = torch.optim.SGD([each for each in local.parameters() if each.requires_grad], 0.1)
    assert [each.name for each in remote.session.info().parameters if each.frozen] == ["0.bias"]
    for size in (1, 5, 3):
        x = torch.randn(size, 4, requires_grad=True)
        labels = torch.randint(3, (size,))
        gradients = []
        for model in (remote, local):
            loss = nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            gradients.append(x.grad)
            x.grad = None
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
        remote.step()
        optimizer.step()
        optimizer.zero_grad()
    twin = network()
    twin.load_state_dict(remote.remote_parameters())
    for name, value in local.named_parameters():
        torch.testing.assert_close(twin.get_parameter(name), value, rtol=1e-4, atol=1e-6)


def test_dropout_and_batch_norm_keep_their_modes(client: bw.Client) -> None:
    local = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).eval()
    local[0].running_mean.uniform_(-1, 1)
    before = local.state_dict()["0.running_mean"].clone()
    x = torch.randn(64, 3)
    remote = backwire.torch.from_module(client, local, [x])
    assert not remote.training
    torch.testing.assert_close(remote(x), local(x), rtol=1e-5, atol=1e-6)
    remote.train()
    dropped = (remote(x) == 0).float().mean().item()
    assert 0.3 < dropped < 0.7
    torch.testing.assert_close(remote.remote_parameters()["0.running_mean"], 0.9 * before + 0.1 * x.mean(0))
    torch.testing.assert_close(local.state_dict()["0.running_mean"], before)


def test_several_inputs_and_outputs_keep_their_order(client: bw.Client) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, left: Any, right: Any) -> Any:
            return self.layer(left) * right, left.sum(1)

    local = Two().double()
    given = [torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    remote = backwire.torch.from_module(client, local, given)
    for found, expected in zip(remote(*given), local(*given), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(remote(right=given[1], left=given[0])[0], local(*given)[0])
    assert torch.autograd.gradcheck(remote, given)


def test_what_returns_no_tensors_is_refused(client: bw.Client) -> None:
    class Named(nn.Module):
        def forward(self, x: Any) -> Any:
            return {"x": x}

    with pytest.raises(bw.InvalidRequestError, match="returns dict; return a tensor"):
        backwire.torch.from_module(client, Named(), [torch.zeros(2)])
