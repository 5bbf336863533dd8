"""General ability by tasks of lm-evaluation-harness, defined in local YAML files.

Only the files that are named are read: the harness's own tasks, which fetch data sets, are left
out. A task file is trusted as a program is, for it may name Python functions beside it.
"""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from patchkit.errors import ExtraMissing, TaskError
from patchkit.events import SILENT, Progress, phase

TaskFigures = Mapping[str, Mapping[str, float]]
"""Figures by task and by the harness's name of the metric, such as `acc` or `exact_match`."""


def run_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    files: Sequence[str | Path],
    *,
    batch_size: int = 16,
    seed: int = 0,
    progress: Progress = SILENT,
    name: str = "tasks",
) -> TaskFigures:
    """Run the tasks of YAML files on a model in memory.

    Raises ExtraMissing without the harness, TaskError for a file that it cannot run.
    """
    task_module = _harness()
    figures: dict[str, Mapping[str, float]] = {}
    with phase(progress, name, len(files), "tasks") as advance, _quiet(task_module), _own_random():
        lm = _language_model(model, tokenizer, batch_size)
        for file in map(Path, files):
            figures |= _run(lm, file, seed)
            advance(1)
    return figures


def _harness() -> ModuleType:
    """The harness's module of tasks; ExtraMissing where it is not installed."""
    try:
        import lm_eval.api.task
        import lm_eval.models.huggingface
    except ImportError as error:
        raise ExtraMissing(
            f"tasks need lm-evaluation-harness: {error}",
            hint="pip install 'patchkit-lm[tasks]'",
        ) from error
    return lm_eval.api.task  # type: ignore[no-any-return]


def _language_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> Any:
    """The harness's view of a model in memory, without progress bars."""
    from lm_eval.models.huggingface import HFLM

    class Silent(HFLM):  # type: ignore[misc]
        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().generate_until(requests, disable_tqdm=True)

    # It sets a padding token on the tokenizer that it is given.
    own = copy.deepcopy(tokenizer)
    return Silent(pretrained=model, tokenizer=own, backend="causal", batch_size=batch_size)


def _run(lm: Any, file: Path, seed: int) -> dict[str, Mapping[str, float]]:
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    if not file.is_file():
        raise TaskError(f"there is no task file {file}")
    try:
        manager = TaskManager(include_path=str(file.parent), include_defaults=False)
        loaded = manager.load([str(file)])
        for task in loaded["tasks"].values():
            task.set_fewshot_seed(seed=seed)
        found = evaluate(lm, loaded, log_samples=False, bootstrap_iters=0)
    except Exception as error:  # whatever a task's own files and functions raise
        raise TaskError(
            f"{file} could not be run: {type(error).__name__}: {error}",
            hint="lm_eval validate checks a task file; paths in it are relative to where you are",
        ) from error
    return {task: _figures(values) for task, values in found["results"].items()}


def _figures(values: Mapping[str, object]) -> Mapping[str, float]:
    """The numbers of one task, its standard errors apart; the filter `none` is not named."""
    return {
        key.removesuffix(",none"): float(value)
        for key, value in values.items()
        if "," in key and "_stderr" not in key and isinstance(value, int | float)
    }


@contextmanager
def _own_random() -> Iterator[None]:
    """Give the generators back as they were: the harness and its tasks draw from all of them."""
    plain, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(array)


@contextmanager
def _quiet(task_module: ModuleType) -> Iterator[None]:
    """Keep the bars and log lines of the harness and of `datasets` off the terminal."""
    import datasets

    logger = logging.getLogger("lm_eval")
    level, bar = logger.level, task_module.tqdm
    bars = datasets.utils.logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    task_module.tqdm = lambda items, **_: items  # type: ignore[attr-defined]
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        task_module.tqdm = bar  # type: ignore[attr-defined]
        if bars:
            datasets.enable_progress_bars()
