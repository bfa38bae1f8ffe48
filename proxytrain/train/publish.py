"""From a finished stretch of training to the store: segments with their curves and states, results of runs."""

from __future__ import annotations

import math
import platform
from collections.abc import Collection
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from proxytrain.corpus import Corpus, Stream
from proxytrain.model.layout import layout
from proxytrain.plan.pack import Member
from proxytrain.plan.runs import NUMERICS_VERSION, canonical
from proxytrain.plan.share import Node
from proxytrain.store.files import publishing, read_state, write_json, write_state
from proxytrain.store.store import Key, Store
from proxytrain.train import evaluate, telemetry
from proxytrain.train.export import write_weights
from proxytrain.train.members import Active, sound
from proxytrain.train.trace import SAMPLED, UPDATES


class Broken(Exception):
    """A state that training starts from is not whole."""


class Publisher:
    """Writes what a pack has trained; reads the states that it starts from."""

    def __init__(
        self,
        store: Store,
        corpus: Corpus,
        runs: dict[str, dict],
        device: torch.device,
        how: dict[str, int],
        keep_weights: str,
    ):
        self.store, self.corpus, self.runs, self.device, self.how = store, corpus, runs, device, how
        self.keep_weights = keep_weights

    def segment(self, key: Key) -> dict[str, Any]:
        """`segment.json` of a published segment."""
        meta = self.store.meta(key)
        if meta is None:
            raise FileNotFoundError(f"{self.store.segment(key)}: not published")
        return meta

    def state(self, key: Key) -> np.ndarray:
        """Weights and moments (3, P) at a node.

        Raises
        ------
        Broken
            If the file is not whole; it is removed, so that it is made again.
        """
        path = self.store.segment(key) / "state.npy"
        try:
            return read_state(path)
        except FileNotFoundError:
            raise Broken(f"{path}: the state is gone; it is made again") from None
        except ValueError as error:
            path.unlink(missing_ok=True)
            raise Broken(f"{path}: {error}; it is removed and made again") from None

    def first_missing(self, member: Member, wanted: Collection[Key]) -> int | None:
        """Which node of a member is to be trained first; None where all is published, with the states `wanted`."""
        first: int | None = 0
        done = True
        for i, node in enumerate(member.nodes):
            here = self.store.published(node.key)
            kept = here and (self.store.has_state(node.key) or self.segment(node.key)["status"] == "diverged")
            done = done and here and (node.run_id is None or self.store.has_result(node.run_id))
            if not done:
                return first
            if kept:
                first = i + 1
            elif node.key in wanted:
                return first
        return None

    def keeps(self, node: Node) -> bool:
        """Whether anything of the weights at a node is kept: to go on from there, or because a run ends there."""
        return node.open or (node.run_id is not None and self.keep_weights != "none")

    def segment_done(self, a: Active, state: np.ndarray | None, losses: np.ndarray | None) -> None:
        """Publish the segment that ends where the member stands, and the run that ends there.

        Parameters
        ----------
        state : weights and moments (3, P), where `keeps` asks for them
        losses : of every sequence of the validation set (S,) where a run ends, else None
        """
        if a.goal.parent != a.goal.key:  # else it was there, and only the run's result was missing
            whole = a.goal.open or self.keep_weights == "all"
            self._publish(a, a.rows(), state if whole else None, {"status": "done"})
        if losses is not None:
            loss, se = evaluate.summary(losses)
            if not sound(np.array(loss), np.array(0.0), a.member.recipe.vocab):
                self._result(a.goal, {"status": "diverged", "diverged_at": a.position, "final_loss": None})
                return
            per_byte = self.corpus.manifest.bytes_per_token
            bits = loss / math.log(2) / per_byte if per_byte else None
            outcome = {"status": "done", "final_loss": loss, "val_se": se, "bits_per_byte": bits}
            self._result(a.goal, outcome, state[0] if state is not None and self.keep_weights != "none" else None)

    def diverged(self, a: Active, at: int | None = None) -> None:
        """Publish what there is of a member that diverged (before it began: after `at` tokens), and all later nodes."""
        rows = a.rows()
        good = sound(rows["loss"], rows["grad_norm"], a.member.recipe.vocab)
        n = len(good) if good.all() else int(np.argmin(good))
        if at is None:
            at = int(rows["tokens"][n - 1]) if n else a.goal.start
        for name in UPDATES:
            rows[name] = rows[name][:n]
        for where, what in (("eval_tokens", "eval_loss"), SAMPLED):
            kept = rows[where] <= at
            rows[where], rows[what] = rows[where][kept], rows[what][kept]
        while True:
            self._publish(a, rows, None, {"status": "diverged", "diverged_at": at})
            if a.goal.run_id:
                self._result(a.goal, {"status": "diverged", "diverged_at": at, "final_loss": None})
            if a.node + 1 == len(a.member.nodes):
                return
            a.node += 1
            a.clear()
            rows = a.rows()

    def _publish(self, a: Active, rows: dict[str, np.ndarray], state: np.ndarray | None, status: dict) -> None:
        node = a.goal
        before = self.segment(node.parent)["path_seconds"] if node.parent else 0.0
        with publishing(self.store.inside(self.store.segment(node.key)), "segment.json") as folder:
            np.savez(folder / "curve.npz", **rows)  # type: ignore[arg-type]
            if state is not None:
                write_state(folder / "state.npy", state)
            meta = {
                "lineage": node.lineage,
                "end": node.end,
                "parent": node.parent,
                "recipe": node.recipe.id,
                "lr": node.lr,
                "phases": canonical(node.phases),
                **status,
                "telemetry": telemetry.columns(node.recipe),
                "seconds": a.seconds,
                "path_seconds": before + a.seconds,
                **self.how,
                **self._environment,
            }
            write_json(folder / "segment.json", meta)

    def _result(self, node: Node, outcome: dict[str, Any], weights: np.ndarray | None = None) -> None:
        assert node.run_id
        record = self.runs[node.run_id]
        recipe = node.recipe
        with publishing(self.store.inside(self.store.run(node.run_id)), "result.json") as folder:
            from omegaconf import OmegaConf

            (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(record["config"])))
            result = {
                "id": node.run_id,
                **outcome,
                "params": record["params"],
                "tokens": node.end,
                "flops": record["flops"],
                "schedule": record["schedule"],
                "lr": node.lr,
                "epochs": Stream(self.corpus.train, recipe.model.context, recipe.data_seed).epochs(node.end),
                "seconds": self.segment(node.key)["path_seconds"],
                "lineage": node.lineage,
                "end": node.end,
                "recipe_id": recipe.id,
                "recipe": canonical(recipe),
                **self._environment,
            }
            if weights is not None:
                about = {"run": node.run_id, "recipe": canonical(recipe), "tokens": str(node.end)}
                write_weights(folder / "weights.safetensors", weights, layout(recipe.model, recipe.vocab), about)
            write_json(folder / "result.json", result)

    @cached_property
    def _environment(self) -> dict[str, Any]:
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        return {
            "numerics_version": NUMERICS_VERSION,
            "device": gpu or f"cpu, {torch.get_num_threads()} thread(s), {platform.machine()}",
            "versions": {
                "proxytrain": version("proxytrain"),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }
