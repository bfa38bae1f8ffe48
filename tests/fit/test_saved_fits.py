"""Fits that an earlier version saved are read, and predict what they predicted then."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxytrain import load_fit
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.core.document import save_fit

SAVED = Path(__file__).parents[1] / "data" / "fits_v2"
PREDICTED = json.loads((SAVED / "predicted.json").read_text())


def predicted(kind: str) -> list[float]:
    """Return the numbers that `predicted.json` holds for a kind of fit."""
    return ask(kind, load_fit(SAVED / f"{kind}.json"))


def ask(kind: str, fit: Any) -> list[float]:
    """Return what a fit predicts."""
    if kind == "curves":
        return list(fit.predict(np.linspace(1e-3, 1e-4, 7000)).final)
    answer = fit.predict(2e8, 1.6e10) if kind == "losses" else fit.predict(16e6, 8e8)
    names = ("loss", "low", "high", "gap") if kind == "losses" else ("lr", "lr_low", "lr_high", "regret", "gap")
    return [getattr(answer, name) for name in names]


@pytest.mark.parametrize("kind", PREDICTED)
def test_a_saved_fit_predicts_the_same_numbers(kind):
    # exp and log of two processors differ in the last bit
    assert predicted(kind) == pytest.approx(PREDICTED[kind], rel=1e-13, abs=0)


@pytest.mark.parametrize("kind", PREDICTED)
def test_a_saved_fit_is_written_again_as_it_was_read(kind, tmp_path):
    load_fit(SAVED / f"{kind}.json").save(tmp_path / "again.json")
    before, again = (json.loads(p.read_text()) for p in (SAVED / f"{kind}.json", tmp_path / "again.json"))
    assert again == before


def changed(kind: str, path: Path, change: dict[str, object] | None, drop: str | None = None) -> Path:
    """Write a saved fit with other parts, and the checksum of what it then says."""
    content = {**json.loads((SAVED / f"{kind}.json").read_text()), **(change or {})}
    for key in ("checksum", drop):
        content.pop(key, None)
    save_fit(path, content)
    return path


@pytest.mark.parametrize("part", ["backtest", "warnings", "level"])
@pytest.mark.parametrize("kind", ["curves", "optimum"])
def test_a_fit_that_lacks_a_part_is_refused(kind, part, tmp_path):
    lacks = rf"not a whole fit \(Object missing required field `{part}`\)\. Fit again\.$"
    with pytest.raises(RequestError, match=rf"fit\.json: {lacks}"):
        load_fit(changed(kind, tmp_path / "fit.json", None, drop=part))


@pytest.mark.parametrize("kind", PREDICTED)
def test_a_part_of_another_type_is_refused(kind, tmp_path):
    with pytest.raises(RequestError, match=r"fit\.json: not a whole fit \(.* - at `\$.*`\)\. Fit again\.$"):
        load_fit(changed(kind, tmp_path / "fit.json", {"backtest": [{"cut": 1}]}))


@pytest.mark.parametrize("name", ["proxytrain fit 1", "proxytrain fit 3", None, 2, ["proxytrain fit 2"], {}])
def test_a_document_of_another_format_is_refused(name, tmp_path):
    with pytest.raises(RequestError, match=r"fit\.json: format is .*, must be 'proxytrain fit 2', "):
        load_fit(changed("losses", tmp_path / "fit.json", {"format": name}))


@pytest.mark.parametrize("content", [b"", b"[1]", b"null", b"7", b'{"a": ', b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_refused(content, tmp_path):
    (tmp_path / "fit.json").write_bytes(content)
    says = r"not what proxytrain writes there .*; `proxytrain fit` writes such a file$"
    with pytest.raises(RequestError, match=rf"fit\.json: {says}"):
        load_fit(tmp_path / "fit.json")


@pytest.mark.parametrize("kind", PREDICTED)
def test_a_fit_with_nonsense_anywhere_and_no_checksum_is_read_or_refused_in_one_line(kind, tmp_path):
    whole = json.loads((SAVED / f"{kind}.json").read_text())
    del whole["checksum"]
    path = tmp_path / "fit.json"
    for number, (parent, key) in enumerate(places(whole)):
        before = parent[key]
        for value in (None, "x", -1, [], {}, [[1.0]], {"a": [None]}, 1e300)[number % 2 :: 2]:
            parent[key] = value
            path.write_text(json.dumps(whole))
            with contextlib.suppress(RequestError, Refusal):
                ask(kind, load_fit(path))
        parent[key] = before


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place of a document as a container and a key; of long lists the first two."""
    keys = list(tree) if isinstance(tree, dict) else range(min(len(tree), 2)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from places(tree[key])
