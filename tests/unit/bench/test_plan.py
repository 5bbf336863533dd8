"""A benchmark's TOML file, and the runs that it stands for."""

from pathlib import Path

import pytest

from patchkit.bench import read_plan
from patchkit.bench.plan import runs
from patchkit.editing.methods import memit, prune
from patchkit.errors import RecipeError

BED = """
[[testbeds]]
name = "tiny"
base = "atlas"
records = "records_{split}.json"
retention = "retention.json"
"""
FULL = f"""
split = "dev"
checkpoints = [10, 1]
batches = [2, 5]
seeds = [0, 1]
{BED}
[[methods]]
label = "ours"
seeds = [7]

[[methods]]
method = "memit"
protect = ["spectrum"]
batches = [3]
grid = {{ lam = [1, 10.0] }}
settings = {{ contexts = 2 }}

[[methods]]
method = "prune"
testbeds = ["another"]
batches = [2]
seeds = [0]
grid = {{ "host_options.lam" = [5] }}
"""


def saved(folder: Path, text: str) -> Path:
    path = folder / "bench.toml"
    path.write_text(text, "utf-8")
    return path


def test_every_method_runs_in_every_batch_for_every_seed(tmp_path: Path) -> None:
    other = BED.replace("tiny", "another")
    every = list(runs(read_plan(saved(tmp_path, FULL.replace(BED, BED + other)))))
    found = [run for run in every if run.testbed.name == "tiny"]
    assert [run.label for run in every if run not in found][-1] == "prune host_options.lam=5"
    assert [(run.label, run.recipe.batch, run.seed) for run in found] == [
        ("ours", 2, 7),
        ("ours", 5, 7),
        ("memit+spectrum lam=1", 3, 0),
        ("memit+spectrum lam=1", 3, 1),
        ("memit+spectrum lam=10.0", 3, 0),
        ("memit+spectrum lam=10.0", 3, 1),
    ]
    assert {run.checkpoints for run in found} == {(1, 10)}
    last = found[-1].recipe
    assert (last.method, last.protect, last.contexts) == ("memit", ("spectrum",), 2)
    assert isinstance(last.options, memit.Options)
    assert last.options.lam == 10.0


def test_a_grid_reaches_into_the_options_of_a_host(tmp_path: Path) -> None:
    text = FULL.replace('"another"', '"tiny"')
    recipe = list(runs(read_plan(saved(tmp_path, text))))[-1].recipe
    assert isinstance(recipe.options, prune.Options)
    assert recipe.options.host_options.lam == 5.0


def test_settings_can_come_from_a_recipe_beside_the_plan(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('method = "memit"\n[options]\nlam = 3.0\nsteps = 4\n')
    method = '[[methods]]\nrecipe = "mine.toml"\noptions = { steps = 9 }\n'
    [run, *_] = runs(read_plan(saved(tmp_path, BED + method)))
    assert (run.label, run.recipe.options.lam, run.recipe.options.steps) == ("mine.toml", 3.0, 9)


def test_only_some_methods_can_be_chosen(tmp_path: Path) -> None:
    plan = read_plan(saved(tmp_path, FULL.replace('"another"', '"tiny"')))
    assert {run.label for run in runs(plan.only(("ours",)))} == {"ours"}
    with pytest.raises(RecipeError, match="no testbed 'another'"):
        read_plan(saved(tmp_path, FULL))
    with pytest.raises(RecipeError, match="label 'theirs'") as failure:
        plan.only(("theirs",))
    assert "ours" in str(failure.value.hint)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BED, "no methods"),
        ("[[methods]]\n", "no testbeds"),
        (BED + "[[methods]]\n[[methods]]\n", "two entries have the label 'rotation'"),
        (BED + "[[methods]]\nlable = 'x'\n", "unknown setting 'lable'"),
        ("batchs = [1]\n" + BED + "[[methods]]\n", "unknown setting 'batchs'"),
        ("batches = [0]\n" + BED + "[[methods]]\n", "from 1 on"),
        (BED + "[[methods]]\ngrid = { rate = 1 }\n", "rate as a list"),
        ("testbeds = 3\n[[methods]]\n", "testbeds the value 3, which is of another type"),
        ("[[testbeds]]\nname = 'x'\n[[methods]]\n", "testbed 'x' has no base"),
        ("= 3", "cannot be read as a benchmark"),
    ],
)
def test_what_cannot_be_run_is_named(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=says):
        read_plan(saved(tmp_path, text))


def test_a_method_that_cannot_be_is_found_before_anything_runs(tmp_path: Path) -> None:
    text = BED + '[[methods]]\n[[methods]]\nmethod = "rome"\nprotect = ["history"]\n'
    with pytest.raises(RecipeError, match="rome does not take the protection history"):
        list(runs(read_plan(saved(tmp_path, text))))
