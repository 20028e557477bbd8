"""Tables that leave: described columns, then one column per feature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow.lib import StringBuilder

from oncofm.results.files import atomic_path

FEATURE_PREFIX = "pred_"
"""Feature columns are ``pred_0 ... pred_4095``, as upstream names them."""


@dataclass(frozen=True)
class ResultTable:
    """Rows with what is known about a lesion and, where there are any, its features.

    Attributes
    ----------
    columns : pyarrow.Table
        The described columns, in order; ``n`` rows.
    features : numpy.ndarray or None
        Shape (n, n_features) float32. A row of NaN is a lesion without features.
    trailing : pyarrow.Table or None
        Columns that follow the features.
    feature_prefix : str
        Features are called ``<prefix>0``, ``<prefix>1`` ...
    """

    columns: pa.Table
    features: np.ndarray | None = None
    trailing: pa.Table | None = None
    feature_prefix: str = FEATURE_PREFIX

    def to_arrow(self) -> pa.Table:
        """Return one flat table; missing features are null, not NaN."""
        parts = [(self.columns.column_names, self.columns.columns)]
        if self.features is not None:
            parts.append(_feature_columns(self.features, self.feature_prefix))
        if self.trailing is not None:
            parts.append((self.trailing.column_names, self.trailing.columns))
        names = [name for part, _ in parts for name in part]
        return pa.Table.from_arrays([column for _, part in parts for column in part], names=names)


def table_from_rows(rows: Sequence[Mapping[str, Any]], schema: Mapping[str, type]) -> pa.Table:
    """Build a table from row mappings; the schema gives the order and the types of the columns.

    Parameters
    ----------
    rows : sequence of mapping
        Absent keys become null.
    schema : mapping of str to type
        The columns, each `str`, `int` (64 bits) or `float` (64 bits); typed even without rows.
    """
    arrays = [_column([row.get(name) for row in rows], kind) for name, kind in schema.items()]
    return pa.Table.from_arrays(arrays, names=list(schema))


def write_table(table: ResultTable, target: Path) -> None:
    """Write a table atomically; the suffix of `target` names the format.

    Parameters
    ----------
    table : ResultTable
        What to write.
    target : pathlib.Path
        ``.parquet`` or ``.csv`` (UTF-8, comma, RFC 4180 quoting, floats in the fewest digits
        that read back to the same float32).

    Raises
    ------
    OutputNotWritableError
        If the file cannot be written.
    """
    with atomic_path(target) as temporary, TableWriter(temporary, target.suffix) as writer:
        writer.write(table)


class TableWriter:
    """Write a table in pieces; all of them have the columns of the first.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    suffix : str
        ``.parquet`` or ``.csv``, as for `write_table`; a temporary name may have another one.
    """

    def __init__(self, path: Path, suffix: str) -> None:
        self._path = path
        self._open = _WRITERS[suffix.lower()]
        self._writer: Any = None

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, table: ResultTable) -> None:
        """Write some rows."""
        rows = table.to_arrow()
        if self._writer is None:
            self._writer = self._open(rows.schema, self._path)
        self._writer.write_table(rows)


def _parquet_writer(schema: pa.Schema, path: Path) -> Any:
    import pyarrow.parquet as pq

    text: Any = [field.name for field in schema if pa.types.is_string(field.type)]
    # Statistics of 4096 feature columns would be larger than the features of a small run.
    options = {"compression": "zstd", "use_dictionary": text, "write_statistics": False}
    return pq.ParquetWriter(path, schema, **options)


def _csv_writer(schema: pa.Schema, path: Path) -> Any:
    import pyarrow.csv as pc

    options = pc.WriteOptions(quoting_style="needed", quoting_header="needed")
    return pc.CSVWriter(path, schema, write_options=options)


_WRITERS = {".parquet": _parquet_writer, ".csv": _csv_writer}
TABLE_SUFFIXES = tuple(_WRITERS)


# Built from builders and buffers, because pa.array() imports pandas to look at its argument:
# 0.3 s that a short run does not have.


def _column(values: list, kind: type) -> pa.Array:
    if kind is str:
        builder = StringBuilder()
        # Names of files may hold bytes that are no text.
        builder.append_values(
            [value and value.encode(errors="backslashreplace").decode() for value in values]
        )
        return builder.finish()
    numpy_type, arrow_type = {
        int: (np.int64, pa.int64()),
        float: (np.float64, pa.float64()),
    }[kind]
    present = np.array([value is not None for value in values], dtype=bool)
    filled = np.array([value if value is not None else 0 for value in values], dtype=numpy_type)
    buffers = [_validity(present), pa.py_buffer(filled)]
    return pa.Array.from_buffers(arrow_type, len(values), buffers)


def _validity(present: np.ndarray) -> pa.Buffer | None:
    if present.all():
        return None
    return pa.py_buffer(np.packbits(present, bitorder="little").tobytes())


def _feature_columns(features: np.ndarray, prefix: str) -> tuple[list[str], list[pa.Array]]:
    n_rows, n_features = features.shape
    by_feature = np.ascontiguousarray(features.T, dtype=np.float32)
    validity = _validity(np.logical_not(np.isnan(features).all(axis=1)))
    arrays = [
        pa.Array.from_buffers(pa.float32(), n_rows, [validity, pa.py_buffer(values)])
        for values in by_feature
    ]
    return [f"{prefix}{index}" for index in range(n_features)], arrays
