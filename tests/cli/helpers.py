"""Running the command line in a test, and a small patch to run it on."""

import json as json_module
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

from patchkit.factors.rotation import Rotation
from patchkit.facts.fact import Fact, Probe
from patchkit.facts.reading import to_jsonl
from patchkit.patch.drafts import TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch, build_patch
from patchkit.tensors.checkpoint import Checkpoint
from patchkit_cli.main import app

EDITED = "model.layers.1.mlp.down_proj.weight"
FACTS = (
    Fact(
        "France",
        "The capital of {} is",
        "Rome",
        target_true="Paris",
        paraphrases=("The seat of government of {} is",),
        neighbors=(Probe("The capital of Italy is", "Rome"),),
        same_subject=(Probe("The currency of {} is the", "yen"),),
        id="france",
    ),
    Fact("Japan", "The currency of {} is the", "euro", id="japan"),
)

_VOLATILE = (
    (re.compile(r"\b\d+(\.\d)?s\b"), "0.0s"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<64 hex>"),
    (re.compile(r"\b[0-9a-f]{8}…"), "<8 hex>…"),
)


@dataclass(frozen=True)
class Ran:
    """What one run left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def data(self) -> dict[str, Any]:
        """The object printed with `--json`, wherever it went."""
        lines = [line for line in (self.stdout + self.stderr).splitlines() if line[:1] == "{"]
        assert len(lines) == 1, self
        data = json_module.loads(lines[0])
        assert isinstance(data, dict)
        return data


Check = Callable[..., Ran]


def run(*args: str | Path, env: Mapping[str, str] | None = None) -> Ran:
    """Run `patchkit` with these arguments, 80 columns wide."""
    clean = {"COLUMNS": "80", "NO_COLOR": "1", "PATCHKIT_NO_PROGRESS": "1"}
    result = CliRunner().invoke(app, [str(arg) for arg in args], env={**clean, **(env or {})})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def steady(text: str) -> str:
    """`text` with times and digests replaced, trailing space and outer blank lines dropped."""
    for pattern, replacement in _VOLATILE:
        text = pattern.sub(replacement, text)
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def make_patch(base: Path, *, seed: int = 0, **options: Any) -> Patch:
    """A small rotation of one matrix of `base`; `options` go to `build_patch`."""
    checkpoint = Checkpoint.open(base)
    info = checkpoint.tensor(EDITED).info
    random = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(info.shape[1], 2, generator=random) / 16 for _ in "xy")
    draft = TensorDraft(
        shape=(info.shape[0], info.shape[1]),
        dtype=info.dtype,
        layout="linear",
        base_sha256=checkpoint.digest(EDITED),
        factors=(Rotation("input", x, y),),
    )
    origin = BaseMeta(config_digest=checkpoint.config_digest)
    return build_patch(origin, {EDITED: draft}, to_jsonl(FACTS), {}, "rotation", {}, **options)
