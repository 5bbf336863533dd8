"""What a patch does to its matrices, against the dense definition."""

from pathlib import Path

import pytest
import torch

from patchkit.bench.spectra import TOP, spectra
from patchkit.editing import edit
from patchkit.factors.action import dense
from patchkit.tensors.layout import locate
from tests.unit.editing.samples import FACTS, QUICK, loaded, tuned


def test_a_rotation_keeps_norm_and_condition_and_turns_the_top(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    patch = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK).patch
    found = spectra(model, patch)
    [(name, site)] = locate(model, patch.factors).items()
    base = model.get_submodule(site.module).weight.double()
    product = dense(base, patch.factors[name], site.layout)
    assert abs(found.norm_ratio - 1) < 1e-12
    assert abs(found.condition_ratio - 1) < 1e-9
    assert abs(found.stored_norm_ratio - 1) < 1e-6
    before, after = (torch.linalg.svd(m, full_matrices=False)[2][:TOP] for m in (base, product))
    overlap = (torch.linalg.matrix_norm(before @ after.T) ** 2 / TOP).item()
    assert found.top_overlap == pytest.approx(overlap)
    assert 0 < overlap < 1
    assert found.orthogonality is not None
    assert found.orthogonality < 1e-12
    angles = patch.factors[name][0].angles()  # type: ignore[union-attr]
    assert found.angles[0] == pytest.approx(float(angles.min()))
    assert found.angles[-1] == pytest.approx(float(angles.max()))


def test_a_sum_has_a_norm_of_its_own_and_no_angles(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    recipe = tuned(
        type(QUICK)(method="memit", contexts=1, corpus_rows=16, corpus_length=12), lam=1.0
    )
    patch = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=recipe).patch
    found = spectra(model, patch)
    [(name, site)] = locate(model, patch.factors).items()
    base = model.get_submodule(site.module).weight.double()
    product = dense(base, patch.factors[name], site.layout)
    assert found.norm_ratio == pytest.approx(float(product.norm() / base.norm()), rel=1e-12)
    assert abs(found.norm_ratio - 1) > 1e-6
    assert (found.angles, found.orthogonality) == ((), None)
