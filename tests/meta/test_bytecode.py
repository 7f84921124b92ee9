"""tests.testbed.bytecode: what daemons and clients of tests are made of is compiled once."""

from pathlib import Path

import pytest

from tests.testbed.bytecode import compile_all


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "compiled_here"
    (made / "below").mkdir(parents=True)
    for name in ("__init__", "module", "test_module", "conftest", "below/__init__", "below/inner"):
        (made / f"{name}.py").write_text('"""Nothing."""\n')
    (made / "broken.py").write_text("def\n")
    monkeypatch.syspath_prepend(tmp_path)
    return made


def compiled(package: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in package.rglob("*.pyc")}


def test_modules_are_compiled_but_for_those_that_pytest_compiles(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    compile_all([package.name])
    assert compiled(package) == {"__init__", "module", "inner"}


def test_what_is_no_package_is_left_out() -> None:
    compile_all(["json.decoder", "there_is_no_such_package"])
