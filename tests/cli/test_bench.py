"""`patchkit bench`."""

import json
from pathlib import Path

import pytest

from tests.cli.helpers import run
from tests.unit.bench.beds import written

PLAN = """
checkpoints = [2]
batches = [2]
[[testbeds]]
name = "tiny"
base = "base"
records = "records_{split}.json"
retention = "retention.json"
[[methods]]
label = "ours"
options = { steps = 2 }
settings = { contexts = 1, corpus_rows = 8, corpus_length = 12, layers = [1] }
[[methods]]
label = "nowhere"
settings = { layers = [9], corpus_rows = 8, corpus_length = 12 }
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    written(tmp_path)
    Path("tiny.toml").write_text(PLAN, "utf-8")
    return tmp_path


def test_a_folder_of_results_is_made_and_continued(plan: Path) -> None:
    command = ["bench", "tiny.toml", "--data", str(plan), "--device", "cpu", "--commit", "abc"]
    first = run(*command, "--no-plots", "--only", "ours", "--json")
    assert first.code == 0
    data = json.loads(first.stdout)
    assert (data["schema"], data["path"]) == ("patchkit.bench/1", "tiny")
    [row] = data["rows"]
    assert (row["label"], row["commit"], row["failed"]) == ("ours", "abc", None)
    assert json.loads(Path("tiny/results.json").read_text()) == [row]
    assert "**tiny, 2 edits in batches of 2**" in Path("tiny/table.md").read_text()
    again = run(*command, "--no-plots")
    assert "2 cells in tiny" in again.stdout
    assert "nowhere, 2 edits, seed 0: layer 9 was asked for" in again.stderr
    assert json.loads(Path("tiny/results.json").read_text())[0] == row


def test_figures_are_drawn(plan: Path) -> None:
    pytest.importorskip("matplotlib")
    ran = run("bench", "tiny.toml", "--data", str(plan), "-o", "x", "--only", "ours", "-q")
    assert ran.stdout.strip() == str(Path("x/results.json"))
    names = sorted(path.name for path in Path("x").glob("*.png"))
    assert names == ["tiny-2-angles.png", "tiny-2-metrics.png", "tiny-2-spectra.png"]


def test_an_unknown_label_is_named(plan: Path) -> None:
    ran = run("bench", "tiny.toml", "--only", "theirs")
    assert ran.code == 1
    assert "no method has the label 'theirs'" in ran.stderr
