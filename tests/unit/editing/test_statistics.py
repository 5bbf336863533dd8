"""Statistics of preserved knowledge: many layers at once, interrupted, kept, and looked at."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from patchkit.editing import statistics
from patchkit.editing.cache import Entry
from patchkit.editing.capture import capture
from patchkit.editing.knowledge import Sources, preserved_statistics, preserved_text
from patchkit.editing.preserved import measure_preserved
from patchkit.editing.statistics import gather
from patchkit.errors import SolveError
from patchkit.tensors.layout import Site, sites
from tests.unit.editing.samples import QUICK, loaded
from tests.unit.models.factory import tiny


class Killed(Exception):
    """What ends a run in the middle."""


def text_of(rows: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 300, (rows, 5), generator=torch.Generator().manual_seed(seed))


def watched(monkeypatch: pytest.MonkeyPatch, last: int) -> list[int]:
    """Count the rows of every pass, and fail in front of the one after `last`."""
    passes: list[int] = []

    def counted(model: Any, ids: Tensor, mask: Tensor, found: Sequence[Site]) -> Any:
        if len(passes) == last:
            raise Killed
        passes.append(len(ids))
        return capture(model, ids, mask, found)

    monkeypatch.setattr(statistics, "capture", counted)
    return passes


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama3")
    found, text = sites(model), text_of(20)
    monkeypatch.setattr(statistics, "_ROWS_AT_ONCE", 2)
    monkeypatch.setattr(statistics, "_REST_AFTER", 3)
    whole = gather(model, text, found)
    entry = Entry(tmp_path, "sums")
    with monkeypatch.context() as patched:
        watched(patched, 8)
        with pytest.raises(Killed):
            gather(model, text, found, unfinished=entry)
    with monkeypatch.context() as patched:
        passes = watched(patched, 99)
        again = gather(model, text, found, unfinished=entry)
    assert len(passes) == 10 - 6
    assert [path.name for path in tmp_path.iterdir()] == ["sums.safetensors"]
    for site in found:
        assert torch.equal(again[site.layer].moment, whole[site.layer].moment)


@pytest.mark.parametrize("kept", [b"damaged", None])
def test_sums_of_something_else_are_not_taken_up(kept: bytes | None, tmp_path: Path) -> None:
    model = tiny("llama3")
    found, text = sites(model), text_of(4)
    entry = Entry(tmp_path, "sums")
    entry.save({"0": torch.ones(64, 64), "done": torch.tensor(1)})
    if kept is not None:
        entry.path.write_bytes(kept)
    again = gather(model, text, found, unfinished=entry)
    assert torch.equal(again[0].moment, gather(model, text, found)[0].moment)


def test_only_layers_that_are_missing_are_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, checkpoint = loaded(tmp_path / "base")
    found, text = sites(model, checkpoint), text_of(8)
    sources = Sources(checkpoint, None, tmp_path / "cache")
    preserved_statistics(model, text, found[1:2], sources)
    asked: list[list[int]] = []

    def counted(model: Any, text: Tensor, lacking: Sequence[Site], **rest: Any) -> Any:
        asked.append([site.layer for site in lacking])
        return gather(model, text, lacking, **rest)

    monkeypatch.setattr("patchkit.editing.knowledge.gather", counted)
    every = preserved_statistics(model, text, found, sources)
    assert asked == [[0, 2]]
    assert list(every) == [0, 1, 2]
    for layer, alone in gather(model, text, found).items():
        assert torch.equal(every[layer].moment, alone.moment)
    assert len(list((tmp_path / "cache").iterdir())) == 3
    preserved_statistics(model, text_of(8, seed=1), found[:1], sources)
    assert asked == [[0, 2], [0]]


def test_a_report_counts_the_directions_that_are_free(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    sources = Sources(checkpoint, None, tmp_path / "cache")
    recipe = replace(QUICK, corpus_rows=10, corpus_length=5)
    report = measure_preserved(model, tokenizer, recipe, sources)
    assert (report.corpus, report.rows, report.length, report.tokens) == ("self", 10, 5, 50)
    text = preserved_text(model, tokenizer, recipe, sources)
    moments = preserved_statistics(model, text, sites(model), sources)
    for row in report.layers:
        assert (row.cached, row.d_in) == (False, 64)
        values = torch.linalg.svdvals(moments[row.layer].moment.double())
        assert row.energy == pytest.approx(float(values.mean()), rel=1e-5)
        assert row.spectrum[1.0] * row.energy == pytest.approx(float(values[0]), rel=1e-5)
        # 50 keys span at most 50 of 64 directions.
        assert 14 <= row.free[0.01] <= row.free[0.3] <= row.free[1.0] < 64
        assert row.path is not None
        assert row.path.is_file()
    again = measure_preserved(model, tokenizer, replace(recipe, layers=(2,)), sources)
    assert again.layers == (replace(report.layers[2], cached=True),)
    with pytest.raises(SolveError, match="layer 7 was asked for"):
        measure_preserved(model, tokenizer, replace(recipe, layers=(7,)), sources)
