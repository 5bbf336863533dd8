"""Scores of several methods stand side by side."""

from dataclasses import replace

from patchkit.bench import overview
from tests.unit.bench.test_cells import ROW

ROWS = [
    replace(ROW, edits=10, score=0.5),
    replace(ROW, edits=10, score=0.7, seed=1),
    replace(ROW, edits=20, score=0.75),
    replace(ROW, edits=10, label="theirs", score=0.9),
    replace(ROW, edits=20, label="theirs", score=0.25),
    replace(ROW, edits=10, label="broken", failed="no solution"),
    replace(ROW, edits=20, label="late", score=1.0, seed=1),
    replace(ROW, edits=30, score=1.0),
]


def test_first_draws_compare_and_all_draws_stand_behind() -> None:
    assert overview(ROWS).splitlines() == [
        "**tiny, score after so many edits in batches of 2**",
        "",
        "| method | 10 edits | 20 edits |",
        "| --- | ---: | ---: |",
        "| ours | 0.500 (0.600 ± 0.141) | **0.750** |",
        "| theirs | **0.900** | 0.250 |",
        "| broken | failed | – |",
        "| late | – | – (1.000) |",
    ]


def test_one_method_alone_is_no_comparison() -> None:
    assert overview(ROWS[:3]) == ""
    assert overview([]) == ""


def test_every_testbed_and_batch_size_has_a_table() -> None:
    rows = [replace(row, batch=batch) for row in ROWS for batch in (2, 10)]
    assert overview(rows).count("**tiny, score after") == 2
