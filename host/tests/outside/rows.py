"""What three readers that are not nodata see in the files of one topic.

usage: rows.py DATA_DIRECTORY TOPIC
Prints one JSON object: for each reader, the count of events, of different (partition, offset), and by partition the first and
the last offset.
"""

import json
import sys

import duckdb
import polars
import pyarrow.dataset

data, topic = sys.argv[1:]
files = f"{data}/topic={topic}/**/*.parquet"


def summary(rows):
    """Of (partition, offset) pairs, sorted."""
    partitions = {}
    for partition, offset in rows:
        first, _ = partitions.get(partition, (offset, offset))
        partitions[partition] = (first, offset)
    return {
        "count": len(rows),
        "different": len(set(rows)),
        "partitions": {str(partition): list(range_) for partition, range_ in sorted(partitions.items())},
    }


def by_duckdb():
    query = f"select partition, _offset from read_parquet('{files}', hive_partitioning = true) order by 1, 2"
    return [(int(partition), offset) for partition, offset in duckdb.sql(query).fetchall()]


def by_pyarrow():
    dataset = pyarrow.dataset.dataset(f"{data}/topic={topic}", format="parquet", partitioning="hive")
    table = dataset.to_table(columns=["partition", "_offset"])
    return sorted(zip(table["partition"].to_pylist(), table["_offset"].to_pylist()))


def by_polars():
    frame = polars.scan_parquet(files, hive_partitioning=True).select("partition", "_offset").collect()
    return sorted(frame.iter_rows())


readers = {"duckdb": by_duckdb, "pyarrow": by_pyarrow, "polars": by_polars}
print(json.dumps({name: summary(read()) for name, read in readers.items()}))
