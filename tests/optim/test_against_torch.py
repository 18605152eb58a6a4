"""Every rule that PyTorch has gives PyTorch's parameters, to a few roundings, after 50 steps in both dtypes."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest

from backwire_server import optim

torch = pytest.importorskip("torch")

DECAYS = [0.0, 0.1]
FLAGS = [False, True]
MOMENTS = [(beta1, beta2, epsilon) for beta1, beta2 in [(0.9, 0.999), (0.0, 0.5)] for epsilon in [1e-8, 1e-3]]

SGD = [
    {"momentum": momentum, "dampening": dampening, "nesterov": nesterov, "weight_decay": decay}
    for momentum, dampening, nesterov, decay in product([0, 0.9], [0, 0.3], FLAGS, DECAYS)
    if not nesterov or (momentum > 0 and dampening == 0)
]
ADAMAX = [
    {"beta1": beta1, "beta2": beta2, "epsilon": epsilon, "weight_decay": decay}
    for (beta1, beta2, epsilon), decay in product(MOMENTS, DECAYS)
]
ADAM = [options | {"amsgrad": amsgrad} for options, amsgrad in product(ADAMAX, FLAGS)]
RADAM = [options | {"decoupled": decoupled} for options, decoupled in product(ADAMAX, FLAGS)]
NADAM = [options | {"momentum_decay": decay} for options, decay in product(RADAM, [4e-3, 0.1])]
RMSPROP = [
    {"decay": decay, "momentum": momentum, "centered": centered, "weight_decay": weight_decay, "epsilon": 1e-4}
    for decay, momentum, centered, weight_decay in product([0.99, 0.6], [0, 0.9], FLAGS, DECAYS)
]
ADAGRAD = [
    {"learning_rate_decay": slower, "initial_accumulator": start, "weight_decay": decay}
    for slower, start, decay in product([0, 0.1], [0, 0.5], DECAYS)
]
ADADELTA = [{"decay": rho, "epsilon": 1e-5, "weight_decay": decay} for rho, decay in product([0.9, 0.5], DECAYS)]
MUON = [
    {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay, "newton_schulz_steps": steps}
    for momentum, nesterov, decay, steps in product([0.95, 0.5], FLAGS, DECAYS, [1, 5])
]

CASES: list[tuple[type[optim.Rule], Any, dict[str, Any]]] = [
    *((optim.Sgd, torch.optim.SGD, options) for options in SGD),
    *((optim.Adam, torch.optim.Adam, options) for options in ADAM),
    *((optim.AdamW, torch.optim.AdamW, options) for options in ADAM),
    *((optim.Adamax, torch.optim.Adamax, options) for options in ADAMAX),
    *((optim.NAdam, torch.optim.NAdam, options) for options in NADAM),
    *((optim.RAdam, torch.optim.RAdam, options) for options in RADAM),
    *((optim.RMSprop, torch.optim.RMSprop, options) for options in RMSPROP),
    *((optim.Adagrad, torch.optim.Adagrad, options) for options in ADAGRAD),
    *((optim.Adadelta, torch.optim.Adadelta, options) for options in ADADELTA),
]

NAMES = {
    "epsilon": "eps",
    "decoupled": "decoupled_weight_decay",
    "learning_rate_decay": "lr_decay",
    "initial_accumulator": "initial_accumulator_value",
    "newton_schulz_steps": "ns_steps",
}


def case_id(case: tuple[type[optim.Rule], Any, dict[str, Any]]) -> str:
    return f"{case[0].__name__}-" + "-".join(f"{name}={value}" for name, value in case[2].items())


@pytest.fixture(autouse=True)
def exact_scalars() -> Iterator[None]:
    """PyTorch keeps NAdam's product of momenta in its default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def torch_options(kind: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Our options under PyTorch's names."""
    names = NAMES | {"decay": "alpha" if kind is torch.optim.RMSprop else "rho"}
    rest = {names.get(name, name): value for name, value in options.items() if not name.startswith("beta")}
    return rest | ({"betas": (options["beta1"], options["beta2"])} if "beta1" in options else {})


def torch_train(run: Any, kind: Any, rate: float, options: Mapping[str, Any], rates: Any = None) -> dict[str, Any]:
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in run.parameters.items()}
    theirs = kind(tensors.values(), lr=rate, **torch_options(kind, options))
    for step, gradients in enumerate(run.gradients, start=1):
        theirs.param_groups[0]["lr"] = (rates or {}).get(step, rate)
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[name])
        theirs.step()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_fifty_steps_equal_pytorch(case: Any, run: Any, assert_close: Any) -> None:
    rule, kind, options = case
    ours = run.train(optim.Optimizer(0.01, rule(**options)))
    assert_close(ours, torch_train(run, kind, 0.01, options))


@pytest.mark.parametrize("scaling", optim.MuonScaling)
@pytest.mark.parametrize("options", MUON, ids=str)
def test_muon_equals_pytorch_in_the_precision_of_the_parameters(
    options: dict[str, Any], scaling: optim.MuonScaling, run: Any, assert_close: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch orthogonalises in bfloat16, which only a GPU profits from; everything else is compared as it is."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    matrices, rest = split(run, lambda array: array.ndim == 2)
    ours = run.train(optim.Optimizer(0.02, optim.Muon(scaling=scaling, **options)))
    theirs = torch_train(matrices, torch.optim.Muon, 0.02, options | {"adjust_lr_fn": scaling.value})
    others = torch_train(rest, torch.optim.AdamW, 0.02, {})
    assert_close(ours, {name: (theirs | others)[name] for name in ours})


def split(run: Any, belongs: Any) -> tuple[Any, Any]:
    """The parts of a run whose parameters belong, and those that do not."""
    chosen = {name for name, array in run.parameters.items() if belongs(array)}
    parts = []
    for names in (chosen, run.parameters.keys() - chosen):
        pick = [{name: arrays[name] for name in names} for arrays in (run.parameters, *run.gradients)]
        parts.append(type(run)(pick[0], pick[1:]))
    return parts[0], parts[1]


@pytest.mark.parametrize("case", [CASES[0], CASES[len(SGD)]], ids=case_id)
def test_a_learning_rate_for_single_steps_equals_setting_it_in_pytorch(case: Any, run: Any, assert_close: Any) -> None:
    rule, kind, options = case
    rates = {3: 0.5, 20: 0.0, 50: 1e-4}
    ours = run.train(optim.Optimizer(0.01, rule(**options)), rates)
    assert_close(ours, torch_train(run, kind, 0.01, options, rates))


def test_clipping_equals_pytorch_utilities(run: Any, assert_close: Any) -> None:
    """By value, then each norm, then the norm of all. PyTorch's factor differs from the definition by 1e-6 / norm."""
    limits = optim.Clipping(value=0.5, norm=0.9, global_norm=1.1)
    ours = run.train(optim.Optimizer(0.1, optim.Sgd(momentum=0.9), limits))
    for gradients in run.gradients:
        tensors = [torch.zeros(array.shape, dtype=torch.float64) for array in gradients.values()]
        for tensor, array in zip(tensors, gradients.values(), strict=True):
            tensor.grad = torch.tensor(array, dtype=torch.float64)
        torch.nn.utils.clip_grad_value_(tensors, 0.5)
        for part, limit in [*(([tensor], 0.9) for tensor in tensors), (tensors, 1.1)]:
            length = torch.nn.utils.get_total_norm([tensor.grad for tensor in part])
            torch.nn.utils.clip_grads_with_norm_(part, limit + 1e-6 * limit / float(length), length)
        for name, tensor in zip(gradients, tensors, strict=True):
            gradients[name] = tensor.grad.numpy().astype(gradients[name].dtype)
    assert_close(ours, torch_train(run, torch.optim.SGD, 0.1, {"momentum": 0.9}))


def test_groups_equal_pytorch_parameter_groups(run: Any, assert_close: Any) -> None:
    groups = (
        optim.ParameterGroup("bias", weight_decay=0),
        optim.ParameterGroup("[wk]*", learning_rate_factor=0.1),
        optim.ParameterGroup("scale", frozen=True),
    )
    ours = run.train(optim.Optimizer(0.01, optim.AdamW(weight_decay=0.1), groups=groups))
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in run.parameters.items()}
    slow = [tensors[name] for name in ("weight", "kernel", "wide")]
    theirs = torch.optim.AdamW(
        [{"params": [tensors["bias"]], "weight_decay": 0.0}, {"params": slow, "lr": 0.001}], lr=0.01, weight_decay=0.1
    )
    for gradients in run.gradients:
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[name])
        theirs.step()
    assert_close(ours, {name: tensor.detach().numpy() for name, tensor in tensors.items()})


def test_the_average_of_the_parameters_equals_pytorch_swa_utils(run: Any, assert_close: Any) -> None:
    optimizer = optim.Optimizer(0.1, optim.Sgd(), average_decay=0.9)
    parameters, state = run.train_with_state(optimizer)
    average = optim.averages(state)
    assert average is not None
    model = torch.nn.ParameterDict({name: torch.tensor(array) for name, array in run.parameters.items()})
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    theirs = torch.optim.SGD(model.parameters(), lr=0.1)
    for gradients in run.gradients:
        for name, tensor in model.items():
            tensor.grad = torch.tensor(gradients[name])
        theirs.step()
        averaged.update_parameters(model)
    assert_close(parameters, {name: tensor.detach().numpy() for name, tensor in model.items()})
    expected = {name: tensor.detach().numpy() for name, tensor in averaged.module.items()}
    assert_close(run.layout.views(average), expected)
    assert np.any(run.layout.views(average)["weight"] != parameters["weight"])
