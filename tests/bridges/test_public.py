"""The public face of the bridges."""

import importlib
import inspect
import subprocess
import sys

import pytest

BRIDGES = {
    "backwire.jax": "jax",
    "backwire.safetensors": "safetensors",
    "backwire.scipy": "",
    "backwire.sklearn": "sklearn",
    "backwire.torch": "torch",
}
"""The bridges and their extras, which have the names of the packages."""

RETURNED = {"Loaded", "PureFunction", "RemoteFunction"}
"""What calls return; their examples show it."""

each_bridge = pytest.mark.parametrize("bridge", BRIDGES)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@each_bridge
def test_all_lists_what_is_public_with_documentation_and_examples(bridge: str) -> None:
    if BRIDGES[bridge]:
        pytest.importorskip(BRIDGES[bridge])
    module = importlib.import_module(bridge)
    public = {name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert module.__all__ == sorted(public)
    for name in module.__all__:
        assert (">>>" in (getattr(module, name).__doc__ or "")) == (name not in RETURNED), name


@pytest.mark.parametrize(("bridge", "extra"), [(bridge, extra) for bridge, extra in BRIDGES.items() if extra])
def test_without_its_package_a_bridge_says_what_to_install(bridge: str, extra: str) -> None:
    code = f"""
import sys
sys.modules[{extra!r}] = None  # as if it were not installed
try:
    import {bridge}
except ImportError as error:
    print(error)
"""
    assert run(code).endswith(f"install it with: pip install 'backwire[{extra}]'")


def test_the_package_itself_imports_none_of_the_libraries() -> None:
    packages = {*BRIDGES.values(), "scipy", "onnx"} - {""}
    assert run(f"import sys, backwire; print(sorted({packages!r} & set(sys.modules)))") == "[]"
