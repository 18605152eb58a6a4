"""Recurrent layers."""

from collections.abc import Sequence

from backwire_server.engine.ops.gates import Gate, gates_of
from backwire_server.engine.ops.unrolling import Cell, Layer, States, affine, each_along, parts, require_shape
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.values import Value

LENGTHS = I(2, 1).astype("int32")


@function(
    "RNN",
    outputs=2,
    samples=[
        case(F(2, 2, 2), F(1, 2, 2), F(1, 2, 2)),
        case(F(2, 2, 1), F(2, 2, 1), F(2, 2, 2), F(2, 4), LENGTHS, F(2, 2, 2), direction="bidirectional"),
        case(F(1, 2, 2), F(1, 1, 2), F(1, 1, 1), direction="reverse", layout=1, activations=("Softsign",)),
        case(F(2, 1, 1), F(1, 1, 1), F(1, 1, 1), activations=("ScaledTanh",), activation_alpha=(0.5,), clip=9.0),
    ],
)
def rnn(
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    sequence_lens: Value | None = None,
    initial_h: Value | None = None,
    *,
    activation_alpha: tuple[float, ...] = (),
    activation_beta: tuple[float, ...] = (),
    activations: tuple[str, ...] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[Value, ...]:
    """h' = f(W x + R h + b) for each step of x [T, N, I], f being Tanh (Elman 1990).

    The outputs are h after each step, [T, D, N, H] for D directions, and after the last one, [D, N, H]; with `layout`
    1, where x is [N, T, I], they are [N, T, D, H] and [N, D, H]. Steps from `sequence_lens` on do not count.
    """
    layer = Layer(x, w, r, b, sequence_lens, gates=1, direction=direction, hidden_size=hidden_size, layout=layout)
    functions = gates_of(
        activations, ("Tanh",), len(layer.backwards), alpha=activation_alpha, beta=activation_beta, clip=clip
    )

    def make_cell(index: int, weight: Value, bias: Value | None) -> Cell:
        (f,) = functions[index]
        return lambda given, states: (f(given + affine(states[0], weight, bias)),)

    return layer.run([initial_h], make_cell)


@function(
    "GRU",
    outputs=2,
    samples=[
        case(F(2, 2, 1), F(1, 6, 1), F(1, 6, 2), F(1, 12)),
        case(F(2, 2, 1), F(2, 3, 1), F(2, 3, 1), F(2, 6), LENGTHS, F(2, 2, 1), direction="bidirectional"),
        case(F(2, 1, 2), F(1, 3, 2), F(1, 3, 1), F(1, 6), linear_before_reset=1, layout=1, direction="reverse"),
        case(F(2, 1, 1), F(1, 3, 1), F(1, 3, 1), activations=("HardSigmoid", "Affine"), activation_alpha=(0.1, 0.7)),
    ],
)
def gru(
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    sequence_lens: Value | None = None,
    initial_h: Value | None = None,
    *,
    activation_alpha: tuple[float, ...] = (),
    activation_beta: tuple[float, ...] = (),
    activations: tuple[str, ...] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Value, ...]:
    """h' = (1 - z) g(Wh x + Rh (r h) + bh) + z h with the gates z, r = f(W x + R h + b) (Cho et al. 2014).

    The gates are in the order z, r, h; f is Sigmoid and g Tanh. With `linear_before_reset` r multiplies Rh h and its
    bias instead. Inputs and outputs are otherwise those of RNN.
    """
    layer = Layer(x, w, r, b, sequence_lens, gates=3, direction=direction, hidden_size=hidden_size, layout=layout)
    functions = gates_of(
        activations,
        ("Sigmoid", "Tanh"),
        len(layer.backwards),
        alpha=activation_alpha,
        beta=activation_beta,
        clip=clip,
    )

    def make_cell(index: int, weight: Value, bias: Value | None) -> Cell:
        return _gru_cell(functions[index], weight, bias, layer.size, linear_before_reset)

    return layer.run([initial_h], make_cell)


def _gru_cell(functions: Sequence[Gate], weight: Value, bias: Value | None, size: int, linear: int) -> Cell:
    f, g = functions
    for_gates, for_candidate = parts(weight, 2 * size, size)
    gate_bias, candidate_bias = (None, None) if bias is None else parts(bias, 2 * size, size)

    def cell(given: Value, states: States) -> States:
        (h,) = states
        given_gates, given_candidate = parts(given, 2 * size, size)
        update, reset = parts(f(given_gates + affine(h, for_gates, gate_bias)), size, size)
        if linear:
            recurrent = reset * affine(h, for_candidate, candidate_bias)
        else:
            recurrent = affine(reset * h, for_candidate, candidate_bias)
        candidate = g(given_candidate + recurrent)
        return ((1.0 - update) * candidate + update * h,)

    return cell


@function(
    "LSTM",
    outputs=3,
    samples=[
        case(F(2, 2, 1), F(1, 8, 1), F(1, 8, 2), F(1, 16)),
        case(
            *(F(2, 2, 1), F(2, 4, 1), F(2, 4, 1), F(2, 8), LENGTHS, F(2, 2, 1), F(2, 2, 1), F(2, 3)),
            direction="bidirectional",
        ),
        case(F(1, 2, 1), F(1, 4, 1), F(1, 4, 1), direction="reverse", layout=1, input_forget=1, clip=9.0),
        case(F(2, 1, 1), F(1, 4, 1), F(1, 4, 1), activations=("HardSigmoid", "Elu", "Softplus")),
    ],
)
def lstm(
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    sequence_lens: Value | None = None,
    initial_h: Value | None = None,
    initial_c: Value | None = None,
    p: Value | None = None,
    *,
    activation_alpha: tuple[float, ...] = (),
    activation_beta: tuple[float, ...] = (),
    activations: tuple[str, ...] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Value, ...]:
    """c' = forget c + i g(Wc x + Rc h + bc) and h' = o h(c'), with gates i, o, forget = f(W x + R h + b + p c).

    (Hochreiter and Schmidhuber 1997; Gers and Schmidhuber 2000.) The gates are in the order i, o, forget, c; f is
    Sigmoid, g and h are Tanh. The peepholes p [D, 3 H] let i and forget see c, and o see c'. With `input_forget`,
    forget is 1 - i. The third output is c after the last step; inputs and outputs are otherwise those of RNN.
    """
    layer = Layer(x, w, r, b, sequence_lens, gates=4, direction=direction, hidden_size=hidden_size, layout=layout)
    require_shape(p, (len(layer.backwards), 3 * layer.size), "the peepholes")
    functions = gates_of(
        activations,
        ("Sigmoid", "Tanh", "Tanh"),
        len(layer.backwards),
        alpha=activation_alpha,
        beta=activation_beta,
        clip=clip,
    )

    def make_cell(index: int, weight: Value, bias: Value | None) -> Cell:
        peepholes = None if p is None else parts(each_along(p, 0)[index], *[layer.size] * 3)
        return _lstm_cell(functions[index], weight, bias, peepholes, input_forget)

    return layer.run([initial_h, initial_c], make_cell)


def _lstm_cell(
    functions: Sequence[Gate], weight: Value, bias: Value | None, peepholes: list[Value] | None, coupled: int
) -> Cell:
    f, g, h = functions

    def cell(given: Value, states: States) -> States:
        hidden, c = states
        raw = given + affine(hidden, weight, bias)
        i, o, forget, candidate = parts(raw, *[c.shape[-1]] * 4)
        if peepholes is not None:
            i, forget = i + peepholes[0] * c, forget + peepholes[2] * c
        i = f(i)
        c = (1.0 - i if coupled else f(forget)) * c + i * g(candidate)
        o = f(o if peepholes is None else o + peepholes[1] * c)
        return o * h(c), c

    return cell
