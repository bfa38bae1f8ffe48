"""What trained runs have to say: their table and curves for a fit, the target as a fit takes it, and what no law tells.

Nothing is fitted and nothing is written here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.config.schedule import learning_rates
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import Curve
from proxytrain.fit.curves.jumps import jump
from proxytrain.plan.runs import Run
from proxytrain.store.documents import RunRecord, RunResult
from proxytrain.store.store import Store
from proxytrain.sweep.request import Request

MOST_CURVES = 96  # that tell of a target
TABLE_COLUMNS = ("batch_tokens",)  # of a table, whether the runs differ in them or not
OWN_AXES = ("model.width", "tokens", "init_seed", "data_seed", "warmup")  # may differ from the target's


def table(store: Store, records: list[RunRecord]) -> dict[str, list[Any]]:
    """Finished runs as columns for a fit. `params` is non-embedding; `params_total` has all of them.

    Runs of one recipe and one trunk share its seed noise: `trunk` names it. Other keys of the configuration that differ
    between the runs are columns under their own names.
    """
    rows = []
    varied = [key for key in varied_keys(records) if key not in TABLE_COLUMNS]
    for record in records:
        result = store.done(record.id)
        if result is None:
            continue
        recipe = result.recipe
        rows.append(
            {
                "run": record.id,
                "params": result.params.non_embedding,
                "params_total": result.params.total,
                "width": recipe.model.width,
                "tokens": result.tokens,
                "flops": result.flops,
                "loss": result.final_loss,
                "loss_se": result.val_se,
                "bits_per_byte": result.bits_per_byte,
                "lr": result.lr,
                "batch_tokens": recipe.batch_tokens,
                "schedule": record.schedule,
                "init_seed": recipe.init_seed,
                "data_seed": recipe.data_seed,
                "trunk": f"{result.recipe_id}/{result.lr:g}/{record.schedule}",
                **{key: record.settings.get(key) for key in varied},
            }
        )
    if not rows:
        raise Refusal("no finished run to fit: train the sweep first (`proxytrain sweep`), or see `proxytrain status`")
    return {key: [row[key] for row in rows] for key in rows[0]}


def varied_keys(records: list[RunRecord]) -> list[str]:
    """Return the keys of the configuration that differ between runs, beside size, length, schedule, rate and seeds.

    A key that only some have stands at its default in the others; but what belongs to a schedule or an optimizer must
    differ under its name.
    """
    known = ("model.width", "model.depth", "tokens", "lr", "init_seed", "data_seed", "schedule.name")
    values: dict[tuple[str, str], list[str]] = {}
    for r in records:
        for key, value in r.settings.items():
            group = key.partition(".")[0]
            own = group in ("schedule", "optimizer") and not key.endswith(".name")
            values.setdefault((key, r.settings[f"{group}.name"] if own else ""), []).append(str(value))
    differ = [k for k, found in values.items() if len(set(found)) > 1 or len(found) < _under(k, records)]
    return list(dict.fromkeys(key for key, _ in differ if key not in known))


def _under(key: tuple[str, str], records: list[RunRecord]) -> int:
    """Runs that could have a key: all, or those of the schedule or optimizer that it belongs to."""
    group = key[0].partition(".")[0]
    return sum(not key[1] or r.settings[f"{group}.name"] == key[1] for r in records)


def curves(store: Store, records: list[RunRecord]) -> list[Curve]:
    """Finished runs' loss curves: training losses of every update, and the validation loss at the end.

    Runs whose weights are averaged are left out: their end is not that of their curve.
    """
    out = []
    for record in records:
        result = store.done(record.id)
        if result is None or record.schedule == "average":
            continue
        c = store.curve(record.id)
        updates = len(c.step)
        out.append(
            Curve(
                lr=c.lr,
                step=c.step,
                loss=c.loss,
                params=float(result.params.non_embedding),
                tokens_per_step=float(result.recipe.batch_tokens),
                val_step=np.array([updates]),
                val_loss=np.array([result.final_loss]),
                order=str(result.recipe.data_seed),
                name=record.id,
            )
        )
    if not out:
        raise Refusal("no finished run to fit: train the sweep first (`proxytrain sweep`), or see `proxytrain status`")
    return out


def telling(asked: Request) -> list[RunRecord]:
    """The runs whose curves tell most of the target: those in its setting, under its schedule; where that has one
    length, the longest under every schedule. Of many the first seeds.

    Raises
    ------
    Refusal
        If no finished run is in the target's setting.
    """
    goal = asked.target_record
    assert goal
    found: dict[tuple[str, int, int, int], list[RunRecord]] = {}
    for r in sorted(asked.records, key=lambda r: r.tokens):
        if asked.store.done(r.id) and r.schedule != "average" and _setting(r) == _setting(goal):
            c = r.config
            found.setdefault((r.schedule, c.model.width, c.init_seed, c.data_seed), []).append(r)
    if not found:
        raise Refusal("no finished run has the target's settings (all but width, tokens and seeds)")
    own = {key: runs for key, runs in found.items() if key[0] == goal.schedule}
    parting = len({r.tokens for runs in own.values() for r in runs}) > 1
    rounds: dict[int, list[RunRecord]] = {}  # a seed of every size, then the next
    seen: Counter[tuple[str, int]] = Counter()
    for key, runs in sorted((own if parting else found).items()):
        rounds.setdefault(seen[key[:2]], []).extend(runs if parting else runs[-1:])
        seen[key[:2]] += 1
    out = rounds.pop(0)
    for _, more in sorted(rounds.items()):
        out += more if len(out) + len(more) <= MOST_CURVES else []
    return out


def _setting(record: RunRecord) -> list[tuple[str, Any]]:
    """What must be the target's."""
    return [(k, v) for k, v in record.settings.items() if k not in OWN_AXES and not k.startswith("schedule.")]


def target_params(record: RunRecord, columns: Any) -> int:
    """N of a run as the fit counts it."""
    total = dict(columns or {}).get("params") == "params_total"
    return record.params.total if total else record.params.non_embedding


def target_rates(run: Run) -> Array:
    """Learning rate of each update of a run.

    Raises
    ------
    Refusal
        Where the run's loss is not that of its last update.
    """
    if run.schedule == "average":
        raise Refusal("schedule=average: the loss of averaged weights does not follow from learning rates alone")
    batch = run.recipe.batch_tokens
    return learning_rates(run.phases, np.arange(batch, run.tokens + 1, batch))


def truths(asked: Request) -> list[RunResult]:
    """Results of the target's runs that have been trained."""
    return [result for run in asked.targets if (result := asked.store.result(run.id))]


def diverged(asked: Request) -> list[str]:
    """Ids of the runs that diverged."""
    return [r.id for r in asked.records if (result := asked.store.result(r.id)) and result.status == "diverged"]


def caveats(asked: Request) -> list[str]:
    """What no law speaks of: jumps in the runs' curves, curves that cannot be read, and what sets the target apart from
    every run of the sweep beside its width and length.
    """
    found = _jumps(asked)
    if asked.target_record is None:
        return found
    for key, value in asked.target_record.settings.items():
        values = {r.settings.get(key) for r in asked.records}
        if key not in ("model.width", "tokens", "init_seed", "data_seed") and value not in values:
            known = ", ".join(sorted(map(str, values - {None})))
            found.append(
                f"the target has {key}={value}, the sweep's runs {known or 'do not'}: the law does not cover that"
            )
    return found


def _jumps(asked: Request) -> list[str]:
    """In words: runs whose loss falls in a jump, and those whose curve cannot tell because it is broken."""
    found, broken = [], []
    seen: Counter[int] = Counter()
    for record in asked.records:
        try:
            (curve,) = curves(asked.store, [record])
        except Refusal:  # not finished
            continue
        except (RequestError, OSError, ValueError, KeyError):
            broken.append(record.id)
            continue
        seen[record.config.model.width] += 1
        leap = jump(curve)
        found += [(leap, record)] if leap else []
    out = []
    if found:
        found.sort(key=lambda f: -f[0].excess)
        worst, record = found[0]
        width, batch = record.config.model.width, record.config.batch_tokens
        have = Counter(r.config.model.width for _, r in found)
        sizes = ", ".join(f"{have[w]} of {seen[w]} of width {w}" for w in sorted(seen))
        out.append(
            f"UNSAFE: the loss of {len(found)} of {seen.total()} runs falls in a jump "
            f"({_some([r.id for _, r in found])}; {sizes}), most of all that of {record.id} (width {width}): by "
            f"{100 * worst.excess:.1f}% more between {worst.start * batch:,} and {worst.end * batch:,} tokens than "
            "before at the same learning rate. A capability appears there, such as copying, and no law tells when it "
            "comes to larger models. To avoid it: token shift (model=gpt, or model=shared_qk for wide gaps), text "
            "without long repeats (data=prose, or data.unit=line), or only runs that end long after it (more tokens)"
        )
    if broken:
        many = f"{len(broken)} run{'s' * (len(broken) > 1)}"
        out.append(f"curves of {many} cannot be read ({_some(broken)}): what they would warn of is not known")
    return out


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
