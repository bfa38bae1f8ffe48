"""From a file, a DataFrame or a mapping of arrays to plain columns; what the columns mean is decided in `table.py`."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError

KINDS = (".csv", ".tsv", ".parquet", ".csv.gz", ".csv.zst", ".tsv.gz", ".tsv.zst")


def load(table: Any) -> tuple[str, dict[str, Any]]:
    """Return the source's name and its columns by name, each an array of n values.

    Parameters
    ----------
    table : path of CSV, TSV or Parquet, pandas.DataFrame, or mapping of str to array (numpy, torch or list)

    Raises
    ------
    RequestError
        Names the file or column that cannot be read, or a name that two columns share.
    """
    if isinstance(table, (str, os.PathLike)):
        return str(table), _load_file(Path(table))
    if isinstance(table, Mapping):
        return "table", {str(k).strip(): _array(v, str(k)) for k, v in table.items()}
    if hasattr(table, "columns") and hasattr(table, "to_numpy"):
        return "table", _columns_of(table, "table")
    raise RequestError(f"table: must be a DataFrame, a mapping of arrays or a path, not {type(table).__name__}")


def _load_file(path: Path) -> dict[str, Any]:
    import pandas

    if not path.is_file():
        raise RequestError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    if not path.name.lower().endswith(KINDS):
        raise RequestError(f"{path}: must be .csv, .tsv or .parquet (.csv and .tsv also as .gz or .zst)")
    try:
        if path.suffix.lower() == ".parquet":
            return _columns_of(pandas.read_parquet(path), str(path))
        text, separator = _table_text(path)
        frame = pandas.read_csv(io.StringIO(text), sep=separator, skipinitialspace=True, index_col=False)
        return _columns_of(frame, str(path))
    except pandas.errors.EmptyDataError:
        raise RequestError(f"{path}: is empty") from None
    except RequestError:
        raise
    except (OSError, EOFError, ValueError, UnicodeDecodeError) as error:  # of pandas and pyarrow too
        raise RequestError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None


def _columns_of(frame: Any, source: str) -> dict[str, Any]:
    """Columns of a DataFrame, those of a named index included; unnamed columns without a value are left out."""
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    names = [str(c).strip() for c in frame.columns]
    twice = next((n for i, n in enumerate(names) if n in names[:i]), None)
    if twice is not None:
        raise RequestError(f"{source}: two columns are named {twice!r}. Rename one of them.")
    columns = {name: frame.iloc[:, i] for i, name in enumerate(names)}
    return {n: c.to_numpy() for n, c in columns.items() if not ((not n or n.startswith("Unnamed:")) and c.isna().all())}


def _table_text(path: Path) -> tuple[str, str]:
    """The text of a CSV or TSV file as pandas reads it: one header, no comment lines, as many names as cells; and
    its separator.
    """
    lines = [line for line in _decoded(path).splitlines() if line.strip()]
    comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
    body = [line for line in lines if not line.startswith("#")]
    separator = "\t" if body and "\t" in body[0] and "," not in body[0] else ","
    first = _cells(body[0], separator) if body else []
    if comments and _all_numbers(first) and len(_cells(comments[-1], separator)) == len(first):
        body.insert(0, comments[-1])  # the header is a comment, as numpy writes it
    if not body:
        return "", separator
    header = [name.strip() for name in _cells(body[0], separator)]
    if len(header) == 1 and any(mark in header[0] for mark in ";\t "):
        raise RequestError(f"{path}: its first line is {header[0]!r}: columns must be separated by commas or tabs")
    if _all_numbers(header):
        raise RequestError(f"{path}: its first line is {body[0]!r}. Add a line with the names of the columns.")
    twice = next((n for i, n in enumerate(header) if n and n in header[:i]), None)
    if twice is not None:
        raise RequestError(f"{path}: two columns are named {twice!r}. Rename one of them.")
    rows = [_cells(line, separator) for line in body[1:]]
    if rows and all(len(row) == len(header) + 1 for row in rows):  # pandas would shift all names by one
        if all(not row[-1].strip() for row in rows):
            header.append("")  # a separator at the end of each line
        else:
            header.insert(0, "")  # names of rows, as R writes them
    body[0] = separator.join(_quoted(name) for name in header)
    return "\n".join(body) + "\n", separator


def _decoded(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".zst":
        import zstandard

        with open(path, "rb") as packed:
            try:
                content = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True).read()
            except zstandard.ZstdError as error:
                raise RequestError(f"{path}: cannot be read ({error})") from None
    else:
        with gzip.open(path) if suffix == ".gz" else open(path, "rb") as file:
            content = file.read()
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")  # as some spreadsheets save it
    return content.decode("utf-16" if wide else "utf-8").lstrip("\ufeff")


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _all_numbers(cells: list[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells if cell.strip()])
    except ValueError:
        return False


def _array(values: Any, column: str) -> Array:
    """One column as (n,) values; tensors of torch come from whatever device and precision they have."""
    try:
        if hasattr(values, "detach"):
            values = values.detach().double().cpu()
        out = np.atleast_1d(np.asarray(values))
    except Exception as error:  # whatever the object raises
        raise RequestError(
            f"table: column {column} is a {type(values).__name__} that numpy cannot read ({error})"
        ) from None
    if out.ndim == 2 and out.shape[1] == 1:
        out = out[:, 0]
    if out.ndim != 1:
        raise RequestError(f"table: column {column} has shape {out.shape}. Give one value per row.")
    return out
