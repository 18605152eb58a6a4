"""Looking before training, by the SDK and the command line, with the real server."""

import numpy as np
import pytest

import backwire as bw
from backwire._cli import _main


def classifier() -> bw.Value:
    x, labels = bw.input("x", ("batch", 12)), bw.input("labels", ("batch",), dtype="int64")
    hidden = bw.dropout(bw.tanh(bw.dense(x, 8, name="hidden")), 0.5)
    return bw.mean(bw.softmax_cross_entropy(bw.dense(hidden, 3, name="top"), labels))


def batch(size: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {"x": draw.normal(size=(size, 12)).astype("f4"), "labels": draw.integers(0, 3, size)}


def test_a_graph_is_described_before_it_is_trained(client: bw.Client) -> None:
    found = client.describe(classifier(), {"x": (32, 12)}, bw.Adam(1e-3))
    assert found.parameter_count == 12 * 8 + 8 + 8 * 3 + 3
    assert found.state_bytes >= 4 * found.parameter_bytes
    assert found.values["labels"].shape == (32,)
    assert found.values["labels"].dtype == np.int64
    assert found.forward_flops >= 2 * 32 * (12 * 8 + 8 * 3)
    assert found.backward_flops >= 2 * 32 * (12 * 8 + 2 * 8 * 3)
    assert found.peak_bytes >= found.pass_bytes
    assert found.train_step == bw.WireBytes(32 * 12 * 4 + 32 * 8, 8)
    assert client.describe(bw.graph(outputs={"y": bw.input("x", (2,)) * 2})).train_step is None


def test_a_graph_is_described_in_the_precision_that_its_session_would_have(client: bw.Client) -> None:
    x = bw.input("x", ("batch", 12))
    graph = bw.mean(bw.dense(bw.layer_norm(x, name="norm"), 8, name="top"))
    wide, narrow = (client.describe(graph, {"x": (32, 12)}, precision=each) for each in (None, "bfloat16"))
    assert wide.pass_bytes != narrow.pass_bytes
    with client.create_session(graph, precision="bfloat16") as session:
        found = session.describe(shapes={"x": (32, 12)}).description
        assert found is not None
        assert (found.pass_bytes, found.peak_bytes) == (narrow.pass_bytes, narrow.peak_bytes)
    with pytest.raises(bw.InvalidRequestError, match="precision='half' is unknown"):
        client.describe(graph, precision="half")  # type: ignore[arg-type]


def test_shapes_that_do_not_fit_raise_shape_error(client: bw.Client) -> None:
    with pytest.raises(bw.ShapeError) as raised:
        client.describe(classifier(), {"x": (32, 13)})
    assert raised.value.field == "input_shapes[x]"
    with pytest.raises(bw.MissingInputError):
        client.describe(classifier())


def test_ops_tell_their_signature(client: bw.Client) -> None:
    ops = client.ops()
    assert str(ops["Gemm"]).splitlines()[0] == "Gemm(a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0)"
    assert ops["Cast"].attributes[-1] == bw.OpAttribute("to", required=True, default=None)
    assert "*inputs" in str(ops["Concat"])


def test_gradients_are_checked(client: bw.Client) -> None:
    with client.create_session(classifier(), bw.Adam(1e-3)) as session:
        session.train_step(batch(16))
        found = session.check_gradients(batch(16), max_elements=5, seed=3)
        assert found.worst_error < 1e-6
        assert found.dtype == np.float64
        assert list(found.parameters) == [each.name for each in session.info().parameters]
        assert {each.checked for each in found.parameters.values()} == {5, 3}
        only = session.check_gradients(batch(16), parameters=["top/bias"])
        assert list(only.parameters) == ["top/bias"]
        assert session.info().step == 1
        with pytest.raises(bw.UnknownNameError):
            session.check_gradients(batch(16), parameters=["bottom"])
        with pytest.raises(bw.InvalidRequestError):
            session.check_gradients(batch(16), max_elements=0)


def test_the_command_line_lists_ops(server_address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main.main(["ops", "--target", server_address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("Gemm ") for line in lines)
    assert _main.main(["ops", "Gemm", "Relu", "--target", server_address]) == 0
    assert "Gemm(a, b, c=None, *, alpha=1.0" in capsys.readouterr().out
    assert _main.main(["ops", "Gem", "--target", server_address]) == 1
    assert "no op 'Gem'" in capsys.readouterr().err
