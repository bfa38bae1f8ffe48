"""Documents and files that hold them, as tests of reading need them."""

import io
import json
import random
import tarfile
import zipfile

import pandas as pd

WORDS = ["time", "river", "stone", "light", "answer", "morning", "garden", "paper", "window", "music"]
END = "<|endoftext|>"
DRAWN = random.Random(0)
DOCS = [" ".join(DRAWN.choices(WORDS, k=60)).capitalize() + f". #{k}" for k in range(300)]
RECORDS = [{"id": k, "text": text} for k, text in enumerate(DOCS)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
TABLE = pd.DataFrame(RECORDS)


def parquet() -> bytes:
    file = io.BytesIO()
    TABLE.to_parquet(file)
    return file.getvalue()


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "a text " * 200)
    return file.getvalue()


def tarred(format: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for k, text in enumerate(DOCS):
            info = tarfile.TarInfo(f"{k}.txt")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return file.getvalue()


def arrow() -> bytes:
    import pyarrow

    sink = io.BytesIO()
    table = pyarrow.Table.from_pandas(TABLE)
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
