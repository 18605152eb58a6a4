"""A session travels as one file, and whatever is no such file is refused."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from tests.storage.drawing import damaged, joined, told

from backwire_api.tensors import Array, encode
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1.optimizer_pb2 import Optimizer
from backwire_server import optim
from backwire_server.messages.session import session_spec
from backwire_server.sessions.calls import LeaseCall
from backwire_server.sessions.errors import GraphTooLarge, InvalidExport, StorageFailed, UnsupportedOpset
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.parameters import shape_of, trainable_layout
from backwire_server.sessions.training.state import Image, State
from backwire_server.storage import carrier
from backwire_server.storage.carrier import FORMAT, FileCarrier
from backwire_server.storage.checkpoints import state_file
from backwire_server.storage.checkpoints.tensorfile import TensorFile, tensor_parts

SHAPES = {"w": (2, 3), "s": (), "frozen": (2,)}


def request(name: str = "w") -> pb.CreateSessionRequest:
    """A graph with a matrix and a scalar to train and a frozen vector, and Adam with an average."""
    message = pb.CreateSessionRequest(seed=5)
    for each, shape in SHAPES.items():
        parameter = message.graph.parameters.add(name=name if each == "w" else each, frozen=each == "frozen")
        parameter.value.CopyFrom(encode(np.zeros(shape, np.float32)))
    message.graph.outputs["y"] = name
    message.optimizer.learning_rate = 0.5
    message.optimizer.adam.SetInParent()
    message.optimizer.average_decay = 0.5
    return message


def spec_of(message: pb.CreateSessionRequest) -> SessionSpec:
    return session_spec(message, Limits())


def state_of(spec: SessionSpec, contributions: int = 1) -> State:
    """A state that a session of the kind can have, with other bits in every array."""
    layout = trainable_layout(spec.graph)
    draw = np.random.default_rng(0)

    def fill(array: Array) -> Array:
        return draw.normal(size=array.shape).astype(array.dtype)

    names = {p.name: np.zeros(shape_of(p), p.type.dtype) for p in spec.graph.parameters}
    memory: dict[str, dict[str, Array]] = {}
    for parameter, slot in layout.slots.items():
        vectors = optim.init(spec.optimizer, layout)[slot.dtype] if spec.optimizer else {}
        for name, vector in vectors.items():
            memory.setdefault(name, {})[parameter] = fill(slot.view(vector))
    gradients = {name: fill(names[name]) for name in layout.slots} if contributions else {}
    parameters = {name: fill(array) for name, array in names.items()}
    return State(3, 8, contributions, 1.5 * contributions, parameters, gradients, memory)


@pytest.fixture
def packed(tmp_path: Path) -> Callable[..., Path]:
    """Writes the file of a session of a request, with some state unless it is given."""

    def pack(message: pb.CreateSessionRequest | None = None, state: State | None = None) -> Path:
        spec = spec_of(message or request())
        pieces = FileCarrier(Limits()).pack(spec, Image(state or state_of(spec)))
        (tmp_path / "file").write_bytes(joined(pieces))
        return tmp_path / "file"

    return pack


ALGORITHMS = [field.name for field in Optimizer.DESCRIPTOR.oneofs_by_name["algorithm"].fields]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("contributions", [0, 2])
def test_a_session_of_every_optimizer_travels(packed: Callable[..., Path], algorithm: str, contributions: int) -> None:
    message = request()
    getattr(message.optimizer, algorithm).SetInParent()
    state = state_of(spec_of(message), contributions)
    spec, image = FileCarrier(Limits()).unpack(str(packed(message, state)))
    assert told(image) == told(Image(state))
    assert image.state.digest() == state.digest()
    assert pb.CreateSessionRequest.FromString(spec.definition) == message
    assert (spec.graph, spec.optimizer, spec.seed) == (spec_of(message).graph, spec_of(message).optimizer, 5)


@pytest.mark.parametrize("name", ["w", "a/b", 'ü"\\\n\x00', "x" * 500])
def test_a_session_without_optimizer_and_with_any_names_travels(packed: Callable[..., Path], name: str) -> None:
    message = request(name)
    message.ClearField("optimizer")
    state = state_of(spec_of(message))
    assert told(FileCarrier(Limits()).unpack(str(packed(message, state)))[1].state) == told(state)


def test_passes_requests_and_lease_stay_behind(packed: Callable[..., Path]) -> None:
    spec = spec_of(request())
    image = Image(state_of(spec), lease=LeaseCall(1, "me", 1.0))
    alone = packed(state=image.state).read_bytes()
    assert joined(FileCarrier(Limits()).pack(spec, image)) == alone


def test_the_same_session_makes_the_same_file_and_a_public_library_reads_it(packed: Callable[..., Path]) -> None:
    path = packed()
    assert path.read_bytes() == packed().read_bytes()
    state = state_of(spec_of(request()))
    found = safetensors.numpy.load_file(path)
    assert told(found["parameters/w"]) == told(state.parameters["w"])
    with safetensors.safe_open(path, "np") as file:
        assert (file.metadata()["format"], file.metadata()["digest"]) == (FORMAT, state.digest())


def test_a_file_that_a_tool_wrote_anew_in_another_order_is_the_same_session(packed: Callable[..., Path]) -> None:
    path = packed()
    spec, image = FileCarrier(Limits()).unpack(str(path))
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, metadata)
    again = FileCarrier(Limits()).unpack(str(path))
    assert told(again[1]) == told(image)
    assert again[0].definition == spec.definition


@pytest.mark.parametrize("read", [0, 1, 2, 1_000])
def test_the_image_is_closed_when_the_reader_has_enough(read: int) -> None:
    spec = spec_of(request())
    closed: list[bool] = []
    pieces = FileCarrier(Limits()).pack(spec, Image(state_of(spec), on_close=[lambda: closed.append(True)]))
    assert closed == []
    for _ in zip(range(read), pieces, strict=False):
        pass
    del pieces
    assert closed == [True]


def test_large_arrays_come_in_pieces(monkeypatch: pytest.MonkeyPatch, packed: Callable[..., Path]) -> None:
    whole = packed().read_bytes()
    monkeypatch.setattr(carrier, "PIECE_BYTES", 16)
    spec = spec_of(request())
    head, *pieces = FileCarrier(Limits()).pack(spec, Image(state_of(spec)))
    assert head + b"".join(pieces) == whole
    assert max(map(len, pieces)) == 16


def test_a_file_that_is_cut_anywhere_or_has_any_bit_turned_is_refused(packed: Callable[..., Path]) -> None:
    path = packed()
    for what in damaged(path):
        with pytest.raises(InvalidExport) as caught:
            FileCarrier(Limits()).unpack(str(path))
        assert str(caught.value).endswith("import the file as it is"), what
        assert caught.value.field == "chunk", what


def forged(path: Path, change: Callable[[dict[str, Array], dict[str, str]], None]) -> str:
    """Changes the tensors and texts of a file, and seals it again."""
    with TensorFile(path) as file:
        metadata, arrays = file.metadata, {name: file.read(name) for name in file.places}
    change(arrays, metadata)
    others = {name: array for name, array in arrays.items() if not state_file.is_state(name)}
    metadata["seal"] = state_file.seal(metadata, others)
    path.write_bytes(joined(tensor_parts(arrays, metadata)))
    return str(path)


def drop(name: str) -> Callable[[dict[str, Array], Any], None]:
    return lambda arrays, _: arrays.__delitem__(name)


def put(name: str, array: Array) -> Callable[[dict[str, Array], Any], None]:
    return lambda arrays, _: arrays.update({name: array})


def say(**texts: str) -> Callable[[Any, dict[str, str]], None]:
    return lambda _, metadata: metadata.update(texts)


VECTOR = np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (say(format="backwire-checkpoint-1"), "its format is"),
        (drop("definition"), "has not exactly the tensor 'definition'"),
        (put("definition", np.frombuffer(b"\xff\xff", np.uint8)), "no CreateSessionRequest"),
        (put("passes/1/x", VECTOR), "has not exactly the tensor 'definition'"),
        (drop("parameters/w"), "tensor 'parameters/w' is not what"),
        (put("parameters/more", VECTOR), "tensor 'parameters/more' is not what"),
        (put("parameters/w", VECTOR), "tensor 'parameters/w' is not what"),
        (put("parameters/s", np.zeros((), np.float64)), "tensor 'parameters/s' is not what"),
        (put("gradients/frozen", VECTOR), "tensor 'gradients/frozen' is not what"),
        (drop("gradients/s"), "tensor 'gradients/s' is not what"),
        (drop("optimizer/average/w"), "tensor 'optimizer/average/w' is not what"),
        (put("optimizer/more/s", np.zeros((), np.float32)), "tensor 'optimizer/more/s' is not what"),
        (put("optimizer/average/frozen", VECTOR), "tensor 'optimizer/average/frozen' is not what"),
        (say(contributions="0"), "tensor 'gradients/"),
        (say(step="x"), "'x' is no count"),
        (say(step="4"), "has the digest"),
        (put("parameters/frozen", VECTOR), "has the digest"),
    ],
)
def test_a_forged_file_is_refused(
    packed: Callable[..., Path], change: Callable[[dict[str, Array], dict[str, str]], None], reason: str
) -> None:
    with pytest.raises(InvalidExport, match=reason):
        FileCarrier(Limits()).unpack(forged(packed(), change))


@pytest.mark.parametrize("weight", [float("inf"), float("nan"), -1.0])
def test_weights_without_a_sum_are_refused(packed: Callable[..., Path], weight: float) -> None:
    state = replace(state_of(spec_of(request())), total_weight=weight)
    with pytest.raises(InvalidExport, match="have the sum"):
        FileCarrier(Limits()).unpack(str(packed(state=state)))


def test_a_graph_that_the_server_does_not_take_is_refused_as_on_creation(packed: Callable[..., Path]) -> None:
    message = request()
    message.graph.opset_version = 9_999
    unsupported = put("definition", np.frombuffer(message.SerializeToString(), np.uint8))
    with pytest.raises(UnsupportedOpset):
        FileCarrier(Limits()).unpack(forged(packed(), unsupported))
    with pytest.raises(GraphTooLarge):
        FileCarrier(Limits(max_parameter_bytes=8)).unpack(str(packed()))


def test_tensors_that_no_session_has_take_no_memory(packed: Callable[..., Path]) -> None:
    path = forged(packed(), put("parameters/w", np.zeros(1 << 22, np.float32)))
    tracemalloc.start()
    with pytest.raises(InvalidExport):
        FileCarrier(Limits()).unpack(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 22


def test_a_file_that_cannot_be_read_or_written_tells_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageFailed, match="No such file") as caught:
        FileCarrier(Limits()).unpack(str(tmp_path / "none"))
    assert caught.value.retry_after == 1.0
    monkeypatch.setattr(carrier, "MAX_HEADER_BYTES", 100)
    spec = spec_of(request())
    with pytest.raises(StorageFailed, match="shorter names"):
        joined(FileCarrier(Limits()).pack(spec, Image(state_of(spec))))
