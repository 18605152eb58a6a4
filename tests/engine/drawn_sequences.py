"""Draws calls of operators on sequences: recurrent layers, attention, spectra."""

from typing import Any

import numpy as np
from tests.engine.drawing import Draw, Strategy, call

from backwire_server.engine.samples import Sample

GATES = ("Tanh", "Sigmoid", "Softsign", "Softplus", "Elu")


def recurrent(gates: int, functions: int, *choices: str) -> Strategy:
    """Returns a strategy of a layer with so many gates; an LSTM has the four, a second state and peepholes."""

    def strategy(d: Draw) -> Sample:
        direction = d.pick("forward", "reverse", "bidirectional")
        count, layout = 1 + (direction == "bidirectional"), d.flag()
        steps, batch, size, hidden = d.number(1, 3), d.number(1, 2), d.number(1, 2), d.number(1, 2)
        x = d.floats(*((batch, steps) if layout else (steps, batch)), size)
        weights = d.floats(count, gates * hidden, size), d.floats(count, gates * hidden, hidden)
        bias = d.maybe(lambda: d.floats(count, 2 * gates * hidden))
        lengths = d.maybe(lambda: np.array([d.number(1, steps) for _ in range(batch)], np.int32))
        begin = (batch, count, hidden) if layout else (count, batch, hidden)
        states = [d.maybe(lambda: d.floats(*begin)) for _ in range(2 if gates == 4 else 1)]
        if gates == 4:
            states.append(d.maybe(lambda: d.floats(count, 3 * hidden)))
        named = [d.pick(*GATES) for _ in range(count * functions)] if d.flag() else None
        settings = {choice: d.flag() for choice in choices}
        attributes: dict[str, Any] = {"direction": direction, "layout": layout, "activations": named, **settings}
        return call(x, *weights, bias, lengths, *states, outputs=d.number(1, 3 if gates == 4 else 2), **attributes)

    return strategy


def attention(d: Draw) -> Sample:
    batch, groups, shared, queries, keys = (
        d.number(1, 2),
        d.number(1, 2),
        d.number(1, 2),
        d.number(1, 2),
        d.number(1, 3),
    )
    size, width, heads = d.number(1, 2), d.number(1, 2), groups * shared
    attributes: dict[str, Any] = {"is_causal": d.flag(), "scale": d.pick(None, 0.7), "softcap": d.pick(None, 1.5)}
    past = d.flag() * d.number(1, 2)
    cache = (d.floats(batch, groups, past, size), d.floats(batch, groups, past, width)) if past else (None, None)
    total = keys + past
    mask = d.pick(None, d.bools(queries, total), d.floats(batch, 1, queries, total))
    attributes["qk_matmul_output_mode"] = d.pick(0, 1, 3)
    outputs = d.pick(1, 3, 4)
    if d.flag():
        q, k, v = d.floats(batch, queries, heads * size), d.floats(batch, keys, groups * size), None
        attributes.update(q_num_heads=heads, kv_num_heads=groups)
        v = d.floats(batch, keys, groups * width)
    else:
        q, k = d.floats(batch, heads, queries, size), d.floats(batch, groups, keys, size)
        v = d.floats(batch, groups, keys, width)
    return call(q, k, v, mask, *cache, outputs=outputs, **attributes)


def flex_attention(d: Draw) -> Sample:
    batch, heads, queries, keys, size = d.number(1, 2), d.number(1, 2), d.number(1, 2), d.number(1, 3), d.number(1, 2)
    q, k = d.floats(batch, heads, queries, size), d.floats(batch, heads, keys, size)
    return call(q, k, d.floats(batch, heads, keys, d.number(1, 2)), scale=d.pick(None, 0.7))


def linear_attention(d: Draw) -> Sample:
    batch, heads, shared, steps = d.number(1, 2), d.number(1, 2), d.number(1, 2), d.number(1, 3)
    size, width = d.number(1, 2), d.number(1, 2)
    rule = d.pick("linear", "gated", "delta", "gated_delta")
    q, k, v = (d.floats(batch, steps, count) for count in (heads * shared * size, heads * size, heads * width))
    past = d.maybe(lambda: d.floats(batch, heads, size, width))
    decay = d.floats(batch, steps, heads * d.pick(1, size), high=0.0) if "gated" in rule else None
    beta = d.floats(batch, steps, d.pick(heads, 1)) if "delta" in rule else None
    settings = {"q_num_heads": heads * shared, "kv_num_heads": heads, "update_rule": rule, "scale": d.pick(None, 0.5)}
    return call(q, k, v, past, decay, beta, outputs=d.number(1, 2), **settings)


def causal_conv(d: Draw) -> Sample:
    batch, channels, steps, kernel = d.number(1, 2), d.number(1, 2), d.number(1, 3), d.number(1, 3)
    bias = d.maybe(lambda: d.floats(channels))
    past = d.maybe(lambda: d.floats(batch, channels, kernel - 1))
    x, w = d.floats(batch, channels, steps), d.floats(channels, 1, kernel)
    return call(x, w, bias, past, activation=d.pick("none", "silu"), outputs=d.number(1, 2))


def rotary(d: Draw) -> Sample:
    batch, heads, steps, half, more = d.number(1, 2), d.number(1, 2), d.number(1, 3), d.number(1, 2), 2 * d.flag()
    positions = d.maybe(lambda: abs(d.below(4, batch, steps)) % 4)
    rows = (batch, steps) if positions is None else (4,)
    caches = d.floats(*rows, half), d.floats(*rows, half)
    attributes: dict[str, Any] = {"interleaved": d.flag(), "rotary_embedding_dim": 2 * half if more else None}
    width = 2 * half + more
    if d.flag():
        return call(d.floats(batch, steps, heads * width), *caches, positions, num_heads=heads, **attributes)
    return call(d.floats(batch, heads, steps, width), *caches, positions, **attributes)


def dft(d: Draw) -> Sample:
    shape, inverse = (d.number(1, 2), d.number(2, 5), d.number(2, 3)), d.flag()
    parts = d.number(1, 2)
    onesided = d.flag() if parts == 1 + inverse else 0
    length = d.maybe(lambda: np.array(d.number(2, 6)))
    return call(d.floats(*shape, parts), length, np.array(d.pick(1, 2, -3)), inverse=inverse, onesided=onesided)


def stft(d: Draw) -> Sample:
    frame, parts = d.number(2, 4), d.number(1, 2)
    window = d.maybe(lambda: d.floats(frame))
    length = np.array(frame) if window is None or d.flag() else None
    signal = d.floats(d.number(1, 2), frame + d.number(0, 4), parts)
    return call(signal, np.array(d.number(1, 3)), window, length, onesided=d.flag() if parts == 1 else 0)


STRATEGIES: dict[str, Strategy] = {
    "RNN": recurrent(1, 1),
    "GRU": recurrent(3, 2, "linear_before_reset"),
    "LSTM": recurrent(4, 3, "input_forget"),
    "Attention": attention,
    "FlexAttention": flex_attention,
    "LinearAttention": linear_attention,
    "CausalConvWithState": causal_conv,
    "RotaryEmbedding": rotary,
    "DFT": dft,
    "STFT": stft,
}
