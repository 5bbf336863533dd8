"""The recipes that come with the package, and what each method's settings refuse."""

import re
from pathlib import Path

import pytest

from patchkit.editing.methods import METHODS, find_method
from patchkit.editing.protect import NAMES
from patchkit.editing.recipe import Recipe, built_in_recipes, read_recipe, recipe_from
from patchkit.errors import RecipeError

FOLDER = Path(__file__).parents[3] / "patchkit" / "editing" / "recipes"


@pytest.mark.parametrize("name", built_in_recipes())
def test_a_built_in_recipe_can_be_read_and_kept(name: str) -> None:
    recipe = read_recipe(name)
    assert name.startswith(recipe.method)
    assert recipe.layers
    assert recipe_from(recipe.as_dict()) == recipe


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_number_of_a_built_in_recipe_has_a_source(path: Path) -> None:
    numbers = [
        line for line in path.read_text("utf-8").splitlines() if re.search(r"= [\[\d]", line)
    ]
    assert numbers
    assert [line for line in numbers if "#" not in line] == []


def test_each_family_has_the_methods_that_were_published_for_it() -> None:
    for family in ("gpt2-xl", "gpt-j", "llama3-8b", "qwen2.5-7b"):
        for method in ("rome", "memit", "alphaedit", "rect", "prune"):
            assert f"{method}-{family}" in built_in_recipes()


def test_a_recipe_that_is_nowhere_is_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"memit-llama3-9b cannot be read") as caught:
        read_recipe("memit-llama3-9b")
    assert "memit-llama3-8b" in str(caught.value.hint)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_defaults_and_an_answer_for_every_protection(name: str) -> None:
    method = find_method(name)
    recipe = Recipe(method=name)
    assert recipe.options == method.Options()
    assert set(method.PROTECTIONS) <= set(NAMES)
    for protection in NAMES:
        reason = method.PROTECTIONS.get(protection, "not defined")
        if reason is None:
            assert Recipe(method=name, protect=(protection,)).protect == (protection,)
        else:
            with pytest.raises(RecipeError, match=f"{name} does not take the protection"):
                Recipe(method=name, protect=(protection,))


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("memit", {"lam": 0.0}, "lam"),
        ("memit", {"steps": 0}, "steps"),
        ("emmet", {"mu": -1.0}, "mu"),
        ("rome", {"variant": "q-rome"}, "variant"),
        ("alphaedit", {"l2": 0.0}, "l2"),
        ("rect", {"keep": 1.5}, "keep"),
        ("rect", {"host": "rome"}, "host"),
        ("rect", {"host_options": {"lamb": 1.0}}, "options of memit has the unknown"),
        ("rect", {"host_options": 3}, "settings of memit"),
        ("prune", {"base": 1.0}, "base"),
        ("prune", {"host": "rect"}, "host"),
    ],
)
def test_a_method_refuses_what_it_cannot_use(
    method: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        Recipe(method=method, options=options)


def test_a_host_decides_on_protections_too() -> None:
    assert Recipe(method="prune", protect=("history",)).protect == ("history",)
    with pytest.raises(RecipeError, match="prune over rome does not take the protection history"):
        Recipe(method="prune", options={"host": "rome"}, protect=("history",))


def test_options_of_another_method_are_refused() -> None:
    with pytest.raises(RecipeError, match="options of memit cannot be"):
        Recipe(method="memit", options=Recipe().options)
    with pytest.raises(RecipeError, match="energy"):
        recipe_from({"protection": {"energy": 1.0}})
