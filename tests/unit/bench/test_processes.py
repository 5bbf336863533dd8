"""Two processes give what one gives."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from patchkit.errors import InvariantError
from patchkit.facts.position import encode_all, fact_passage
from patchkit.parallel import ALONE, Workers
from patchkit.scoring import answers as scoring
from tests.unit.bench.beds import written
from tests.unit.bench.together import results
from tests.unit.editing.samples import FACTS, loaded

VERDICTS = ("efficacy", "paraphrase", "neighborhood", "same_subject", "retention", "score")


def rows_in(folder: Path) -> dict[str, Any]:
    cells = (json.loads(cell.read_text()) for cell in (folder / "cells").glob("*.json"))
    return {cell["row"]["label"]: cell["row"] for cell in cells}


@pytest.mark.slow
def test_two_processes_edit_and_judge_as_one(tmp_path: Path, root: Path) -> None:
    folder, one, two = written(tmp_path), tmp_path / "one", tmp_path / "two"
    alone = results(folder, one, ALONE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = root / "tests" / "unit" / "bench" / "together.py"
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script), str(folder), str(two)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    together = load_file(two / "changes.safetensors")
    for label, change in alone.items():
        assert float(change.norm()) > 0
        assert torch.allclose(together[label], change, rtol=0, atol=1e-5 * float(change.norm()))
    first, second = rows_in(one), rows_in(two)
    assert [row["processes"] for row in second.values()] == [2, 2]
    for label, row in first.items():
        assert {name: row[name] for name in VERDICTS} == {n: second[label][n] for n in VERDICTS}


def test_shares_are_all_there_is() -> None:
    parts = [Workers(rank, 3).share(range(8)) for rank in range(3)]
    assert sorted(item for part in parts for item in part) == list(range(8))
    assert Workers(2, 3).share([1]) == []
    assert ALONE.share("abc") == ["a", "b", "c"]
    assert (ALONE.first, Workers(1, 2).first) == (True, False)


def test_alone_sums_and_agreement_are_ones_own() -> None:
    numbers = torch.ones(2)
    assert ALONE.sum(numbers) is numbers
    assert ALONE.agree(True)
    assert not ALONE.agree(False)


def test_a_process_hears_of_another_ones_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, _ = loaded(tmp_path / "base")
    monkeypatch.setattr(Workers, "agree", lambda self, yes: False)
    encoded = encode_all(tokenizer, [fact_passage(FACTS[0])])
    with pytest.raises(InvariantError, match="another process"):
        scoring.answers(model, encoded, workers=Workers(0, 2))
