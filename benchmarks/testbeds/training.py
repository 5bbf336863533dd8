"""One training run on facts and prose, that can be taken up again from its folder."""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.testbeds.batches import PieceTable, Rows, batches
from benchmarks.testbeds.clozes import ask, of_fact
from benchmarks.testbeds.model import make_model, save
from benchmarks.testbeds.optimise import Draws, loss_of, make_optimizers, schedule
from benchmarks.testbeds.prose import snippets
from benchmarks.testbeds.readout import Readout
from benchmarks.testbeds.world import World

PROBES: Final = 400


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run depends on besides its world, its tokenizer and its texts."""

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
    stop_recall: float
    device: str

    @classmethod
    def of(cls, args: argparse.Namespace) -> Self:
        """Return the settings among the parsed options."""
        return cls(**{name: getattr(args, name) for name in cls.__dataclass_fields__})


def add_options(parser: argparse.ArgumentParser, **defaults: object) -> None:
    """Add the options of every test bed's training to a parser."""
    data, out = "folder of the data files", "folder for the log, the state and snap/"
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
    stop = "end at a snapshot with this recall in wordings never shown for their subjects"
    parser.add_argument("--stop-recall", type=float, default=2.0, help=stop)
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(**defaults)


class Run:
    """One training run; `state.pt` in its folder is where it goes on."""

    def __init__(
        self,
        settings: Settings,
        world: World,
        tokenizer: PreTrainedTokenizerFast,
        texts: list[str],
        folder: Path,
    ) -> None:
        self.settings, self.world, self.folder = settings, world, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer, self.texts = tokenizer, texts
        sizes = settings.width, settings.mlp, settings.layers
        self.model = make_model(tokenizer, *sizes, settings.seed)
        self.model.to(settings.device)  # type: ignore[arg-type]
        self.readout = Readout(world, tokenizer, settings.width).to(settings.device)
        self.optimizers = make_optimizers(
            self.model, self.readout, settings.muon_lr, settings.adam_lr
        )
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

    def _forget_later_rows(self) -> None:
        """Drop what an interrupted run logged behind its last state: it will be logged again."""
        path = self.folder / "log.csv"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(line for line in lines if int(line.split(",")[0]) <= self.step))

    def _stream(self) -> Iterator[Rows]:
        table = PieceTable(self.world, self.tokenizer, snippets(self.texts))
        encode = self.tokenizer.backend_tokenizer.encode
        prose = np.array(encode(" ".join(self.texts), add_special_tokens=False).ids, np.int32)
        rows = batches(table, prose, self.settings.rows, self.settings.seed)
        return itertools.islice(rows, self.step, None)

    def _draws(self) -> Draws:
        """Return the chance of this step, the same in a run that was taken up again."""
        seed = 1_000_003 * self.settings.seed + self.step
        return Draws(torch.Generator().manual_seed(seed), random.Random(seed))

    def _done(self) -> float:
        if self.settings.steps:
            return self.step / self.settings.steps
        return self.used / (self.settings.minutes * 60)

    def _learn(self, rows: Rows) -> float:
        factor = schedule(self._done())
        for optimizer, peak in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
        loss = loss_of(self.model, self.readout, rows.to(self.settings.device), self._draws())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    def _withheld_recall(self) -> float:
        """Return the recall on some facts, in wordings that training never shows for them."""
        pairs = [(f, w) for f in self.world.facts for w in self.world.withheld_wordings(f)]
        chosen = random.Random(self.settings.seed).sample(pairs, min(PROBES, len(pairs)))
        clozes = [of_fact(self.world, fact, wording) for fact, wording in chosen]
        return ask(self.model, self.tokenizer, clozes).right.float().mean().item()

    def train(self) -> None:
        """Train to the end of the budget, or to the recall wanted.

        Each row of `log.csv` says step, seconds, loss, passes over the facts and, at snapshots, the
        recall in withheld wordings.
        """
        self._forget_later_rows()
        last, kept, mean = time.monotonic(), self.used, 0.0
        with open(self.folder / "log.csv", "a", newline="") as file:
            log = csv.writer(file)
            for rows in self._stream():
                loss = self._learn(rows)
                now = time.monotonic()
                self.used, last = self.used + now - last, now
                self.step, self.said = self.step + 1, self.said + rows.facts_said
                mean = 0.95 * mean + 0.05 * loss if mean else loss
                ended, recall = self._done() >= 1, ""
                if self.used - kept > self.settings.snapshot_minutes * 60:
                    kept = self.used
                    self._keep()
                    reached = self._withheld_recall()
                    ended, recall = ended or reached >= self.settings.stop_recall, f"{reached:.4f}"
                if self.step % 25 == 0 or ended or recall:
                    passes = self.said / len(self.world.facts)
                    row = [self.step, f"{self.used:.1f}", f"{mean:.4f}", f"{passes:.2f}", recall]
                    log.writerow(row)
                    file.flush()
                if ended:
                    break
        self._keep()
