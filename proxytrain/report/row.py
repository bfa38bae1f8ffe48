"""One run as the page shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proxytrain.monitor.progress import RunState
from proxytrain.store.documents import RunRecord
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


def row_of(record: RunRecord, store: Store, state: RunState | None = None, varied: Iterable[str] = ()) -> Row:
    """Return a run of a plan, with its outcome.

    Parameters
    ----------
    state : of a run that has no result, as the plan's progress has it
    varied : keys of the configuration that go into `other`
    """
    c, result = record.config, store.result(record.id)
    return Row(
        id=record.id,
        width=c.model.width,
        depth=c.model.depth,
        params=record.params.non_embedding,
        params_total=record.params.total,
        tokens=record.tokens,
        schedule=record.schedule,
        lr=c.lr,
        batch_tokens=c.batch_tokens,
        init_seed=c.init_seed,
        data_seed=c.data_seed,
        flops=record.flops,
        status=result.status if result else state.state if state else "waiting",
        loss=result.final_loss if result else None,
        val_se=result.val_se if result else None,
        bits_per_byte=result.bits_per_byte if result else None,
        epochs=result.epochs if result else None,
        seconds=result.seconds if result else None,
        diverged_at=result.diverged_at if result else None,
        why=state.why if state else "",
        other=tuple((k, str(record.settings[k])) for k in varied if record.settings.get(k) is not None),
    )
