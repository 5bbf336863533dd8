"""The README's Quick start is what .ci/run runs."""

import runpy
import shlex
from pathlib import Path
from typing import cast

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = cast(list[str], runpy.run_path(str(ROOT / ".ci/readme_block.py"))["blocks"](TEXT))


def test_the_quick_start_has_exactly_two_fenced_blocks() -> None:
    section = TEXT.split("\n## Quick start\n", 1)[1].split("\n## ", 1)[0]
    assert section.count("```") == 4
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_makes_its_own_environment(block: str) -> None:
    lines = block.splitlines()
    assert lines[0].startswith("python3 -m venv ")
    assert any(line.startswith("pip install -c constraints.txt ") for line in lines)


def test_the_first_block_does_the_main_job() -> None:
    commands = [shlex.split(line)[1] for line in BLOCKS[0].splitlines() if "patchkit " in line]
    assert commands == ["edit", "verify", "apply", "try"]


def test_the_second_block_runs_the_tests() -> None:
    assert BLOCKS[1].splitlines()[-1].startswith("pytest")


@pytest.mark.parametrize("line", [line for block in BLOCKS for line in block.splitlines()])
def test_files_that_a_block_names_exist(line: str) -> None:
    for word in shlex.split(line):
        if word.startswith(("examples/", "constraints")):
            assert (ROOT / word).is_file()
