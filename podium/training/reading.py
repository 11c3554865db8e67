"""Read a project's table as its `[reading]` section says, or as its text shows."""

from __future__ import annotations

from podium.project import Project
from podium.schema.data_errors import Malformed, Problem
from podium.schema.reading import Finding, Reading
from podium.tables.csv_header import DELIMITERS, HeaderOptions
from podium.tables.parquet_pages import MAGIC
from podium.tables.readers import ReadOptions, SourceTable, read_source
from podium.training.totals import without_totals

FALLBACK_ENCODING = "windows-1252"
"""The encoding of text that is not UTF-8, as Excel writes it in Western Europe and America."""


def read_options(project: Project, url: str) -> ReadOptions:
    """Return how to read a table of the project at a path or URL."""
    options = project.reading
    known = {project.target, *project.columns}
    if project.split.column:
        known.add(project.split.column)
    if project.panel:
        known |= {project.panel.entity, project.panel.time}
    delimiter = "\t" if options.delimiter == "tab" else options.delimiter
    reading = Reading(options.encoding or FALLBACK_ENCODING, delimiter or ",", comment=options.comment, names=options.names)
    return ReadOptions(
        gzipped=url.endswith(".gz"),
        header=HeaderOptions(reading, known, delimiter, options.skip_rows),
        is_training=True,
    )


def read_training_table(data: bytes, project: Project, url: str) -> SourceTable:
    """Read a table of the project as text without totals, and note the encoding and the delimiter. Raises BadData."""
    if url.endswith(".parquet") and not data.startswith(MAGIC):
        message = "the file is not Parquet, or is damaged; write it again, or name it .csv if it is text"
        raise Malformed([Problem("parquet-malformed", message)])
    source = read_source(data, read_options(project, url))
    source.table, totals = without_totals(source.table, project.reading.skip_footer)
    source.findings += totals
    reading, given = source.reading, project.reading
    if reading.encoding != "utf-8" and given.encoding is None:
        source.findings.append(Finding("", f"text read as {reading.encoding}", f'reading.encoding = "{reading.encoding}"'))
    if reading.delimiter != "," and given.delimiter is None:
        mark = "tab" if reading.delimiter == "\t" else reading.delimiter
        name = DELIMITERS.get(reading.delimiter, reading.delimiter)
        setting = f'reading.delimiter = "{mark}"' if reading.delimiter in DELIMITERS else ""
        source.findings.append(Finding("", f"the delimiter is a {name}", setting))
    if reading.names:
        source.findings.append(Finding("", "the table has no header row; reading.names are its columns"))
    return source
