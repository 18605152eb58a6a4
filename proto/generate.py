"""Generates the Python modules of the contract from the .proto files, or checks that they are up to date.

Run it in an environment that holds exactly the tools in GENERATORS: newer ones make code that older runtimes refuse
to import. `make proto` and `make check` do so.
"""

import argparse
import filecmp
import sys
import tempfile
from importlib import metadata, resources
from pathlib import Path

GENERATORS = {"grpcio-tools": "1.76.0", "mypy-protobuf": "3.7.0"}
ROOT = Path(__file__).resolve().parent
PACKAGE = Path("backwire_api/v1")


def generate(target: Path) -> None:
    """Writes the modules and their type stubs below `target`; raises SystemExit when a proto does not compile."""
    from grpc_tools import protoc  # only in the generator's own environment

    sources = [str(PACKAGE / path.name) for path in sorted((ROOT / PACKAGE).glob("*.proto"))]
    includes = [f"-I{ROOT}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    kinds = ("python_out=", "grpc_python_out=", "mypy_out=quiet:", "mypy_grpc_out=quiet:")
    outputs = [f"--{kind}{target}" for kind in kinds]
    tools = Path(sys.executable).parent  # also when the environment is not activated
    plugins = [f"--plugin={name}={tools / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    if status := protoc.main(["protoc", *includes, *plugins, *outputs, *sources]):
        raise SystemExit(status)


def stale_files() -> list[str]:
    """Returns the checked-in generated files that differ from what the .proto files give, missing ones included."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.name for path in (Path(folder) / PACKAGE).iterdir()}
        checked_in = {path.name for path in (ROOT / PACKAGE).glob("*_pb2*")}
        _, different, missing = filecmp.cmpfiles(ROOT / PACKAGE, Path(folder) / PACKAGE, fresh, shallow=False)
        return sorted({*different, *missing, *(checked_in - fresh)})


def main() -> int:
    """Generates; with --check returns 1 and names the stale files instead, with --requirements prints the tools."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a generated file is stale")
    parser.add_argument("--requirements", action="store_true", help="print what the environment must hold, and end")
    arguments = parser.parse_args()
    if arguments.requirements:
        sys.stdout.write("".join(f"{name}=={version}\n" for name, version in GENERATORS.items()))
        return 0
    for name, version in GENERATORS.items():
        if (found := metadata.version(name)) != version:
            parser.error(f"needs {name}=={version}, found {found}; run `make proto`")
    if not arguments.check:
        generate(ROOT)
        return 0
    if stale := stale_files():
        sys.stderr.write(f"stale generated files: {', '.join(stale)}; run `make proto`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
