"""What holds for any schedule, any grid and any table, not only for those that somebody thought of."""

from __future__ import annotations

import functools
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxytrain import fit_losses, fit_optimum, load_fit
from proxytrain.config.recipe import Recipe
from proxytrain.config.schedule import (
    WSD,
    Constant,
    Cosine,
    Infinite,
    InverseSqrt,
    Linear,
    Power,
    learning_rates,
    phases,
    rate,
)
from proxytrain.config.schema import AdamW, Model, Parametrization
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import Curve, fit_curves
from proxytrain.fit.curves.reading import read_curves
from proxytrain.fit.tables.table import read_runs
from proxytrain.plan.pack import pack
from proxytrain.plan.runs import Run
from proxytrain.plan.share import forest
from proxytrain.store.documents import RunSettings
from proxytrain.types import parse_number

B, WARMUP, LR = 1000, 10_000, 0.01
some = settings(max_examples=60, deadline=None, derandomize=True)

floats = functools.partial(st.floats, allow_subnormal=False)  # the tests flush denormals, as every worker does


def refused(work, *args, **more):
    """The line that says why not, or None where it works; anything but these two errors comes through."""
    try:
        work(*args, **more)
    except (RequestError, Refusal) as error:
        why = str(error)
    else:
        return None
    assert "\n" not in why
    return why


shapes = st.sampled_from(["linear", "cosine", "sqrt", "exp", "half_life"])
decays = st.one_of(floats(0.01, 0.9), st.integers(1_000, 60_000).map(float))
tails = {"decay": decays, "shape": shapes, "final": floats(0.001, 1.0), "half_life": st.integers(1_000, 100_000)}
schedules = st.one_of(
    st.just(Constant()),
    st.just(InverseSqrt()),
    st.builds(Linear, final=floats(0, 1)),
    st.builds(Cosine, final=floats(0, 1)),
    st.builds(WSD, **tails),
    st.builds(Power, knee=st.integers(1, 10**6), amplitude=st.none(), exponent=floats(-1.5, 0), **tails),
    st.builds(Infinite, cooldown=st.integers(1, 60_000), floor=floats(0.01, 1), **tails),
)
lengths = st.integers(20, 2_000).map(lambda n: n * B)


def planned(schedule, tokens):
    """Phases, or None where the schedule does not fit: then one line says why."""
    asked = {"lr": LR, "warmup": WARMUP, "tokens": tokens, "batch_tokens": B}
    why = refused(phases, schedule, **asked)
    assert why is None or "fit into" in why or "shorter than one update" in why
    return None if why else phases(schedule, **asked)


@some
@given(schedules, lengths)
def test_any_schedule_covers_its_run_without_gaps_or_jumps(schedule, tokens):
    plan = planned(schedule, tokens)
    if plan is None:
        return
    assert (plan[0].start, plan[-1].end) == (0, tokens)
    lr = learning_rates(plan, np.arange(B, tokens + 1, B))
    assert np.isfinite(lr).all()
    assert (lr >= 0).all()
    assert lr.max() <= LR * (1 + 1e-9)
    for before, after in itertools.pairwise(plan):
        assert before.end == after.start
        assert float(rate(before, before.end)) == pytest.approx(float(rate(after, after.start)), rel=1e-9)


@some
@given(schedules, lengths, lengths)
def test_what_is_open_does_not_depend_on_the_end(schedule, a, b):
    short, long = (planned(schedule, n) for n in sorted((a, b)))
    if short is None or long is None:
        return
    stable = max((p.end for p in short if p.open), default=0)
    shared = min(stable, max((p.end for p in long if p.open), default=0))
    n = np.arange(B, shared + 1, B)
    assert np.array_equal(learning_rates(short, n), learning_rates(long, n))


MODEL = Model(
    width=32,
    depth=2,
    head_size=8,
    context=16,
    mlp="relu2",
    mlp_ratio=4.0,
    rope_base=1e4,
    qk_norm=True,
    tied=False,
    logit_bias=True,
    shift_keys=True,
    conv_attention=3,
    conv_mlp=2,
)
ADAMW = AdamW(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0, z_loss=0.0)


def a_run(schedule, tokens, seed):
    plan = planned(schedule, tokens)
    recipe = Recipe(
        model=MODEL,
        parametrization=Parametrization(name="mup", base_width=32, embedding_std=1.0, readout_std=0.0),
        optimizer=ADAMW,
        batch_tokens=B,
        corpus="c",
        vocab=256,
        init_seed=seed,
        data_seed=seed,
        precision="float32",
    )
    settings = RunSettings(
        model=MODEL,
        parametrization=recipe.parametrization,
        optimizer=ADAMW,
        schedule=schedule,
        tokens=tokens,
        lr=LR,
        warmup=WARMUP,
        batch_tokens=B,
        init_seed=seed,
        data_seed=seed,
    )
    return Run(recipe, settings, plan) if plan else None


@some
@given(st.lists(st.tuples(schedules, lengths, st.integers(0, 1)), min_size=1, max_size=6))
def test_any_grid_is_trained_once_and_every_run_whole(wanted):
    runs = [r for w in wanted if (r := a_run(*w))]
    segments = forest(runs)
    for run in {r.id: r for r in runs}.values():
        (segment,) = (s for s in segments.values() if s.run_id == run.id)
        covered = np.zeros(run.tokens // B, dtype=int)
        while segment:
            here = np.arange(segment.start + B, segment.end + 1, B)
            covered[here // B - 1] += 1
            assert np.array_equal(learning_rates(segment.phases, here), learning_rates(run.phases, here))
            segment = segments[segment.parent] if segment.parent else None
        assert (covered == 1).all()
    trained = sum(s.end - s.start for s in segments.values())
    assert trained <= sum(r.tokens for r in {r.id: r for r in runs}.values())
    packed = [
        key
        for p in pack(segments, memory=10**12, workers=2, largest=3, device="cpu")
        for m in p.members
        for key in (s.key for s in m.segments)
    ]
    assert sorted(packed) == sorted(segments)


cells = st.one_of(floats(), st.integers(-5, 10**12), st.text(max_size=4), st.none(), st.booleans())
columns = st.sampled_from(
    ["params", "tokens", "loss", "lr", "batch_tokens", "flops", "schedule", "init_seed", "trunk", "x"]
)


@some
@given(st.dictionaries(columns, st.lists(cells, max_size=6), max_size=7))
def test_any_table_is_read_or_refused_in_one_line(table):
    for reader in (read_runs, fit_losses, fit_optimum):
        refused(reader, table)


numbers = st.one_of(floats(), st.integers(-3, 10**6).map(float))


@some
@given(
    st.lists(numbers, max_size=40), st.lists(numbers, max_size=12), st.lists(numbers, max_size=12), numbers | st.none()
)
def test_any_curve_is_fitted_or_refused_in_one_line(lr, step, loss, params):
    refused(lambda: fit_curves([Curve(lr, step, loss, params=params)] * 2))


@some
@given(
    st.binary(max_size=200) | st.lists(cells, max_size=8).map(lambda c: ",".join(map(str, c)).encode()), st.booleans()
)
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory, content, index):
    folder = tmp_path_factory.mktemp("any")
    (folder / ("index.csv" if index else "a.csv")).write_bytes(content)
    (folder / "t.csv").write_bytes(content)
    (folder / "fit.json").write_bytes(content)
    refused(read_curves, folder)
    refused(read_runs, folder / "t.csv")
    assert refused(load_fit, folder / "fit.json")


json_values = st.recursive(
    cells, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=6), v, max_size=4)
)


@some
@given(st.sampled_from(["proxytrain fit 2", "proxytrain curve fit 2", "proxytrain optimum 1"]), json_values)
def test_any_json_that_calls_itself_a_fit_is_refused_in_one_line(tmp_path_factory, name, value):
    path = tmp_path_factory.mktemp("any") / "fit.json"
    path.write_text(json.dumps({"format": name, "laws": value, "data": value, "members": value}))
    assert refused(load_fit, path)


@some
@given(floats(-1e300, 1e300))
def test_numbers_read_as_they_are_written(value):
    assert parse_number(repr(value)) == value
    assert parse_number(f"{value / 1e6!r}M") == pytest.approx(value, rel=1e-12, abs=1e-300)


@some
@given(st.text(max_size=8))
def test_what_is_no_number_is_none(text):
    value = parse_number(text)
    assert value is None or isinstance(value, float)
