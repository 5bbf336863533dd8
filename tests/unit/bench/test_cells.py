"""Cells on disk: found again by what decides them, measured again when damaged."""

from dataclasses import replace
from pathlib import Path

import pytest

from patchkit.bench.cells import Cells
from patchkit.bench.row import Row, row_from
from patchkit.errors import OutputError

ROW = Row(
    testbed="tiny", label="ours", method="rotation", protect=("spectrum",), edits=3, batch=2,
    seed=0, split="test", settings={"batch": 2}, convention="argmax", testbed_digest="0",
    commit=None, device="cpu", threads=1, processes=1, versions={"torch": "2"}, efficacy=0.5,
    angles=(0.1, 0.2),
)  # fmt: skip
KEY = {"edits": 3, "recipe": {"protect": ("spectrum",)}}


def test_a_cell_is_found_by_its_key_alone(tmp_path: Path) -> None:
    cells = Cells.within(tmp_path)
    assert cells.find(KEY) is None
    cells.keep(KEY, ROW)
    assert Cells.within(tmp_path).find(KEY) == ROW
    assert cells.find({**KEY, "edits": 4}) is None


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-20], lambda text: text.replace('"spe', '"x')]
)
def test_a_damaged_cell_is_not_there(damage: object, tmp_path: Path) -> None:
    cells = Cells.within(tmp_path)
    cells.keep(KEY, ROW)
    path = cells.path(KEY)
    path.write_text(damage(path.read_text("utf-8")), "utf-8")  # type: ignore[operator]
    assert cells.find(KEY) is None


def test_what_is_not_finite_is_none_in_a_file() -> None:
    broken = replace(ROW, norm_ratio=float("nan"), condition_ratio=float("inf"))
    again = row_from(broken.as_dict())
    assert (again.norm_ratio, again.condition_ratio) == (None, None)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        Cells.within(tmp_path / "file")
