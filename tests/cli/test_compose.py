"""`patchkit compose`."""

from dataclasses import replace
from pathlib import Path

import pytest

from patchkit.facts.reading import to_jsonl
from patchkit.patch.metadata import FactsMeta
from patchkit.patch.patch import Patch
from patchkit.tensors.digests import bytes_digest
from tests.cli.helpers import EDITED, FACTS, Check, make_patch, run
from tests.unit.models.factory import save_tiny


def with_facts(patch: Patch, *facts: object) -> Patch:
    text = to_jsonl(facts)  # type: ignore[arg-type]
    meta = replace(patch.metadata, facts=FactsMeta(len(facts), bytes_digest(text)))
    return Patch(meta, patch.factors, text)


@pytest.fixture
def two(base: Path) -> tuple[str, str]:
    """`a` with FACTS and `b` with another target for the second of them."""
    make_patch(base).write("a.patch.safetensors")
    other = with_facts(make_patch(base, seed=1), replace(FACTS[1], target="dollar", id="japan-2"))
    other.write("b.patch.safetensors")
    return "a.patch.safetensors", "b.patch.safetensors"


def test_a_product(check: Check, two: tuple[str, str]) -> None:
    made = Path("composed.patch.safetensors")
    ran = check(
        ["compose", *two],
        human=run("compose", *two).stdout,
        stderr=run("compose", *two, "--yes").stderr,
        json={
            "schema": "patchkit.compose/1",
            "ok": True,
            "path": "composed.patch.safetensors",
            "method": "product",
            "order": ["a", "b"],
            "facts": 2,
            "silent": [],
            "bound": 0.0,
        },
        quiet="composed.patch.safetensors",
        before=lambda: made.unlink(missing_ok=True),
    )
    patch = Patch.read(made)
    assert ran.data["digest"] == patch.digest
    assert ran.data["parents"] == [Patch.read(path).digest for path in two]
    assert [len(factors) for factors in patch.factors.values()] == [2]
    assert ran.data["conflicts"] == [
        {
            "subject": "Japan",
            "prompt": "The currency of {} is the",
            "targets": ["euro", "dollar"],
            "names": ["a", "b"],
        }
    ]
    assert ran.data["commutator"]["tensor"] == EDITED
    assert patch.facts_jsonl == to_jsonl(
        [FACTS[0], replace(FACTS[1], target="dollar", id="japan-2")]
    )


def test_what_a_person_sees(two: tuple[str, str]) -> None:
    ran = run("compose", *two, "-o", "world.patch.safetensors", "--compress")
    lines = ran.stdout.splitlines()
    assert lines[0] == "order  1 a   2 b   (first to last)"
    assert lines[1].startswith("✓ wrote world.patch.safetensors (")
    assert [line.split()[0] for line in lines[2:]] == [
        "digest", "tensors", "interaction", "compressed", "facts", "conflicts",
    ]  # fmt: skip
    assert "1 (1 edited by several patches)" in ran.stdout
    assert '"euro" in a, "dollar" in b; the later one wins' in ran.stdout
    assert ran.stderr.splitlines()[-1] == "hint: patchkit verify world.patch.safetensors"


def test_a_warning_says_where_order_matters(two: tuple[str, str]) -> None:
    ran = run("compose", *two, "--strength", "a=6", "--strength", "b=6")
    assert "order matters" in ran.stdout
    assert f"warning: the order of a and b matters on {EDITED}: it moves some input" in ran.stderr


def test_one_patch_keeps_its_bytes(two: tuple[str, str]) -> None:
    assert run("compose", two[0], "-o", "same.patch.safetensors").code == 0
    assert Path("same.patch.safetensors").read_bytes() == Path(two[0]).read_bytes()


def test_compress_states_its_error_in_the_patch(two: tuple[str, str]) -> None:
    data = run("compose", *two, "--tolerance", "0.001", "--json").data
    patch = Patch.read("composed.patch.safetensors")
    assert [len(factors) for factors in patch.factors.values()] == [1]
    assert patch.metadata.recipe["compressed"] == [{"tolerance": 0.001, "bound": data["bound"]}]
    assert 0.0 < data["bound"] < 0.0011


def test_a_strength_is_given_by_name_or_place(two: tuple[str, str]) -> None:
    by_name = run("compose", *two, "--strength", "b=0.5", "--json").data
    assert [leaf["strength"] for leaf in by_name["leaves"]] == [1.0, 0.5]
    by_place = run("compose", *two, "--strength", "2=0.5", "--json", "--yes").data
    assert by_place["digest"] == by_name["digest"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("c=1", "the patches are a, b"), ("3=1", "the patches are a, b"), ("a=half", "not a number")],
)
def test_a_bad_strength_is_a_usage_error(two: tuple[str, str], text: str, words: str) -> None:
    ran = run("compose", *two, "--strength", text)
    assert (ran.code, ran.stdout) == (2, "")
    assert words in " ".join(ran.stderr.replace("│", " ").split())


def test_files_of_one_name_are_told_apart(two: tuple[str, str]) -> None:
    Path("other").mkdir()
    again = Path("other", "a.patch.safetensors")
    again.write_bytes(Path(two[1]).read_bytes())
    data = run("compose", two[0], again, "--strength", "2=0.5", "--json").data
    assert data["order"] == ["a (1)", "a (2)"]
    assert [leaf["strength"] for leaf in data["leaves"]] == [1.0, 0.5]


def test_an_inverse_undoes(two: tuple[str, str]) -> None:
    assert run("compose", "--inverse", two[0], "-o", "undo.patch.safetensors").code == 0
    data = run("compose", two[0], "undo.patch.safetensors", "--compress", "--json").data
    assert [leaf["inverted"] for leaf in data["leaves"]] == [False, True]
    assert Patch.read("composed.patch.safetensors").factors == {}


@pytest.mark.parametrize("method", ["mean", "karcher"])
def test_a_mean_has_no_order(two: tuple[str, str], method: str) -> None:
    ran = run("compose", *two, "--method", method)
    assert ran.code == 0
    assert "order" not in ran.stdout
    assert "mean" in ran.stdout
    assert Patch.read("composed.patch.safetensors").metadata.method == method


def test_conflicts_can_be_an_error(two: tuple[str, str]) -> None:
    ran = run("compose", *two, "--on-conflict", "error")
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.splitlines()[:2] == [
        "error: the patches contradict each other in 1 fact",
        '  "The currency of Japan is the" has the target "euro" in a and "dollar" in b',
    ]
    assert not Path("composed.patch.safetensors").exists()


def test_another_base_is_refused(two: tuple[str, str], tmp_path: Path) -> None:
    save_tiny("llama2", tmp_path / "other", seed=1)
    make_patch(tmp_path / "other").write("z.patch.safetensors")
    refused = run("compose", two[0], "z.patch.safetensors", "--json")
    assert (refused.code, refused.stdout) == (1, "")
    assert refused.data["code"] == "base_mismatch"
    assert "a and z were made for different weights" in refused.data["message"]
    assert run("compose", two[0], "z.patch.safetensors", "--allow-other-base").code == 0


def test_a_predecessor_is_required(base: Path, two: tuple[str, str]) -> None:
    make_patch(base, after=[Patch.read(two[0]).digest]).write("late.patch.safetensors")
    refused = run("compose", two[1], "late.patch.safetensors")
    assert refused.code == 1
    assert "late was made on top of patch" in refused.stderr
    assert run("compose", two[0], "late.patch.safetensors").code == 0
    assert Patch.read("composed.patch.safetensors").metadata.after == ()


def test_an_existing_output_is_kept_unless_told(two: tuple[str, str]) -> None:
    Path("out").write_text("mine")
    refused = run("compose", *two, "-o", "out")
    assert refused.code == 1
    assert "--yes" in refused.stderr
    assert Path("out").read_text() == "mine"


def test_too_many_factors_for_a_file_name_the_option_that_helps(base: Path) -> None:
    patch = make_patch(base)
    many = {EDITED: patch.factors[EDITED] * 1200}
    tensor = patch.metadata.tensors[EDITED]
    meta = replace(patch.metadata, tensors={EDITED: replace(tensor, factors=tensor.factors * 1200)})
    Patch(meta, many, patch.facts_jsonl).write("many.patch.safetensors")
    pair = ["many.patch.safetensors", "many.patch.safetensors"]
    refused = run("compose", *pair)
    assert refused.code == 1
    assert "holds 4800 tensors and a patch file at most 4095" in refused.stderr
    assert "--compress" in refused.stderr


class TestRebuilding:
    """--drop and --replace edit again."""

    @pytest.fixture(autouse=True)
    def edited(self, base: Path, fast_recipe: None) -> None:
        Path("facts.jsonl").write_bytes(to_jsonl(FACTS))
        assert run("edit", "facts.jsonl", "--base", base, "--layers", "1").code == 0

    def test_without_a_fact_it_is_the_patch_that_never_had_it(self, base: Path) -> None:
        args = ["facts.patch.safetensors", "--drop", "japan", "--base", base, "--yes"]
        ran = run("compose", *args)
        assert ran.code == 0, ran.stderr
        assert ran.stdout.startswith("editing 1 fact again: one rotation writes all of them")
        made = Patch.read("composed.patch.safetensors")
        assert made.facts_jsonl == to_jsonl(FACTS[:1])
        Path("one.jsonl").write_bytes(to_jsonl(FACTS[:1]))
        assert run("edit", "one.jsonl", "--base", base, "--layers", "1").code == 0
        assert Patch.read("one.patch.safetensors").digest == made.digest

    def test_a_fact_is_replaced_by_its_correction(self, base: Path) -> None:
        new = replace(FACTS[1], target="dollar", id="another")
        Path("new.jsonl").write_bytes(to_jsonl([new]))
        args = ["facts.patch.safetensors", "--replace", "new.jsonl", "--base", base, "--json"]
        data = run("compose", *args).data
        assert data["facts"]["total"] == 2
        made = Patch.read("composed.patch.safetensors")
        assert made.facts_jsonl == to_jsonl([FACTS[0], new])

    def test_an_unknown_fact_is_an_error(self, base: Path) -> None:
        ran = run("compose", "facts.patch.safetensors", "--drop", "nobody", "--base", base)
        assert ran.code == 1
        assert "no fact has the id 'nobody'" in ran.stderr

    def test_a_patch_is_made_anew_for_another_base(self, tmp_path: Path) -> None:
        save_tiny("llama2", tmp_path / "next", seed=3)
        ran = run("edit", "facts.patch.safetensors", "--base", tmp_path / "next", "--json")
        assert ran.code == 0, ran.stderr
        old, new = Patch.read("facts.patch.safetensors"), Patch.read(ran.data["path"])
        assert ran.data["path"] == "facts-anew.patch.safetensors"
        assert new.metadata.recipe == old.metadata.recipe
        assert new.facts_jsonl == old.facts_jsonl
        assert new.metadata.base.config_digest == old.metadata.base.config_digest
        assert new.metadata.tensors != old.metadata.tensors
        assert [result["known"] for result in ran.data["results"]] == [False, False]
