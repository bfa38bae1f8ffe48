"""What the mirror sends is what the store has: read back from offline files, and from a server that misbehaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from mirror_support import KEY, SWEEP, plan_of
from msgspec import to_builtins
from support import TINY, TINY_TEXT, planned, proxytrain, train
from wandb_file import read
from wandb_server import Server

from proxytrain.plan import freeze
from proxytrain.store.store import Store
from proxytrain.track import mirror
from proxytrain.track import shown as shown_module
from proxytrain.track.client import REQUESTS
from proxytrain.train.loop import Interrupted

OWN = ("_timestamp", "_runtime", "_step", "_wandb")


def expected(store: Store, run_id: str) -> dict[int, dict[str, float]]:
    """Step -> values of a run's whole curve, straight from the store's files."""
    result, curve = store.result(run_id), store.curve(run_id)
    lines = {}
    for i, step in enumerate(curve.step):
        at = int(curve.tokens[i])
        lines[int(step)] = {
            "tokens": at,
            "flops": result.flops * at / result.tokens,
            "train/lr": curve.lr[i],
            "train/loss": curve.loss[i],
            "train/grad_norm": curve.grad_norm[i],
        }
    for k, at in enumerate(curve.telemetry["tokens"] if curve.telemetry else ()):
        seen = {f"telemetry/{name}": v[k] for name, v in curve.telemetry.items() if name != "tokens"}
        lines[int(at) // result.recipe.batch_tokens - 1] |= seen
    for at, loss in zip(curve.eval_tokens, curve.eval_loss):
        lines[int(at) // result.recipe.batch_tokens - 1]["val/loss"] = loss
    return lines


def records(store: Store) -> dict[str, dict[str, Any]]:
    """The runs of the sweep, and its target where it has been trained."""
    verified = (store.sweep("s.verify") / "plan.json").exists()
    return {**plan_of(store).runs, **(plan_of(store, "s.verify").runs if verified else {})}


def assert_same(store: Store, run_id: str, history: list[dict], summary: dict, config: dict) -> None:
    """A run as it was mirrored, against the store: every line, once and in order."""
    lines = expected(store, run_id)
    assert [h["_step"] for h in history] == sorted(lines)
    for h in history:
        mine = {k: v for k, v in h.items() if k not in OWN}
        assert set(mine) == set(lines[h["_step"]])
        assert all(v == pytest.approx(lines[h["_step"]][k], rel=1e-12) for k, v in mine.items())
    result = json.loads((store.run(run_id) / "result.json").read_text())
    result = {k: v for k, v in result.items() if v is not None}
    assert {k: summary[k] for k in result} == result
    settings = to_builtins(records(store)[run_id].config)
    assert {k: config[k] for k in settings} == settings
    assert config["params_nonembedding"] == store.result(run_id).params.non_embedding


def assert_all_there(store: Store, server: Server, law: bool = True) -> None:
    for run_id in records(store):
        run = server.runs[run_id]
        assert_same(store, run_id, run.history, run.summary, run.values)
        assert (run.state, run.group, run.job) == (
            "finished",
            "s",
            "run" if run_id in plan_of(store).runs else "target",
        )
    summary = server.runs["sweep-s"].summary
    assert summary["count"] == {"done": len(plan_of(store).runs), "planned": len(plan_of(store).runs)}
    assert not law or summary["fit"]["params"] == json.loads((store.sweep("s") / "fit.json").read_text())["params"]


def test_an_offline_run_holds_what_the_store_has(done, sync):
    code, _ = sync(done, online=False)
    assert code == 0
    pieces = {p.stem.removeprefix("run-"): read(p) for p in done.sweep("s").glob("wandb/*/*.wandb")}
    assert set(pieces) == {*records(done), "sweep-s"}
    for run_id in plan_of(done).runs:
        piece = pieces[run_id]
        assert_same(done, run_id, piece["history"], piece["summary"], piece["config"])
        tokens, seed = (piece["config"][k] for k in ("tokens", "init_seed"))
        assert piece["tags"] == [f"tokens={tokens / 1000:.3g}k", f"init_seed={seed}"]
        assert piece["about"] == {"id": run_id, "name": " ".join(piece["tags"]), "group": "s", "job": "run"}
        assert (piece["metrics"]["*"], piece["exit"]) == ("tokens", 0)
    whole = pieces["sweep-s"]
    answer = (done.sweep("s") / "predictions.csv").read_text().splitlines()[1].split(",")
    assert [whole["summary"]["prediction"][k] for k in ("loss", "low", "high")] == [float(x) for x in answer[4:7]]
    (target,) = plan_of(done, "s.verify").runs
    assert whole["summary"]["truth"] == {"loss": done.result(target).final_loss, "runs": 1}
    assert ("fit", "s-fit") in whole["artifacts"]
    table = json.loads(next(done.sweep("s").glob("wandb/*sweep-s/files/media/table/*.json")).read_text())
    rows = {row[0]: dict(zip(table["columns"], row)) for row in table["data"]}
    assert {i: r["loss"] for i, r in rows.items()} == {i: done.result(i).final_loss for i in records(done)}
    before = sorted(done.sweep("s").rglob("*"))
    assert sync(done, online=False) == (0, [])
    assert sorted(done.sweep("s").rglob("*")) == before


def test_wandb_sync_takes_the_offline_runs(done, sync, server, tmp_path):
    sync(done, online=False)
    command = [sys.executable, "-m", "wandb", "sync", str(done.sweep("s") / "wandb")]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120).returncode == 0
    assert_all_there(done, server)
    assert server.artifacts["s-fit"]["committed"]
    assert server.uploads["a-s-fit/fit.json"] == (done.sweep("s") / "fit.json").read_bytes()


def test_the_mirror_is_complete_and_sends_nothing_twice(done, sync, server):
    assert sync(done)[0] == 0
    assert_all_there(done, server)
    assert server.uploads["a-s-fit/fit.json"] == (done.sweep("s") / "fit.json").read_bytes()
    runs = len(records(done))
    assert sum(1 for _, o in server.requests) <= REQUESTS * runs + 30  # the summary, and the first connection
    count = len(server.requests)
    assert sync(done) == (0, [])
    assert len(server.requests) == count
    (done.sweep("s") / "wandb.json").unlink()  # then the server is asked, and has it
    assert sync(done)[0] == 0
    assert_all_there(done, server)


def test_a_new_fit_is_sent_again(done, sync, server):
    sync(done)
    path = done.sweep("s") / "fit.json"
    path.write_text(path.read_text() + " ")
    assert sync(done)[1] == ["summary of 9 runs"]
    assert [h["_step"] for h in server.runs["sweep-s"].history] == [0, 1]


def test_a_server_that_fails_delays_and_loses_answers_has_all_in_the_end(done, sync, server):
    happened = set()

    def trouble(operation: str, number: int) -> Any:
        kinds = {3: "fail", 11: "lose", 17: 0.5, 23: "refuse", 31: "fail", 40: "lose"}
        if number in kinds:
            happened.add(kinds[number])
            return kinds[number]
        return None

    server.trouble = trouble
    for _ in range(3):
        code, _ = sync(done)
    assert code == 0
    assert happened == {"fail", "lose", "refuse", 0.5}
    assert_all_there(done, server)


def test_lines_that_the_server_refused_are_noticed_and_sent_again(done, sync, server):
    refused: list[int] = []

    def trouble(operation: str, number: int) -> Any:
        if operation == "FileStream" and len(refused) < 2:
            refused.append(number)
            return "refuse"
        return None

    server.trouble = trouble
    code, said = sync(done)
    assert code == 0
    assert any("did not take all of it" in line for line in said)
    assert_all_there(done, server)


def test_a_deleted_id_gets_a_suffix_that_is_remembered(done, sync, server):
    gone = next(iter(plan_of(done).runs))
    server.deleted = {gone, f"{gone}-2"}
    assert sync(done)[0] == 0
    run = server.runs.pop(f"{gone}-3")
    assert gone not in server.runs
    assert_same(done, gone, run.history, run.summary, run.values)
    assert [v["id"] for p in _memory(done).values() for k, v in p.items() if k == gone] == [f"{gone}-3"]


def test_a_wrong_key_loses_nothing(done, sync, server):
    server.key = "b" * 40
    code, said = sync(done)
    assert code == 1
    assert "401" in said[-1]
    assert not _memory(done)
    server.key = KEY
    assert sync(done)[0] == 0
    assert_all_there(done, server)


def test_a_broken_curve_is_named_and_the_others_are_sent(done, sync, server):
    run_id = next(iter(plan_of(done).runs))
    result = done.result(run_id)
    (done.segment(result.key) / "curve.npz").write_bytes(b"not a curve")
    code, said = sync(done)
    assert code == 1
    assert any(run_id in line and "not a whole curve" in line for line in said)
    assert set(server.runs) == {*records(done), "sweep-s"} - {run_id}


def test_what_others_put_into_a_store_does_not_lead_out_of_it(done, sync, server, tmp_path):
    (tmp_path / "secret").write_text("{}")
    (done.sweep("s") / "fit.json").unlink()
    (done.sweep("s") / "fit.json").symlink_to(tmp_path / "secret")
    (done.sweep("s") / "wandb.json").write_text('{"offline": [1], "W&B/default/proxytrain": {"sweep": 3}}')
    code, said = sync(done)
    assert code == 1
    assert "a link that leads out of the store" in said[-1]
    assert "a-s-fit/fit.json" not in server.uploads
    assert all(server.runs[i].state == "finished" for i in records(done))


def test_the_rate_is_kept(done, sync, server, monkeypatch):
    monkeypatch.setattr(mirror, "MINUTE", 1.5)
    sync(done, rate=3.0 * REQUESTS)  # three visits in no time, then they wait
    visits = [t for t, operation in server.requests if operation == "RunResumeStatus"]
    assert all(later - sooner > 1.0 for sooner, later in zip(visits, visits[3:]))


def test_runs_that_train_are_followed_and_go_on_where_they_were(store, ask, sync, server):
    asked = ask("sweep.name=s", "sweep.grids=[{tokens:[16384,65536],init_seed:[0,1]}]")
    made = planned(asked)
    freeze.save(made, asked.folder / "plan.json")
    left = [150]

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    with pytest.raises(Interrupted):
        train(asked, made, should_stop=stop)
    assert sync(asked.store)[0] == 0
    states = sorted(asked.folder.glob("packs/*/attempt-*/state-*.npz"))
    updates = json.loads(np.load(states[-1])["meta"].tobytes())["members"][0]["position"] // 256
    assert updates > 100
    longest = [r.id for r in asked.records if r.tokens == 65536]
    for run_id in longest:  # the trunk is shown as the run in which it ends
        run = server.runs[run_id]
        assert run.state == "running"
        assert [h["_step"] for h in run.history] == list(range(updates))
    server.runs[longest[0]].files.clear()  # the server forgets one of them
    server.runs[longest[0]].config.clear()
    train(asked, made)
    assert sync(asked.store)[0] == 0
    for run_id in asked.ids:
        run = server.runs[run_id]
        assert run.state == "finished"
        assert_same(asked.store, run_id, run.history, run.summary, run.values)


def test_a_mirror_that_is_killed_is_followed_by_another(done, sync, server, tmp_path):
    command = [sys.executable, "-m", "proxytrain", "track", "sync", f"store={done.root}", "sweep.name=s"]
    process = subprocess.Popen([*command, "track.requests_per_minute=2000"], stdout=subprocess.DEVNULL)
    while sum(r.exit == 0 for r in server.runs.values()) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert sync(done)[0] == 0
    assert_all_there(done, server)
    assert not list(done.sweep("s").glob("wandb/attempt-*"))


def test_a_thinned_curve_shows_the_last_look_before_each_row(done, monkeypatch):
    monkeypatch.setattr(shown_module, "MIRRORED_POINTS", 4)
    run = max(shown_module.shown(done, plan_of(done)), key=lambda r: r.record.tokens)
    curve, rows = done.curve(run.id), shown_module.rows(done, run)
    seen = [row["telemetry/log_z"] for _, row in rows if "telemetry/log_z" in row]
    assert curve.telemetry["tokens"].tolist() == list(range(50 * 256, 65536, 50 * 256))
    assert seen[-1] == curve.telemetry["log_z"][-1]
    assert 1 < len(seen) <= 5
    assert set(seen) <= set(curve.telemetry["log_z"].tolist())


def test_curves_are_thinned_alike_however_far_they_are(monkeypatch):
    monkeypatch.setattr(shown_module, "MIRRORED_POINTS", 100)
    position = np.arange(1, 10001) * 256
    evals = {256 * 777: 1.0}
    whole = shown_module.kept(position, 10000, evals)
    assert 90 <= len(whole) <= 101
    assert whole[0] == 0
    assert whole[-1] == 9999
    assert 776 in whole
    part = shown_module.kept(position[:3000], 10000, evals)
    assert np.array_equal(part, whole[whole < 3000])


def test_a_sweep_is_mirrored_while_it_trains(tmp_path, corpora, server, trained):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    more = ["launch.workers=1", "track=wandb", "track.requests_per_minute=1e6"]
    asked = [o for o in SWEEP if not o.startswith(("sweep.target", "fit."))]
    out = proxytrain("sweep", *asked, *more, cwd=tmp_path)
    assert "W&B: online" in out.stderr
    assert "8 runs done" in out.stdout
    store = Store(tmp_path / "runs")
    assert_all_there(store, server, law=False)
    pictures = {f"figures/{p.stem}" for p in store.sweep("s").glob("figures/*.png")}
    assert pictures
    assert pictures <= set(server.runs["sweep-s"].summary)
    log = (store.sweep("s") / "mirror.log").read_text()
    assert "Traceback" not in log, log
    count = len(server.requests)
    proxytrain("sweep", *asked, *more, cwd=tmp_path)
    assert len(server.requests) == count


@pytest.mark.slow
def test_a_sweep_does_not_notice_that_the_server_is_gone(tmp_path, corpora, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    out = proxytrain("sweep", *TINY_TEXT, *TINY, "launch.workers=1", "track=wandb", cwd=tmp_path)
    assert "1 runs done" in out.stdout
    assert "`proxytrain track sync sweep.name=default` sends the rest" in out.stderr


def test_online_without_a_key_is_refused_before_anything_is_trained(tmp_path, corpora):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    done = proxytrain("sweep", *TINY_TEXT, *TINY, "track=wandb", "track.mode=online", cwd=tmp_path, check=2)
    assert "set WANDB_API_KEY, or run `wandb login`" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("proxytrain sweep:")]) == 1
    assert not (tmp_path / "runs" / "segments").exists()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ([], "allowed are `track sync` and `track dashboard`"),
        (["sync", "sweep.name=none", "track.mode=offline"], "no such plan"),
        (["sync", "track.mode=onlin"], "did you mean online?"),
        (["sync", "track.projct=x"], "did you mean track.project?"),
    ],
)
def test_what_is_wrong_ends_in_one_line(asked, says, done):
    out = proxytrain("track", *asked, cwd=done.root.parent, check=2)
    assert says in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1


def _memory(store: Store) -> dict[str, Any]:
    path = store.sweep("s") / "wandb.json"
    return json.loads(path.read_text()) if path.exists() else {}
