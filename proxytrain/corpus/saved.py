"""Folders that `datasets.save_to_disk` wrote: one split, or several under their names."""

from __future__ import annotations

import os
from collections.abc import Iterator

from proxytrain.corpus.ends import Ends
from proxytrain.corpus.pieces import text_pieces
from proxytrain.corpus.records import shown
from proxytrain.errors import RequestError

ONE, SEVERAL = "state.json", "dataset_dict.json"  # files that save_to_disk leaves beside the tables


def is_saved(path: str) -> bool:
    """Return whether a path is a folder of `save_to_disk`."""
    folder = os.path.expanduser(path)
    return any(os.path.isfile(os.path.join(folder, name)) for name in (ONE, SEVERAL))


def files_in(path: str) -> list[str]:
    """Return all files below a folder, sorted."""
    folder = os.path.expanduser(path)
    return sorted(os.path.join(f, name) for f, _, names in os.walk(folder) for name in names)


def read_saved(path: str, split: str | None, column: str, key: str, ends: Ends) -> Iterator[tuple[str, bytes]]:
    """Yield the documents of a saved dataset, in its order.

    Parameters
    ----------
    split : of several; None: the only one
    column : that holds the text
    key : the configuration key that names the column

    Raises
    ------
    RequestError : another split or column, or files that cannot be read
    """
    import datasets

    found = datasets.load_from_disk(os.path.expanduser(path))
    if isinstance(found, datasets.DatasetDict):
        names = list(found)
        if split is None and len(names) > 1:
            raise RequestError(
                f"data.files={path}: holds the splits {', '.join(names)}. Name one: {os.path.join(path, names[0])}."
            )
        if split is not None and split not in found:
            raise RequestError(f"data.split={split}: {path} holds the splits {', '.join(names)}. Name one of them.")
        found = found[split or names[0]]
    elif split is not None and found.split is not None and str(found.split) != split:
        raise RequestError(f"data.split={split}: {path} holds the split {found.split}. Set data.split={found.split}.")
    if column not in found.column_names:
        raise RequestError(f"{path}: no column {key}={column!r} (found: {shown(found.column_names)})")
    for number, row in enumerate(found.select_columns([column])):
        yield from text_pieces(f"{path}, row {number}", row[column], ends)
