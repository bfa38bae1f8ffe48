"""From what `data` asks for to a prepared corpus: checked, made once, found again by the request and by the content."""

from __future__ import annotations

import errno
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from proxytrain.config.schema import CodeData, FilesData, HubData, TokensData
from proxytrain.corpus import code, files, hub
from proxytrain.corpus.build import Progress, build_text
from proxytrain.corpus.cache import locked, publish, recall, remember, workshop
from proxytrain.corpus.corpus import Corpus, Notice, digest, load, manifest_json
from proxytrain.corpus.ready import build_ready
from proxytrain.corpus.saved import files_in
from proxytrain.corpus.tokens import look_all
from proxytrain.errors import RequestError

FORMAT = 2  # raised when the same request would give other tokens
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_CONTENT = {"name", "allow_repeat", "reference_hash"}  # keys that leave the tokens as they are

Data = CodeData | FilesData | HubData | TokensData


def prepare(data: Data, root: Path | str, progress: Progress | None = None, notice: Notice | None = None) -> Corpus:
    """Return the corpus that `data` asks for, made if it is not there yet.

    Parameters
    ----------
    data : the data config
    root : folder of all corpora
    progress : called with (bytes done, bytes in all or None, what is being done)
    notice : called with a line that the user should read

    Raises
    ------
    RequestError : a wrong key or file, no text to train on or to hold out, an unreachable hub, a full disk
    """
    root = Path(root)
    progress, notice = progress or (lambda done, total, what: None), notice or (lambda line: None)
    _check(data)
    request = digest({"format": FORMAT, "kind": type(data).__name__, "fingerprint": _fingerprint(data)} | _asked(data))
    content_hash = recall(root, request)
    if content_hash is None:
        try:
            content_hash = _prepare(data, root, request, progress, notice)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise RequestError(f"{root}: no space for the corpus ({error.strerror}); free some") from None
            raise
    corpus = load(root, content_hash)
    for line in corpus.manifest.notices or ():
        notice(line)
    reference = data.reference_hash if isinstance(data, CodeData) and data.max_bytes is None else None
    if reference not in (None, corpus.manifest.text_hash):
        notice(
            f"data={data.name}: the text here is {corpus.manifest.text_hash}, the reference {reference}: another "
            "Python, package version or list of packages; losses do not compare with those of the reference"
        )
    return corpus


def _prepare(data: Data, root: Path, request: str, progress: Progress, notice: Notice) -> str:
    with locked(
        root, request, wait=lambda: notice("another process is preparing this corpus: waiting for it")
    ) as alone:
        content_hash = recall(root, request)  # it may have been made meanwhile
        if content_hash is None:
            with workshop(root, request, sweep=alone) as folder:
                built = folder / "built"
                built.mkdir()
                notices: list[str] = []
                if isinstance(data, TokensData):
                    manifest = build_ready(data, built, progress, notices.append)
                else:
                    manifest = build_text(data, built, progress, notices.append)
                manifest = replace(manifest, notices=notices)
                (built / "manifest.json").write_text(manifest_json(manifest))
                content_hash = manifest.content_hash
                publish(built, root / content_hash)
            remember(root, request, content_hash)
    return content_hash


def _check(data: Data) -> None:
    def refuse(key: str, allowed: str) -> None:
        raise RequestError(f"data.{key}={getattr(data, key)}: must be {allowed}")

    if not 0 < data.val_fraction <= 0.5:
        refuse("val_fraction", "above 0 and at most 0.5")
    if data.val_tokens < 2:
        refuse("val_tokens", "at least 2")
    if isinstance(data, TokensData):
        if data.dtype not in ("uint16", "uint32"):
            refuse("dtype", "uint16 or uint32")
        if not data.train:
            refuse("train", "a list of .bin files or globs")
        if not 2 <= data.vocab_size <= 1 << 31:
            refuse("vocab_size", "at least 2: the vocabulary of the tokenizer that made the files")
        return
    if data.unit not in ("document", "line"):
        refuse("unit", "document or line")
    if data.tokenizer == "bpe" and not 257 <= data.vocab_size <= 1 << 20:
        refuse("vocab_size", "at least 257 for bpe (256 bytes and end-of-text)")
    if data.tokenizer not in ("bytes", "bpe") and not os.path.isfile(os.path.expanduser(data.tokenizer)):
        refuse("tokenizer", "bytes, bpe or the path of a tokenizer.json, and there is no such file")
    if data.max_bytes is not None and data.max_bytes < 1:
        refuse("max_bytes", "at least 1, or null for all text")
    if isinstance(data, HubData) and data.max_bytes is None:
        refuse("max_bytes", "given for data=hub, such as data.max_bytes=200M")


def _asked(data: Data) -> dict[str, Any]:
    return {key: value for key, value in to_builtins(data).items() if key not in NOT_CONTENT}


def _fingerprint(data: Data) -> object:
    """What changes when the text behind the same request may have changed; quick to compute."""
    if isinstance(data, TokensData):
        train, val = look_all(data.train, data.dtype, "data.train"), look_all(data.val, data.dtype, "data.val")
        for file in val:
            if any(os.path.samefile(file.path, other.path) for other in train):
                raise RequestError(f"data.val={file.path}: a training file too; what validates must not be trained on")
        return [[asdict(file) for file in some] for some in (train, val)]
    paths = []
    if isinstance(data, FilesData):
        paths = files.find_files(data.files)
    elif isinstance(data, HubData):
        paths = hub.local_files(data.path) or []
    if data.tokenizer not in ("bytes", "bpe"):
        paths.append(os.path.expanduser(data.tokenizer))
    paths = [inner for path in paths for inner in (files_in(path) if os.path.isdir(path) else [path])]
    stats = [(os.path.abspath(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths]
    return [code.package_versions(data.packages) if isinstance(data, CodeData) else None, stats]
