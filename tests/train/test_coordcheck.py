"""The coordinate check: muP is flat in width and the standard parametrization is not; CompleteP is flat in depth."""

from __future__ import annotations

import pytest

from proxytrain.errors import RequestError
from proxytrain.train.coordcheck import Scan, scan

SIZES = ["coordcheck.widths=[32,64,128]", "coordcheck.depths=[2,4,8]"]


def scanned(ask, axis: str, name: str, *more: str) -> Scan:
    asked = ask(*SIZES, f"parametrization={name}", "parametrization.embedding_std=1", *more)
    *sizes, done = scan(asked.config, asked.corpus, axis)
    assert tuple(sizes) == done.sizes
    return done


@pytest.mark.parametrize("name", ["mup", "completep"])
def test_activations_are_flat_in_width(ask, name):
    done = scanned(ask, "width", name)
    assert done.flat, done.judged


def test_under_the_standard_parametrization_they_grow_with_width(ask):
    done = scanned(ask, "width", "sp")
    assert not done.flat
    assert max(done.judged.values()) > 0.5


def test_completep_is_flat_in_depth_and_mup_grows(ask):
    done = scanned(ask, "depth", "completep", "model.width=64")
    assert done.flat, done.judged
    assert scanned(ask, "depth", "mup", "model.width=64").judged["residual stream"] > 0.3


@pytest.mark.parametrize(("optimizer", "lr"), [("muon", 0.01), ("sgd_sai", 0.05)])
def test_rates_of_other_optimizers_follow_the_width_under_mup(ask, optimizer, lr):
    how = ["coordcheck.widths=[64,128,256]", f"optimizer={optimizer}", f"coordcheck.lr={lr}"]
    done = scanned(ask, "width", "mup", *how)
    assert done.flat, done.judged
    assert max(scanned(ask, "width", "sp", *how).judged.values()) > 0.3


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("coordcheck.widths=[64]", "a slope needs at least two"),
        ("coordcheck.widths=[32,60]", "coordcheck.widths=60: must be a multiple of model.head_size=8"),
    ],
)
def test_sizes_that_cannot_be_are_refused(ask, override, says):
    asked = ask(override)
    with pytest.raises(RequestError, match=says):
        list(scan(asked.config, asked.corpus, "width"))


def test_the_command_says_which_modules_move_and_draws_them(store, tmp_path, monkeypatch, capsys):
    from support import TINY, TINY_TEXT

    from proxytrain.cli.main import main

    monkeypatch.chdir(tmp_path)
    common = [*TINY_TEXT, *TINY, f"store={store}", "coordcheck.widths=[32,64]", "coordcheck.depths=[]", "--quiet"]
    assert main(["coordcheck", *common, "parametrization=sp", "parametrization.embedding_std=1"]) == 1
    assert "NOT FLAT" in capsys.readouterr().out
    assert (tmp_path / "coordcheck_sp.png").stat().st_size > 10_000
    assert main(["coordcheck", *common, "coordcheck.widths=[]"]) == 2
