"""The shape of the house: who may import whom, and how long a file may be."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "backwire_api": ROOT / "proto/backwire_api",
    "backwire_server": ROOT / "server/backwire_server",
    "backwire": ROOT / "client/backwire",
}
MODULES = {
    ".".join((package, *path.relative_to(folder).with_suffix("").parts)): path
    for package, folder in PACKAGES.items()
    for path in sorted(folder.rglob("*.py"))
    if "_pb2" not in path.name
}
MOST_LINES = 400

LAYERS = (
    "engine",
    "optim",
    "xla",
    "parallel",
    "sessions",
    "machine",
    "config_values",
    "config_file",
    "config_limits",
    "config_options",
    "config_told",
    "config_parts",
    "config",
    "config_reading",
    "lifetime",
    "messages",
    "storage",
    "access",
    "telemetry",
    "rpc",
    "workers",
    "cluster",
    "__main__",
)
"""The parts of backwire_server from the bottom to the top; each may import itself and those before it."""

FOLDERS = {
    "backwire": ("_builder", "_training", "_wire", "_cli"),
    "backwire_server.sessions": ("turns", "training", "keeping", "store"),
    "backwire_server.storage": ("journal", "checkpoints", "sharing"),
}
"""The folders of a package; each may import itself and those before it."""

PROTOBUF = {"google", "backwire_api"}
GRPC = PROTOBUF | {"grpc", "grpc_health", "grpc_status"}
NUMBERS = {"numpy", "ml_dtypes"}
FOREIGN = {
    "backwire_api": NUMBERS | {"google", "grpc"},
    "backwire": NUMBERS | GRPC,
    "backwire_server.engine": NUMBERS,
    "backwire_server.optim": NUMBERS,
    "backwire_server.xla": NUMBERS,
    "backwire_server.parallel": NUMBERS,
    "backwire_server.sessions": NUMBERS,
    "backwire_server.machine": {"backwire_api"},
    "backwire_server.config_values": set(),
    "backwire_server.config_file": set(),
    "backwire_server.config_limits": set(),
    "backwire_server.config_options": set(),
    "backwire_server.config_told": set(),
    "backwire_server.config_parts": set(),
    "backwire_server.config": set(),
    "backwire_server.config_reading": set(),
    "backwire_server.lifetime": set(),
    "backwire_server.messages": NUMBERS | PROTOBUF,
    "backwire_server.storage": NUMBERS | PROTOBUF,
    "backwire_server.access": {"grpc"},
    "backwire_server.telemetry": {"prometheus_client"},
    "backwire_server.rpc": NUMBERS | GRPC,
    "backwire_server.workers": GRPC,
    "backwire_server.cluster": GRPC,
    "backwire_server.__main__": NUMBERS | GRPC,
    "backwire_server.__init__": set(),
}
"""The packages, beyond the standard library and its own, that each part may import."""

EXTRAS = {
    "backwire_api.checksum": {"isal"},
    "backwire_server.optim.compiled": {"numba"},
    "backwire_server.storage.checkpoints.copies": {"fsspec"},
    "backwire_server.rpc.inspecting": {"grpc_channelz", "grpc_reflection"},
    "backwire_server.telemetry.exporting": {"opentelemetry"},
    "backwire_server.telemetry.tracing": {"grpc", "opentelemetry"},
    **{f"backwire_server.cluster.{module}": {"ray"} for module in ("actors", "controller", "serve", "worker")},
    "backwire._cli._live": {"rich"},
    "backwire._demo": {"matplotlib", "sklearn", "tqdm"},
    "backwire._wire._tracing": {"opentelemetry"},
    **{module: {"onnx"} for module in MODULES if module.startswith("backwire.onnx.")},
    **{module: {"jax"} for module in MODULES if module.startswith("backwire.jax.")},
    **{module: {"jax"} for module in MODULES if module.startswith("backwire_server.xla.")},
    **{module: {"safetensors"} for module in MODULES if module.startswith("backwire.safetensors.")},
    **{module: {"sklearn"} for module in MODULES if module.startswith("backwire.sklearn.")},
    **{module: {"onnx", "torch"} for module in MODULES if module.startswith("backwire.torch.")},
}
"""Modules that need an extra of the distribution; no other module may."""


def imports(module: str) -> Iterator[str]:
    """Full names of everything that a module imports, also inside functions and for type checking only."""
    tree = ast.parse(MODULES[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def part(name: str) -> str:
    """The part that a dotted name belongs to: the package, or for the server the package and its layer."""
    package, *rest = name.split(".")
    return f"{package}.{rest[0]}" if package == "backwire_server" and rest else package


def layer(name: str) -> int:
    return LAYERS.index(part(name).removeprefix("backwire_server."))


def test_all_packages_are_seen() -> None:
    assert {part(module) for module in MODULES} == set(FOREIGN)


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("backwire_server.")])
def test_a_layer_of_the_server_never_imports_a_higher_one(module: str) -> None:
    own = [name for name in imports(module) if name.startswith("backwire_server.")]
    if module == "backwire_server.__init__":
        assert own == [], "the package is imported before everything in it"
    else:
        assert [name for name in own if layer(name) > layer(module)] == []


@pytest.mark.parametrize(("name", "folder"), [(name, folder) for name in FOLDERS for folder in FOLDERS[name]])
def test_a_folder_never_imports_a_later_one(name: str, folder: str) -> None:
    modules = [module for module in MODULES if module.startswith(f"{name}.{folder}.")]
    later = FOLDERS[name][FOLDERS[name].index(folder) + 1 :]
    wrong = tuple(f"{name}.{other}." for other in later)
    assert modules != []
    assert [each for module in modules for each in imports(module) if f"{each}.".startswith(wrong)] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_part_imports_only_its_own_package_and_what_it_is_allowed(module: str) -> None:
    allowed = {module.split(".")[0], *FOREIGN[part(module)], *EXTRAS.get(module, ()), *sys.stdlib_module_names}
    assert [name for name in imports(module) if name.split(".")[0] not in allowed] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text()))


def test_no_file_is_too_long() -> None:
    files = [*MODULES.values(), *(ROOT / "tests").rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}
