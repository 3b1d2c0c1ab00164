"""Readings as one Parquet file."""

from pathlib import Path

import duckdb

from duha_backend.duck_tables import timed
from duha_backend.errors import StoreDown
from duha_backend.readings import Frame

_TIMED = "SELECT * REPLACE (ts::TIMESTAMP AS ts) FROM batch"


class ParquetFile:
    """Gathers frames, on disk and not in memory, and writes them as one Parquet file.

    Raises
    ------
    StoreDown
        The folder's disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._db = duckdb.connect(str(folder / "frames.duckdb"))
        self._db.execute("SET TimeZone = 'UTC'")
        self._db.execute("SET memory_limit = '256MiB'")
        self._begun = False

    def add(self, frame: Frame) -> None:
        """Add the rows of a frame."""
        batch = timed(frame)
        way = "INSERT INTO frames" if self._begun else "CREATE TABLE frames AS"
        try:
            self._db.execute(f"{way} {_TIMED}")
        except duckdb.Error as error:
            raise StoreDown(str(error)) from error
        self._begun = True
        del batch

    def write(self, path: Path) -> None:
        """Write everything, `ts` as a time in UTC; without any row the columns alone."""
        name = str(path).replace("'", "''")
        try:
            if not self._begun:
                self._db.execute("CREATE TABLE frames (device VARCHAR, ts TIMESTAMP)")
            self._db.execute(
                "COPY (SELECT * REPLACE (ts AT TIME ZONE 'UTC' AS ts) FROM frames)"  # noqa: S608
                f" TO '{name}' (FORMAT parquet, COMPRESSION zstd)"
            )
        except duckdb.Error as error:
            raise StoreDown(str(error)) from error

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
