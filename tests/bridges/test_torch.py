"""Remote modules in the autograd of PyTorch."""

import io
from typing import Any

import numpy as np
import pytest

import backwire as bw

torch = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")

import backwire.torch  # noqa: E402 - it needs PyTorch
from backwire.torch import RemoteModule, RemoteOptimizer  # noqa: E402

nn: Any = torch.nn


@pytest.fixture(autouse=True)
def _drawn() -> None:
    torch.manual_seed(0)


def layer(dtype: str = "float64") -> bw.Graph:
    x = bw.input("x", ("batch", 3), dtype=dtype)
    return bw.graph(outputs={"y": bw.tanh(bw.dense(x, 4, name="layer"))})


def remote(client: bw.Client, graph: bw.Graph | bw.Value, optimizer: bw.Optimizer | None = None) -> Any:
    return RemoteModule(client.create_session(graph, optimizer))


def test_gradcheck_passes(client: bw.Client) -> None:
    x, z = bw.input("x", ("batch", 3), dtype="float64"), bw.input("z", ("batch", 2), dtype="float64")
    h = bw.tanh(bw.dense(x, 4, name="a"))
    outputs = {"y": bw.dense(h, 2, name="b") * z, "norm": bw.sum(h * h, axis=1)}
    module = remote(client, bw.graph(outputs=outputs))
    inputs = [torch.randn(2, size, dtype=torch.float64, requires_grad=True) for size in (3, 2)]
    assert torch.autograd.gradcheck(module, inputs)


def test_split_learning_gives_the_gradients_and_steps_of_one_local_model(client: bw.Client) -> None:
    body = remote(client, layer(), bw.SGD(0.1))
    split = nn.Sequential(nn.Linear(5, 3), body, nn.Linear(4, 2)).double()
    twin = nn.Linear(3, 4).double()
    values = body.remote_parameters()
    twin.load_state_dict({"weight": values["layer/weight"].T, "bias": values["layer/bias"]})
    ends = [nn.Linear(5, 3).double(), nn.Linear(4, 2).double()]
    for end, original in zip(ends, (split[0], split[2]), strict=True):
        end.load_state_dict(original.state_dict())
    local = nn.Sequential(ends[0], twin, nn.Tanh(), ends[1])
    optimizers = [torch.optim.SGD(split.parameters(), 0.1), torch.optim.SGD(local.parameters(), 0.1)]
    for _ in range(3):
        x, labels = torch.randn(6, 5, dtype=torch.float64), torch.randint(2, (6,))
        losses = [nn.functional.cross_entropy(model(x), labels) for model in (split, local)]
        torch.testing.assert_close(*losses)
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        body.step()
    torch.testing.assert_close(split[0].weight, ends[0].weight)
    torch.testing.assert_close(body.remote_parameters()["layer/weight"], twin.weight.detach().T)


def test_a_module_that_comes_first_trains_though_no_input_needs_a_gradient(client: bw.Client) -> None:
    module = remote(client, layer("float32"), bw.Adam(0.05))
    optimizer, x = RemoteOptimizer(module), torch.randn(8, 3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = module(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


def test_a_module_that_is_used_twice_has_both_gradients(client: bw.Client) -> None:
    w = bw.parameter("w", 2.0, dtype="float64")
    module = remote(client, bw.graph(outputs={"y": w * bw.input("x", ("n",), dtype="float64")}))
    x = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    module(module(x)).backward()
    assert x.grad.tolist() == [4.0]
    assert module.session.gradients()["w"] == 12.0
    assert module.contributions == 2


def test_a_retained_graph_goes_back_twice_and_another_does_not(client: bw.Client) -> None:
    module = remote(client, layer())
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    loss = module(x).sum()
    loss.backward(retain_graph=True)
    first = x.grad.clone()
    loss.backward()
    torch.testing.assert_close(x.grad, 2 * first)
    assert not module.session.info().forward_ids
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_a_second_derivative_is_refused_rather_than_wrong(client: bw.Client) -> None:
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(remote(client, layer())(x).sum(), x, create_graph=True)
    with pytest.raises(bw.FailedPreconditionError, match=r"bw\.gradient"):
        (x.square().sum() + slope.square().sum()).backward()


def test_outputs_without_a_gradient_take_no_part(client: bw.Client) -> None:
    a, b = bw.parameter("a", 2.0), bw.parameter("b", 3.0)
    x = bw.input("x", ("n",))
    outputs = {"p": a * x, "q": b * x, "rank": bw.cast(x, "int64")}
    module = remote(client, bw.graph(outputs=outputs), bw.SGD(1.0))
    p, q, rank = module(torch.tensor([5.0]))
    assert (p.requires_grad, q.requires_grad, rank.requires_grad, rank.dtype) == (True, True, False, torch.int64)
    p.sum().backward()
    assert {name: float(value) for name, value in module.session.gradients().items()} == {"a": 5.0, "b": 0.0}


def test_evaluation_and_no_grad_leave_nothing_on_the_server(client: bw.Client) -> None:
    x = bw.input("x", ("n",))
    module = remote(client, bw.graph(outputs={"y": bw.dropout(x * bw.parameter("w", 1.0), 0.5)}))
    points = torch.ones(64)
    assert sorted(set(module(points).tolist())) == [0.0, 2.0]
    assert len(module.session.info().forward_ids) == 1
    with torch.no_grad():
        assert module(points).tolist() == [1.0] * 64
    module.eval()
    assert not module(points).requires_grad
    assert len(module.session.info().forward_ids) == 1
    with pytest.raises(bw.FailedPreconditionError, match=r"call train\(\)"):
        module(points.requires_grad_()).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_every_type_go_there_and_gradients_come_back_in_it(client: bw.Client, dtype: Any) -> None:
    name = str(dtype).removeprefix("torch.")
    y = bw.input("x", (3,), dtype=name) * 2
    module = remote(client, bw.graph(outputs={"y": y}))
    x = torch.tensor([1.0, 2.0, 0.5], dtype=dtype, requires_grad=True)
    found = module(x)
    assert (found.dtype, found.tolist()) == (dtype, [2.0, 4.0, 1.0])
    found.sum().backward()
    assert (x.grad.dtype, x.grad.tolist()) == (dtype, [2.0, 2.0, 2.0])


def test_a_tensor_of_another_type_has_its_gradient_in_its_own(client: bw.Client) -> None:
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    remote(client, layer("float32"))(x).sum().backward()
    assert x.grad.dtype == torch.float64


def test_inputs_by_name_and_by_place_and_the_loss_as_an_output(client: bw.Client) -> None:
    x, y = bw.input("x", ("n", 2)), bw.input("y", ("n",), dtype="int64")
    logits = bw.dense(x, 2, name="top")
    session = client.create_session(bw.graph(loss=bw.softmax_cross_entropy(logits, y), outputs={"logits": logits}))
    module = RemoteModule(session, inputs=["y"], outputs=["loss", "logits"])
    points, labels = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    loss, scores = module(labels, x=points)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(scores, labels))
    loss.backward()
    expected = session.forward({"x": points.numpy(), "y": labels.numpy()})
    given = session.gradients()
    session.zero_gradients()
    expected.backward()
    for name, value in session.gradients().items():
        np.testing.assert_array_equal(given[name], value)


def test_schedulers_of_torch_set_the_rate_of_remote_steps(client: bw.Client) -> None:
    loss = bw.sum(bw.parameter("w", [0.0]) * bw.input("x", (1,)))
    module = remote(client, loss, bw.SGD(1.0))
    optimizer = RemoteOptimizer(module, lr=0.5)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    for _ in range(3):
        optimizer.step(lambda: module(torch.ones(1)).backward())
        scheduler.step()
    assert module.remote_parameters()["w"].tolist() == [-0.875]


def test_an_optimizer_steps_and_clears_only_what_went_back(client: bw.Client) -> None:
    loss = bw.sum(bw.parameter("w", [0.0]) * bw.input("x", (1,)))
    used, unused = (remote(client, loss, bw.SGD(1.0)) for _ in range(2))
    optimizer = RemoteOptimizer(used, unused)
    used(torch.ones(1)).backward()
    optimizer.zero_grad()
    assert used.session.info().contributions == 0
    used(torch.ones(1)).backward()
    optimizer.step()
    assert (used.session.info().step, unused.session.info().step) == (1, 0)


def test_a_state_dict_takes_the_remote_parameters_along(client: bw.Client) -> None:
    models = [nn.Sequential(nn.Linear(3, 3), remote(client, layer("float32"))) for _ in range(2)]
    models[0][1].session.set_parameters({"layer/bias": [1.0, 2.0, 3.0, 4.0]})
    file = io.BytesIO()
    torch.save(models[0].state_dict(), file)
    file.seek(0)
    models[1].load_state_dict(torch.load(file))
    x = torch.randn(2, 3)
    torch.testing.assert_close(models[1](x), models[0](x))


def test_what_a_module_has_no_place_for_is_refused(client: bw.Client) -> None:
    module = remote(client, layer())
    x = torch.zeros(1, 3, dtype=torch.float64)
    for given, named in (((x, x), {}), ((x,), {"x": x})):
        with pytest.raises(bw.InvalidRequestError, match="takes each once: x"):
            module(*given, **named)
    with pytest.raises(bw.UnknownNameError, match="no output 'z'; it has y, loss"):
        RemoteModule(module.session, outputs=["z"])
    assert "x -> y" in repr(module)
