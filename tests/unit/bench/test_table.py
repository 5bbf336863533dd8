"""Rows become means, a table and pictures."""

from dataclasses import replace

import pytest

from patchkit.bench import entries, markdown, plots
from patchkit.bench.plots import _look
from tests.unit.bench.test_cells import ROW

ROWS = [
    replace(ROW, score=0.5, norm_ratio=1.0, patch_bytes=2048),
    replace(ROW, score=0.7, norm_ratio=1.0, patch_bytes=2048, seed=1),
    replace(ROW, label="theirs", score=0.9, efficacy=None, angles=(), norm_ratio=3.0),
    replace(ROW, label="broken", score=None, efficacy=None, angles=(), failed="no solution"),
    replace(ROW, edits=1, score=1.0),
]


def test_seeds_become_mean_and_standard_deviation() -> None:
    first, best, ours, broken = entries(ROWS)
    assert (first.edits, best.label, ours.label, broken.label) == (1, "theirs", "ours", "broken")
    score = ours.means["score"]
    assert (score.value, score.spread) == (pytest.approx(0.6), pytest.approx(0.02**0.5))
    assert best.means["score"].spread is None
    assert (ours.seeds, broken.failed, broken.means) == (2, 1, {})


def test_the_table_says_how_many_seeds_and_failures() -> None:
    text = markdown(ROWS)
    assert "**tiny, 1 edit in batches of 2**" in text
    assert "**tiny, 3 edits in batches of 2**" in text
    assert "| ours (2 seeds) | 0.500 ± 0.000 | – | – | – | – | 0.600 ± 0.141 | 1.0000" in text
    assert "| broken, 1 failed | – |" in text
    assert markdown([]) == ""


def test_there_are_pictures_for_every_testbed_and_batch() -> None:
    pytest.importorskip("matplotlib")
    made = plots(ROWS)
    assert sorted(made) == ["tiny-2-angles.png", "tiny-2-metrics.png", "tiny-2-spectra.png"]
    assert all(content.startswith(b"\x89PNG") for content in made.values())
    assert len(plots([row for row in ROWS if not row.angles])) == 2


def test_no_two_lines_of_a_figure_look_alike() -> None:
    looks = [tuple(_look(number).values()) for number in range(40)]
    assert len(set(looks)) == 40
