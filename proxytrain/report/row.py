"""One run as the page shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from proxytrain.config.overrides import leaves
from proxytrain.model import accounting
from proxytrain.store.store import Store


@dataclass(frozen=True)
class Row:
    """One run, trained or not."""

    id: str
    width: int
    depth: int
    params: int  # without embedding and readout
    params_total: int
    tokens: int
    schedule: str
    lr: float
    batch_tokens: int
    init_seed: int
    data_seed: int
    flops: float
    status: str  # done | diverged | running | failed | waiting
    loss: float | None = None
    val_se: float | None = None
    bits_per_byte: float | None = None
    epochs: float | None = None
    seconds: float | None = None
    diverged_at: int | None = None
    why: str = ""
    other: tuple[tuple[str, str], ...] = ()  # what else differs between the runs of the sweep: key and value

    @property
    def final(self) -> float:
        """The final loss; NaN where there is none."""
        return float("nan") if self.loss is None else self.loss

    @property
    def seeds(self) -> str:
        return f"{self.init_seed}" if self.init_seed == self.data_seed else f"{self.init_seed}/{self.data_seed}"


def row_of(
    record: dict[str, Any], store: Store, state: dict[str, Any] | None = None, varied: Iterable[str] = ()
) -> Row:
    """A run of a plan, with its outcome; `state` as `status` says it, `varied` the keys that go into `other`."""
    c, state = record["config"], state or {}
    result = store.result(record["id"]) or {}
    settings = dict(leaves(c))
    return Row(
        id=record["id"],
        width=c["model"]["width"],
        depth=c["model"]["depth"],
        params=accounting.non_embedding(record["params"]),
        params_total=sum(record["params"].values()),
        tokens=record["tokens"],
        schedule=record["schedule"],
        lr=record["lr"],
        batch_tokens=c["batch_tokens"],
        init_seed=c["init_seed"],
        data_seed=c["data_seed"],
        flops=record["flops"],
        status=result.get("status") or state.get("state", "waiting"),
        loss=result.get("final_loss"),
        val_se=result.get("val_se"),
        bits_per_byte=result.get("bits_per_byte"),
        epochs=result.get("epochs"),
        seconds=result.get("seconds"),
        diverged_at=result.get("diverged_at"),
        why=state.get("why", ""),
        other=tuple((key, str(settings[key])) for key in varied if settings.get(key) is not None),
    )
