"""A benchmark and two edits, by as many processes as there are: `together.py FOLDER OUT`.

The first process writes what the edited matrices and the answers are into OUT.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed

from patchkit.bench import Setting, run_plan
from patchkit.bench.bed import Bed
from patchkit.bench.plan import runs
from patchkit.editing import edit_sequence
from patchkit.factors.action import dense
from patchkit.parallel import Workers
from tests.unit.bench.beds import MEMIT, ROTATION, plan


def results(folder: Path, out: Path, workers: Workers) -> dict[str, Tensor]:
    """The changes of the matrix by method; the rows of the benchmark are in `out`."""
    wanted = plan(folder, ROTATION, MEMIT, checkpoints=(5,))
    run_plan(wanted, Setting(data=folder, folder=out, workers=workers))
    bed = Bed.load(wanted.testbeds[0], "test", folder, "cpu", "auto")
    found = {}
    for run in runs(wanted):
        [stage] = edit_sequence(
            bed.model, bed.tokenizer, bed.draw(0, 5), [5],
            checkpoint=bed.checkpoint, recipe=run.recipe, workers=workers,
        )  # fmt: skip
        [(name, factors)] = stage.patch.factors.items()
        weight = bed.model.get_parameter(name).detach()
        found[run.label] = dense(weight, factors, "linear") - weight
    return found


def main() -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    workers = Workers.of_group()
    found = results(Path(sys.argv[1]), Path(sys.argv[2]), workers)
    if workers.first:
        save_file(found, Path(sys.argv[2]) / "changes.safetensors")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
