"""From finished training to the store: segments with their curves and states, results of runs."""

from __future__ import annotations

import math
import platform
from collections.abc import Collection, Mapping
from functools import cached_property
from importlib.metadata import version

import numpy as np
import torch
from msgspec.structs import asdict

from proxytrain.arrays import Array
from proxytrain.config.recipe import NUMERICS_VERSION, canonical
from proxytrain.corpus import Corpus, Stream
from proxytrain.files.atomic import publishing, read_state, write_state
from proxytrain.files.documents import write_document
from proxytrain.model.layout import layout
from proxytrain.plan.pack import Member
from proxytrain.plan.share import Segment
from proxytrain.store.documents import Environment, How, Key, RunRecord, RunResult, SegmentMeta
from proxytrain.store.store import Store
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
        runs: Mapping[str, RunRecord],
        device: torch.device,
        how: How,
        keep_weights: str,
    ):
        self.store, self.corpus, self.runs, self.device, self.how = store, corpus, runs, device, how
        self.keep_weights = keep_weights

    def meta(self, key: Key) -> SegmentMeta:
        """Return what a published segment is."""
        meta = self.store.meta(key)
        if meta is None:
            raise FileNotFoundError(f"{self.store.segment(key)}: not published")
        return meta

    def state(self, key: Key) -> Array:
        """Return weights and moments (3, P) at the end of a segment.

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
        """Return the index of a member's first segment to train; None: all is published, with the states `wanted`."""
        first: int | None = 0
        done = True
        for i, segment in enumerate(member.segments):
            here = self.store.published(segment.key)
            kept = here and (self.store.has_state(segment.key) or self.meta(segment.key).status == "diverged")
            done = done and here and (segment.run_id is None or self.store.has_result(segment.run_id))
            if not done:
                return first
            if kept:
                first = i + 1
            elif segment.key in wanted:
                return first
        return None

    def keeps(self, segment: Segment) -> bool:
        """Return whether weights are kept at the end of a segment: to go on from there, or because a run ends there."""
        return segment.open or (segment.run_id is not None and self.keep_weights != "none")

    def segment_done(self, a: Active, state: Array | None, losses: Array | None) -> None:
        """Publish the segment that ends where the member stands, and the run that ends there.

        Parameters
        ----------
        state : weights and moments (3, P), where `keeps` asks for them
        losses : of every sequence of the validation set (S,) where a run ends, else None
        """
        if a.goal.parent != a.goal.key:  # else it was there, and only the run's result was missing
            whole = a.goal.open or self.keep_weights == "all"
            self._publish(a, a.rows(), state if whole else None)
        if losses is not None:
            loss, se = evaluate.summary(losses)
            if not sound(np.array(loss), np.array(0.0), a.member.recipe.vocab):
                self._result(a.goal, diverged_at=a.position)
            else:
                weights = state[0] if state is not None and self.keep_weights != "none" else None
                self._result(a.goal, loss=loss, se=se, weights=weights)

    def diverged(self, a: Active, at: int | None = None) -> None:
        """Publish what there is of a member that diverged (after `at` tokens, if before it began), and all after it."""
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
            self._publish(a, rows, None, diverged_at=at)
            if a.goal.run_id:
                self._result(a.goal, diverged_at=at)
            if a.at + 1 == len(a.member.segments):
                return
            a.at += 1
            a.clear()
            rows = a.rows()

    def _publish(
        self, a: Active, rows: dict[str, Array], state: Array | None, *, diverged_at: int | None = None
    ) -> None:
        segment = a.goal
        before = self.meta(segment.parent).path_seconds if segment.parent else 0.0
        with publishing(self.store.inside(self.store.segment(segment.key)), "segment.json") as folder:
            np.savez(folder / "curve.npz", **rows)  # type: ignore[arg-type]
            if state is not None:
                write_state(folder / "state.npy", state)
            meta = SegmentMeta(
                lineage=segment.lineage,
                end=segment.end,
                parent=segment.parent,
                recipe=segment.recipe.id,
                phases=segment.phases,
                status="done" if diverged_at is None else "diverged",
                diverged_at=diverged_at,
                telemetry=tuple(telemetry.columns(segment.recipe)),
                seconds=a.seconds,
                path_seconds=before + a.seconds,
                **asdict(self.how),
                **asdict(self._environment),
            )
            write_document(folder / "segment.json", meta)

    def _result(
        self,
        segment: Segment,
        *,
        loss: float | None = None,
        se: float | None = None,
        diverged_at: int | None = None,
        weights: Array | None = None,
    ) -> None:
        assert segment.run_id
        record = self.runs[segment.run_id]
        recipe = segment.recipe
        with publishing(self.store.inside(self.store.run(segment.run_id)), "result.json") as folder:
            from omegaconf import OmegaConf

            (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(canonical(record.config))))
            per_byte = self.corpus.manifest.bytes_per_token
            result = RunResult(
                id=segment.run_id,
                status="done" if diverged_at is None else "diverged",
                diverged_at=diverged_at,
                final_loss=loss,
                val_se=se,
                bits_per_byte=loss / math.log(2) / per_byte if loss and per_byte else None,
                params=record.params,
                tokens=segment.end,
                flops=record.flops,
                schedule=record.schedule,
                lr=segment.lr,
                epochs=Stream(self.corpus.train, recipe.model.context, recipe.data_seed).epochs(segment.end),
                seconds=self.meta(segment.key).path_seconds,
                lineage=segment.lineage,
                end=segment.end,
                recipe_id=recipe.id,
                recipe=recipe,
                **asdict(self._environment),
            )
            if weights is not None:
                about = {"run": segment.run_id, "recipe": canonical(recipe), "tokens": str(segment.end)}
                write_weights(folder / "weights.safetensors", weights, layout(recipe.model, recipe.vocab), about)
            write_document(folder / "result.json", result)

    @cached_property
    def _environment(self) -> Environment:
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        return Environment(
            numerics_version=NUMERICS_VERSION,
            device=gpu or f"cpu, {torch.get_num_threads()} thread(s), {platform.machine()}",
            versions={
                "proxytrain": version("proxytrain"),
                "torch": str(torch.__version__),
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        )
