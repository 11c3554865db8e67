"""Read a table of many files one after another, and keep a random sample of its rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from podium.project import Project
from podium.schema.data_errors import BadData, Problem
from podium.schema.reading import Finding, counted
from podium.storage.datasets import split_url
from podium.storage.object_store import Store
from podium.storage.table_parts import TableParts
from podium.tables.readers import SourceTable
from podium.training.reading import read_training_table

MAX_SHOWN = 5


def read_parts(parts: TableParts, source: Store, project: Project) -> SourceTable:
    """Return at most `cleaning.max_rows` rows of all files, in order, as text. Memory is that of these and of one file.

    Files without rows are left out. Raises BadData, which names the file, and SourceChanged.
    """
    sample, first, findings = RowSample(project.cleaning.max_rows, project.seed), None, dict[Finding, None]()
    empty: list[str] = []
    for number, part in enumerate(parts.files):
        name = part.key.removeprefix(split_url(parts.url)[1])
        try:
            read = read_training_table(part.read(source), project, part.key)
            first = first or read
            _check_alike(first, read)
        except BadData as error:
            if [each.code for each in error.problems] == ["empty-input"]:
                empty.append(name)
                continue
            raise BadData([replace(each, message=f"{name}: {each.message}") for each in error.problems]) from None
        sample.add(number, read.table.select(first.table.column_names))
        findings |= dict.fromkeys(read.findings)
        if read.reading.encoding != "utf-8":
            first.reading = replace(first.reading, encoding=read.reading.encoding)
    if first is None:
        raise BadData([Problem("empty-input", f"none of the files in {parts.url} has rows")])
    if empty:
        shown = ", ".join(empty[:MAX_SHOWN]) + ", …" * (len(empty) > MAX_SHOWN)
        findings[Finding("", f"{counted(len(empty), 'file')} without rows left out: {shown}")] = None
    rows, files = counted(sample.rows, "row"), counted(len(parts.files), "file")
    if sample.rows > project.cleaning.max_rows:
        message = f"{rows} in {files}; a random sample of {project.cleaning.max_rows:,} is used"
        setting = f"cleaning.max_rows = {sample.rows}"
    else:
        message, setting = f"{rows} in {files}", ""
    return SourceTable(sample.table(), first.reading, [Finding("", message, setting), *findings])


def _check_alike(first: SourceTable, read: SourceTable) -> None:
    """Raise BadData unless a file has the columns of the first one, in any order, and is read like it but for its encoding."""
    names, expected = read.table.column_names, first.table.column_names
    missing, unknown = [name for name in expected if name not in names], [name for name in names if name not in expected]
    differences = [f"has no column {', '.join(missing[:MAX_SHOWN])}"] * bool(missing)
    differences += [f"has the column {', '.join(unknown[:MAX_SHOWN])}, which is not in the first file"] * bool(unknown)
    if differences:
        raise BadData([Problem("csv-header", " and ".join(differences))])
    if replace(read.reading, encoding=first.reading.encoding) != first.reading:
        message = "has another delimiter, comments or header than the first file; write it like that, or set these in [reading]"
        raise BadData([Problem("csv-header", message)])


@dataclass(slots=True)
class RowSample:
    """Keeps the rows with the smallest random keys, which are the same whenever the same files are read."""

    max_rows: int
    seed: int
    rows: int = 0
    _tables: list[pa.Table] = field(default_factory=list)
    _keys: list[np.ndarray] = field(default_factory=list)

    def add(self, number: int, table: pa.Table) -> None:
        """Add the rows of the file with this number."""
        self.rows += table.num_rows
        self._tables.append(table)
        self._keys.append(np.random.default_rng((self.seed, number)).random(table.num_rows))
        if sum(map(len, self._keys)) > 2 * self.max_rows:
            self._shrink()

    def table(self) -> pa.Table:
        """Return the rows of the sample in the order in which they were added."""
        self._shrink()
        return self._tables[0]

    def _shrink(self) -> None:
        table, keys = pa.concat_tables(self._tables), np.concatenate(self._keys)
        if len(keys) > self.max_rows:
            is_kept = np.zeros(len(keys), dtype=bool)
            is_kept[np.argpartition(keys, self.max_rows)[: self.max_rows]] = True
            table, keys = table.filter(pa.array(is_kept)), keys[is_kept]  # `take` would join texts of over 2 GB
        self._tables, self._keys = [table], [keys]
