"""`data=hub`: a Hugging Face dataset, streamed. A folder on this machine is read the same way, without a network."""

from __future__ import annotations

import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

from proxytrain.config.schema import HubData
from proxytrain.corpus.ends import Ends
from proxytrain.corpus.pieces import text_pieces
from proxytrain.corpus.saved import files_in, is_saved, read_saved
from proxytrain.errors import RequestError

GATEWAY = {403, 407, 502, 503, 504}  # HTTP codes of whatever stands in between
PATIENCE = 1.5  # seconds that the hub has for its first answer


def local_files(path: str) -> list[str] | None:
    """The files of a dataset that is a folder here; None for one on the hub."""
    if not os.path.isdir(os.path.expanduser(path)):
        return None
    return files_in(path)


def read_hub(data: HubData, ends: Ends) -> Iterator[tuple[str, bytes]]:
    """Yield (where it comes from, text) of every document, in the dataset's order.

    Raises
    ------
    RequestError : the hub gives no answer, or the dataset, its config, split or column do not exist
    """
    if not data.path:
        raise RequestError("data.path is empty: name a dataset of the hub or a dataset folder on this machine")
    if local_files(data.path) is None:
        _refuse_unreachable(data.path)
    import datasets

    name = f"data.path={data.path}"
    try:
        if is_saved(data.path):
            if data.config is not None:
                raise RequestError(f"data.config={data.config}: {data.path} has no configurations. Leave it out.")
            yield from read_saved(data.path, data.split, data.column, "data.column", ends)
            return
        rows = datasets.load_dataset(os.path.expanduser(data.path), data.config, split=data.split, streaming=True)
        first: dict[str, object] = next(iter(rows), {})
        if data.column not in first:
            raise RequestError(
                f"{name}: no column data.column={data.column!r} (found: {', '.join(first) or 'no rows'})"
            )
        for number, row in enumerate(rows.select_columns([data.column])):
            yield from text_pieces(f"{name}, row {number}", row[data.column], ends)
    except RequestError:
        raise
    except Exception as error:  # the library raises its own, pyarrow's, the HTTP client's and built-in ones
        asked = f"{name} data.config={data.config} data.split={data.split}"
        raise RequestError(f"{asked}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from None


def _refuse_unreachable(path: str) -> None:
    """Ask the hub for anything, for PATIENCE at most: the libraries would retry for minutes."""
    from huggingface_hub import constants

    advice = "use a dataset folder on this machine as data.path, or data=files or data=code, which need no network"
    if constants.HF_HUB_OFFLINE:
        raise RequestError(f"data.path={path}: no such folder, and HF_HUB_OFFLINE is set; {advice}")
    failure = ["no answer"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=PATIENCE).close()
            failure.clear()
        except urllib.error.HTTPError as error:
            failure[:] = [str(error)] if error.code in GATEWAY else []  # any other code is an answer of the hub's own
        except OSError as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLError):
                failure.clear()  # it answers; the libraries bring their own certificates
            else:
                failure[0] = str(reason)

    thread = threading.Thread(target=ask, daemon=True)  # a name that does not resolve can hang beyond any timeout
    thread.start()
    thread.join(PATIENCE)
    if failure:
        raise RequestError(
            f"data.path={path}: no such folder, and {constants.ENDPOINT} is unreachable ({failure[0]}); {advice}"
        )
