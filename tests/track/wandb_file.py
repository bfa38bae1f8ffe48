"""Reads the file of an offline run: LevelDB's log format (blocks of 32 kB) around wandb's own records."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Record]:
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, parts = 7, []
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        crc, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part = data[at + 7 : at + 7 + length]
        assert crc == zlib.crc32(part, zlib.crc32(bytes([kind]))), "not as it was written"
        at += 7 + length
        parts.append(part)
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record
    assert not parts, "it ends within a record"


def read(path: Path) -> dict[str, Any]:
    """What an offline run holds: about, config, history, summary, files, artifacts, exit."""
    found: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "files": [], "artifacts": [], "metrics": {}}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found["about"] = {"id": run.run_id, "name": run.display_name, "group": run.run_group, "job": run.job_type}
            found["tags"], found["project"] = list(run.tags), run.project
            found["config"] |= {item.key: json.loads(item.value_json) for item in run.config.update}
        elif kind == "config":
            found["config"] |= {item.key: json.loads(item.value_json) for item in record.config.update}
        elif kind == "history":
            found["history"].append(_values(record.history.item))
        elif kind == "summary":
            for item in record.summary.update:
                place = found["summary"]
                *path_, last = list(item.nested_key) or [item.key]
                for key in path_:
                    place = place.setdefault(key, {})
                place[last] = json.loads(item.value_json)
        elif kind == "metric":
            found["metrics"][record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "files":
            found["files"] += [f.path for f in record.files.files]
        elif kind == "artifact":
            found["artifacts"].append((record.artifact.type, record.artifact.name))
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def _values(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
