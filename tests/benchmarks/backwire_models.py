"""The models in Backwire's builder, with inputs `x` and `y`."""

from collections.abc import Callable

from tests.benchmarks import values

import backwire as bw

Layers = Callable[[bw.Value], bw.Value]


def graph(model: str) -> bw.Graph:
    """Returns the graph of a model."""
    return bw.graph(loss=_MODELS[model](model))


def _mlp(model: str) -> bw.Value:
    _, (features, *hidden) = values.MLPS[model]
    h = bw.input("x", ("batch", features))
    for index, units in enumerate(hidden):
        h = bw.relu(bw.dense(h, units, name=f"hidden{index}"))
    return _classified(h, "batch")


def _lenet(_: str) -> bw.Value:
    h = bw.input("x", ("batch", 1, 28, 28))
    h = bw.max_pool2d(bw.relu(bw.conv2d(h, 6, 5, padding=2, name="conv0")), 2)
    h = bw.max_pool2d(bw.relu(bw.conv2d(h, 16, 5, name="conv1")), 2)
    h = bw.flatten(h)
    h = bw.relu(bw.dense(h, 120, name="dense0"))
    h = bw.relu(bw.dense(h, 84, name="dense1"))
    return _classified(h, "batch")


def _resnet8(_: str) -> bw.Value:
    h = bw.input("x", ("batch", 3, 32, 32))
    h = bw.relu(_normed_conv(h, values.RESNET_FILTERS[0], "stem"))
    for index, filters in enumerate(values.RESNET_FILTERS):
        stride = 2 if index else 1
        inner = bw.relu(_normed_conv(h, filters, f"block{index}/first", stride))
        inner = _normed_conv(inner, filters, f"block{index}/second")
        if index:
            h = bw.conv2d(h, filters, 1, stride=stride, use_bias=False, name=f"block{index}/shortcut")
        h = bw.relu(inner + h)
    return _classified(bw.flatten(bw.global_average_pool(h)), "batch")


def _normed_conv(x: bw.Value, filters: int, name: str, stride: int = 1) -> bw.Value:
    h = bw.conv2d(x, filters, 3, stride=stride, padding=1, use_bias=False, name=f"{name}/conv")
    return bw.batch_norm(h, name=f"{name}/norm")


def _transformer(_: str) -> bw.Value:
    width, length = values.TRANSFORMER_WIDTH, values.TRANSFORMER_LENGTH
    tokens = bw.input("x", ("batch", length), dtype="int64")
    h = bw.embedding(tokens, values.VOCABULARY, width, name="embedding")
    h = h + bw.parameter("positions", (length, width))
    for index in range(values.TRANSFORMER_LAYERS):
        name = f"layer{index}"
        h = h + _attention(bw.layer_norm(h, name=f"{name}/before"), name)
        inner = bw.dense(bw.layer_norm(h, name=f"{name}/between"), 4 * width, name=f"{name}/wide")
        h = h + bw.dense(bw.gelu(inner), width, name=f"{name}/narrow")
    logits = bw.dense(bw.layer_norm(h, name="last"), values.VOCABULARY, name="top")
    labels = bw.input("y", ("batch", length), dtype="int64")
    return bw.softmax_cross_entropy(bw.reshape(logits, (-1, values.VOCABULARY)), bw.reshape(labels, (-1,)))


def _attention(x: bw.Value, name: str) -> bw.Value:
    width, heads = values.TRANSFORMER_WIDTH, values.TRANSFORMER_HEADS
    queries, keys, contents = (bw.dense(x, width, name=f"{name}/{part}") for part in ("query", "key", "value"))
    settings = {"q_num_heads": heads, "kv_num_heads": heads, "is_causal": 1}
    (mixed,) = bw.op("Attention", queries, keys, contents, attributes=settings, shape=x.shape)
    return bw.dense(mixed, width, name=f"{name}/output")


def _lstm(_: str) -> bw.Value:
    width = values.LSTM_WIDTH
    x = bw.input("x", (values.LSTM_LENGTH, "batch", width))
    w, r = (bw.parameter(f"lstm/{part}", (1, 4 * width, width)) for part in "WR")
    b = bw.concat([bw.parameter(f"lstm/{part}", (1, 4 * width)) for part in ("Wb", "Rb")], axis=1)
    results = bw.op("LSTM", x, w, r, b, attributes={"hidden_size": width}, shape=(1, "batch", width), outputs=2)
    return _classified(bw.squeeze(results[1], 0), "batch")


def _classified(h: bw.Value, size: str) -> bw.Value:
    logits = bw.dense(h, values.CLASSES, name="top")
    return bw.softmax_cross_entropy(logits, bw.input("y", (size,), dtype="int64"))


_MODELS: dict[str, Callable[[str], bw.Value]] = {
    **dict.fromkeys(values.MLPS, _mlp),
    "LeNet": _lenet,
    "ResNet-8": _resnet8,
    "transformer": _transformer,
    "LSTM": _lstm,
}
