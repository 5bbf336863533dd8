"""`patchkit stats`."""

import sys
from pathlib import Path

import pytest

from tests.cli.helpers import run

LITTLE = ("--set", "corpus_rows=6", "--set", "corpus_length=8")


def test_statistics_are_made_once(base: Path, tmp_path: Path) -> None:
    ran = run("stats", base, *LITTLE)
    folder = tmp_path / "cache" / "patchkit"
    lines = ran.stdout.splitlines()
    assert lines[0] == "✓ measured 3 layers, 0 in the cache before"
    assert lines[1].split(maxsplit=1) == ["text", "6 texts of 8 tokens, from the base itself"]
    assert str(folder) in lines[2]
    assert lines[3].split()[:4] == ["LAYER", "INPUTS", "ENERGY", "0%"]
    assert [line.split()[0] for line in lines[4:7]] == ["0", "1", "2"]
    data = run("stats", base, *LITTLE, "--layers", "1,2", "--json").data
    assert (data["rows"], data["length"], data["tokens"]) == (6, 8, 48)
    assert [(row["layer"], row["cached"]) for row in data["layers"]] == [(1, True), (2, True)]
    row = data["layers"][0]
    assert Path(row["path"]).is_relative_to(folder)
    assert set(row["free"]) == {"0.01", "0.03", "0.1", "0.3", "1"}
    assert set(row["spectrum"]) == {"0", "0.1", "0.5", "0.9", "1"}
    assert run("stats", base, *LITTLE, "-q").stdout == f"{folder}\n"


def test_another_text_or_seed_is_measured_anew(base: Path) -> None:
    Path("text.txt").write_text("The capital of Italy is Rome. " * 40, "utf-8")
    for more in ((), ("--corpus", "text.txt"), ("--seed", "7")):
        data = run("stats", base, *LITTLE, "--layers", "1", *more, "--json").data
        assert data["corpus"] == ("text.txt" if "--corpus" in more else "self")
        assert [row["cached"] for row in data["layers"]] == [False]


def test_a_data_set_needs_its_package(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    ran = run("stats", base, *LITTLE, "--corpus", "hf://datasets/a/b:train")
    assert ran.code != 0
    assert "pip install 'patchkit-lm[datasets]'" in ran.stderr
    ran = run("stats", base, *LITTLE, "--corpus", "hf://datasets/:train")
    assert "does not name the text of a data set" in ran.stderr
