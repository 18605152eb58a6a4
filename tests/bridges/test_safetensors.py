"""Parameters in files that other libraries write and read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backwire as bw

pytest.importorskip("safetensors", reason="safetensors is an extra")

from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import backwire.safetensors


def layers(dtype: str = "float32") -> bw.Graph:
    x = bw.input("x", ("batch", 3), dtype=dtype)
    return bw.graph(outputs={"y": bw.dense(bw.relu(bw.dense(x, 4, name="a")), 2, name="b")})


def dotted(name: str) -> str:
    return "net." + name.replace("/", ".")


def test_what_is_saved_is_loaded_again_bit_by_bit(client: bw.Client, tmp_path: Path) -> None:
    session, other = (client.create_session(layers(), seed=seed) for seed in (1, 2))
    path = tmp_path / "model.safetensors"
    backwire.safetensors.save(session, path, metadata={"epoch": "3"})
    assert session.digest() != other.digest()
    loaded = backwire.safetensors.load_into(other, path)
    assert loaded == backwire.safetensors.Loaded(("a/weight", "a/bias", "b/weight", "b/bias"), (), ())
    assert session.digest() == other.digest()
    with safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt", "epoch": "3"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_module_of_torch_gives_its_weights_and_takes_them_back(client: bw.Client, tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is an extra; .ci/run installs it")
    files: Any = pytest.importorskip("safetensors.torch")
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 4), "b": torch.nn.Linear(4, 2)}).double()
    files.save_model(module, tmp_path / "torch.safetensors")
    session = client.create_session(layers("float64"))
    naming: dict[str, Any] = {"rename": lambda name: name.replace("/", "."), "transpose": "*/weight"}
    backwire.safetensors.load_into(session, tmp_path / "torch.safetensors", **naming)
    x = torch.randn(5, 3, dtype=torch.float64)
    expected = module["b"](torch.relu(module["a"](x))).detach().numpy()
    np.testing.assert_allclose(session.forward({"x": x.numpy()}, "eval").outputs["y"], expected, rtol=1e-12)
    session.set_parameters({"b/bias": [7.0, 8.0]})
    backwire.safetensors.save(session, tmp_path / "back.safetensors", **naming)
    files.load_model(module, tmp_path / "back.safetensors")
    assert module["b"].bias.tolist() == [7.0, 8.0]
    assert module["a"].weight.shape == (4, 3)


def test_a_model_in_several_files_is_read_by_its_index(client: bw.Client, tmp_path: Path) -> None:
    source = client.create_session(layers(), seed=5)
    values = source.parameters()
    shards = {"one.safetensors": ["a/weight", "b/bias"], "two.safetensors": ["a/bias", "b/weight"]}
    for shard, names in shards.items():
        save_file({dotted(name): values[name] for name in names}, tmp_path / shard)
    index = tmp_path / "model.safetensors.index.json"
    weight_map = {dotted(name): shard for shard, names in shards.items() for name in names}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    session = client.create_session(layers())
    backwire.safetensors.load_into(session, index, rename=dotted)
    assert session.digest() == client.create_session(layers(), seed=5).digest()


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float64"])
def test_tensors_of_other_types_become_those_of_the_parameters(client: bw.Client, tmp_path: Path, stored: str) -> None:
    session = client.create_session(bw.sum(bw.parameter("w", [0.0, 0.0])))
    save_file({"w": np.asarray([1.5, -2.0]).astype(stored)}, tmp_path / "w.safetensors")
    backwire.safetensors.load_into(session, tmp_path / "w.safetensors")
    assert session.parameters()["w"].tolist() == [1.5, -2.0]


def test_the_average_is_saved_where_it_is_asked_for(client: bw.Client, tmp_path: Path) -> None:
    session = client.create_session(bw.parameter("w", 8.0) * 2, bw.SGD(1.0, average_decay=0.75))
    for _ in range(2):
        session.train_step({})
    backwire.safetensors.save(session, tmp_path / "w.safetensors", averaged=True)
    assert load_file(tmp_path / "w.safetensors")["w"] == 5.5


def test_without_strict_a_new_head_stays_and_what_is_unused_is_told(client: bw.Client, tmp_path: Path) -> None:
    session = client.create_session(layers(), seed=3)
    before = session.parameters()
    path = tmp_path / "body.safetensors"
    save_file({"a/weight": np.ones((3, 4)), "a/bias": np.ones(4), "old_head": np.ones(2)}, path)
    with pytest.raises(
        bw.UnknownNameError, match=r"no tensors 'b/weight', 'b/bias'; rename them, or pass strict=False"
    ):
        backwire.safetensors.load_into(session, path)
    np.testing.assert_array_equal(session.parameters()["a/bias"], before["a/bias"])
    loaded = backwire.safetensors.load_into(session, path, strict=False)
    assert loaded.missing == ("b/weight", "b/bias")
    assert loaded.unused == ("old_head",)
    np.testing.assert_array_equal(session.parameters()["b/weight"], before["b/weight"])
    assert session.parameters()["a/bias"].tolist() == [1.0] * 4


def test_what_does_not_fit_is_refused_with_the_remedy(client: bw.Client, tmp_path: Path) -> None:
    session = client.create_session(layers())
    digest, path = session.digest(), tmp_path / "model.safetensors"
    values = session.parameters()
    save_file({**values, "a/weight": np.ascontiguousarray(values["a/weight"].T)}, path)
    with pytest.raises(bw.ShapeError, match=r"'a/weight' has shape \[3, 4\].*\[4, 3\]; pass transpose='a/weight'"):
        backwire.safetensors.load_into(session, path)
    save_file({**values, "a/bias": np.zeros(5)}, path)
    with pytest.raises(bw.ShapeError, match="change the graph"):
        backwire.safetensors.load_into(session, path)
    with pytest.raises(bw.UnknownNameError, match="it has a/bias, a/weight"):
        backwire.safetensors.load_into(session, path, rename=dotted, strict=False)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(bw.InvalidRequestError, match="cannot be read as a safetensors file"):
        backwire.safetensors.load_into(session, path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(bw.InvalidRequestError, match="no index"):
        backwire.safetensors.load_into(session, tmp_path / "model.safetensors.index.json")
    with pytest.raises(bw.InvalidRequestError, match="give each its own"):
        backwire.safetensors.save(session, path, rename=lambda _: "same")
    assert session.digest() == digest
