"""Builds the distribution: generates mcast.v1, mcast.cli.v1 and the descriptor image from proto/.

The generated files go into the build directory; only an editable install puts them into src/, where git ignores them.
"""

import shutil
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc
from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
PROTO = HERE / "proto"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
IMAGE = Path("mcast", "descriptors.binpb")
PLUGIN = "protoc-gen-mypy_grpc"
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def protos() -> list[Path]:
    """Return every file of the contract, relative to proto/."""
    return sorted(path.relative_to(PROTO) for path in PROTO.rglob("*.proto"))


def generated() -> list[Path]:
    """Return every file that generate() makes, relative to the directory it is given."""
    return [proto.with_name(proto.stem + suffix) for proto in protos() for suffix in SUFFIXES] + [IMAGE]


def plugin() -> str:
    """Return the path of the program that writes the types of the stubs."""
    beside_python = str(Path(sys.executable).parent)
    found = shutil.which(PLUGIN) or shutil.which(PLUGIN, path=beside_python)
    if found is None:
        raise SystemExit(f"{PLUGIN} is missing: install what build-system.requires in {HERE / 'pyproject.toml'} lists")
    return found


def generate(root: Path) -> None:
    """Generate code and image below root, and remove what an earlier build left of a proto file that is gone."""
    for suffix in SUFFIXES:
        for old in (root / "mcast").rglob(f"*{suffix}"):
            old.unlink()
    (root / "mcast").mkdir(parents=True, exist_ok=True)
    options = [
        f"--proto_path={PROTO}",
        f"--proto_path={WELL_KNOWN}",
        f"--python_out={root}",
        f"--pyi_out={root}",
        f"--grpc_python_out={root}",
        f"--plugin={PLUGIN}={plugin()}",
        # Concrete: a servicer may leave methods out, the generated base class answers them with UNIMPLEMENTED.
        f"--mypy_grpc_out=quiet,generate_concrete_servicer_stubs:{root}",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={root / IMAGE}",
    ]
    code = protoc.main(["protoc", *options, *map(str, protos())])
    if code != 0:
        raise SystemExit(f"protoc failed on {PROTO} with exit code {code}; its messages are above")


class BuildPy(build_py):
    """Copies the modules written by hand, then generates the rest beside them."""

    def run(self) -> None:
        """Build into build_lib, or into src/ for an editable install."""
        super().run()
        generate(HERE / "src" if self.editable_mode else Path(self.build_lib))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Name the generated files too."""
        return [*super().get_outputs(include_bytecode), *(str(Path(self.build_lib) / path) for path in generated())]

    def get_output_mapping(self) -> dict[str, str]:
        """Map each generated file of an editable install to where it is made."""
        made = {str(Path(self.build_lib) / path): str(HERE / "src" / path) for path in generated()}
        return super().get_output_mapping() | made


setup(cmdclass={"build_py": BuildPy})
