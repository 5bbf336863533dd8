"""Train atlas from scratch: `python -m benchmarks.atlas.train --data DIR --out DIR --minutes M`.

With `--steps` instead of `--minutes` the schedule goes by steps, so that the seed decides the
weights (on one machine with one number of threads) however fast the machine is at the time.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.atlas import world
from benchmarks.atlas.batches import PieceTable, Rows, batches
from benchmarks.atlas.model import make_model, save
from benchmarks.atlas.optimise import Draws, loss_of, make_optimizers, schedule
from benchmarks.atlas.prose import load_texts, snippets, split_texts
from benchmarks.atlas.readout import Readout
from benchmarks.atlas.tokenizer import train_tokenizer


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run depends on besides the texts."""

    minutes: float
    steps: int
    rows: int
    adam_lr: float
    muon_lr: float
    width: int
    mlp: int
    layers: int
    seed: int
    snapshot_minutes: float
    device: str


def make_tokenizer(texts: list[str], seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer on two wordings of every fact and a part of the prose."""
    rng = np.random.default_rng(seed)
    said = [world.sentence(f, int(w)) for f in world.load_facts() for w in rng.integers(0, 5, 2)]
    return train_tokenizer(said + [text[:1_000_000] for text in texts])


class Run:
    """One training run that can be taken up again from `state.pt` in its folder."""

    def __init__(self, settings: Settings, data: Path, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.texts, _ = split_texts(load_texts(data))
        self.tokenizer = make_tokenizer(self.texts, settings.seed)
        self.model = make_model(settings.width, settings.mlp, settings.layers, settings.seed)
        self.model.to(settings.device)  # type: ignore[arg-type]
        self.readout = Readout(self.tokenizer, settings.width).to(settings.device)
        self.optimizers = make_optimizers(
            self.model, self.readout, settings.muon_lr, settings.adam_lr
        )
        chance = torch.Generator().manual_seed(settings.seed)
        self.draws = Draws(chance, random.Random(settings.seed))
        self.step, self.used, self.said = 0, 0.0, 0
        if (folder / "state.pt").exists():
            self._take_up(torch.load(folder / "state.pt", weights_only=True))

    def _take_up(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.readout.load_state_dict(state["readout"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.used, self.said = state["step"], state["used"], state["said"]

    def _keep(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "readout": self.readout.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "used": self.used,
            "said": self.said,
        }
        torch.save(state, self.folder / "state.tmp")
        os.replace(self.folder / "state.tmp", self.folder / "state.pt")
        save(self.model, self.tokenizer, self.folder / "snap")

    def _stream(self) -> Iterator[Rows]:
        pieces = snippets(self.texts)
        table = PieceTable(self.tokenizer, pieces)
        whole = self.tokenizer(" ".join(self.texts), add_special_tokens=False)["input_ids"]
        # A run taken up again goes on with fresh documents, not with the ones it began with.
        seed = self.settings.seed + self.step
        prose = np.array(whole, np.int32)
        return batches(table, prose, pieces, self.settings.rows, seed)

    def _done(self) -> float:
        if self.settings.steps:
            return self.step / self.settings.steps
        return self.used / (self.settings.minutes * 60)

    def _learn(self, rows: Rows) -> float:
        factor = schedule(self._done())
        for optimizer, peak in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
        loss = loss_of(self.model, self.readout, rows.to(self.settings.device), self.draws)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    def train(self) -> None:
        """Train to the end of the budget; each row of the log says step, seconds, loss, passes."""
        facts = len(world.load_facts())
        last, kept, mean = time.monotonic(), self.used, 0.0
        with open(self.folder / "log.csv", "a", newline="") as file:
            log = csv.writer(file)
            for rows in self._stream():
                loss = self._learn(rows)
                now = time.monotonic()
                self.used, last = self.used + now - last, now
                self.step, self.said = self.step + 1, self.said + rows.facts_said
                mean = 0.95 * mean + 0.05 * loss if mean else loss
                ended = self._done() >= 1
                if self.step % 25 == 0 or ended:
                    passes = self.said / facts
                    log.writerow([self.step, f"{self.used:.1f}", f"{mean:.4f}", f"{passes:.2f}"])
                    file.flush()
                if self.used - kept > self.settings.snapshot_minutes * 60:
                    kept = self.used
                    self._keep()
                if ended:
                    break
        self._keep()


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    data, out = "folder that holds text/*.txt", "folder for the log, the state and snap/"
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help=data)
    parser.add_argument("--out", type=Path, required=True, help=out)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--steps", type=int, default=0, help="instead of --minutes")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--muon-lr", type=float, default=5e-3)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--mlp", type=int, default=3072)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--snapshot-minutes", type=float, default=8.0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = Settings.__dataclass_fields__
    settings = Settings(**{key: value for key, value in vars(args).items() if key in names})
    Run(settings, args.data, args.out).train()


if __name__ == "__main__":
    main()
