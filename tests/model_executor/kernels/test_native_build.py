"""Building and loading the compiled body, and what happens where that cannot be done."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from model_executor.kernels import build, native

ROOT = Path(__file__).parents[3]
COMPARE = """
import sys
from pathlib import Path
from model_executor.kernels import native
native.FOLDER = Path(sys.argv[1])
from model_executor.kernels.mrope import mrope_
from tests.model_executor.kernels.agreement import REAL_CASES, assert_agrees
for case in REAL_CASES:
    assert_agrees(mrope_, case)
"""
RIGHT = "position[axis * r.axis_stride] * r.row_stride"
SWAPPED = "position[(axis ? r.num_axes - axis : 0) * r.axis_stride] * r.row_stride"


def compare(folder: Path) -> subprocess.CompletedProcess[str]:
    """Compares the library of a folder with plain torch, in a process of its own."""
    command = [sys.executable, "-c", COMPARE, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
def test_a_kernel_with_height_and_width_swapped_is_built_and_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mrope, *others = build.SOURCES
    source = mrope.read_text("utf-8")
    assert source.count(RIGHT) == 1
    broken = tmp_path / "mrope.cpp"
    broken.write_text(source.replace(RIGHT, SWAPPED), "utf-8")
    monkeypatch.setattr(build, "SOURCES", (broken, *others))
    assert build.build(tmp_path)
    assert not build.build(tmp_path), "a current library was built again"
    done = compare(tmp_path)
    assert done.returncode == 1
    assert done.stderr.rstrip().splitlines()[-1].startswith("AssertionError: float32-T1-12+2x128-3axes")
    assert compare(build.FOLDER).returncode == 0


@pytest.mark.usefixtures("compiled")
def test_the_library_in_use_is_built_from_this_source() -> None:
    assert build.build_key().encode() in (build.FOLDER / build.LIBRARY).read_bytes()


def test_a_missing_compiler_is_said_and_is_an_error_only_where_kernels_are_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.delenv("REQUIRE_KERNELS", raising=False)
    assert build.main(tmp_path) == 0
    assert "there is no C++ compiler no-such-compiler" in capsys.readouterr().err
    monkeypatch.setenv("REQUIRE_KERNELS", "1")
    assert build.main(tmp_path) == 1
    assert not list(tmp_path.iterdir())


def test_a_failing_compiler_leaves_no_library_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\nfor last; do :; done\ntouch "$0.so"\necho "no space left" >&2\nexit 1\n', "utf-8")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(build.KernelBuildError, match="no space left"):
        build.build(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_missing_library_is_said_and_is_an_error_only_where_kernels_are_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    monkeypatch.delenv("REQUIRE_KERNELS", raising=False)
    load = native.load.__wrapped__  # without the memory of having been loaded
    with caplog.at_level(logging.WARNING, native.__name__):
        assert not load()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Plain torch runs instead" in caplog.text
    monkeypatch.setenv("REQUIRE_KERNELS", "1")
    with pytest.raises(native.KernelsMissingError, match=r"model_executor\.kernels\.build"):
        load()
