"""Reads the files of one topic again and again while they are written, until standard input ends.

usage: watch.py DATA_DIRECTORY TOPIC READER [--retention]
Whatever it sees must be true at that moment: no error, no event twice, none missing between the first and the last of a
partition, and never fewer than before (with --retention: never an earlier end). Prints how many queries it made.
"""

import select
import sys

import duckdb
import pyarrow.dataset

data, topic, reader = sys.argv[1:4]
has_retention = "--retention" in sys.argv
files = f"{data}/topic={topic}/**/*.parquet"


def by_duckdb():
    query = f"""select partition, count(*), count(distinct _offset), min(_offset), max(_offset), sum(octet_length(value))
        from read_parquet('{files}', hive_partitioning = true) group by 1"""
    try:
        return duckdb.connect().sql(query).fetchall()
    except duckdb.IOException as error:
        if "No files found" in str(error):
            return []
        raise


def by_pyarrow():
    dataset = pyarrow.dataset.dataset(f"{data}/topic={topic}", format="parquet", partitioning="hive")
    if not dataset.files:
        return []
    table = dataset.to_table(columns=["partition", "_offset", "value"])
    rows = {}
    for partition, offset in zip(table["partition"].to_pylist(), table["_offset"].to_pylist()):
        rows.setdefault(partition, []).append(offset)
    return [(at, len(found), len(set(found)), min(found), max(found), 0) for at, found in rows.items()]


read = {"duckdb": by_duckdb, "pyarrow": by_pyarrow}[reader]
ends, counts, queries = {}, {}, 0
while True:
    ended = bool(select.select([sys.stdin], [], [], 0)[0])
    try:
        seen = read()
    except FileNotFoundError:
        # Between listing and opening, retention may remove a file; a reader of files has to expect that and nothing else.
        if not has_retention:
            raise
        continue
    except duckdb.IOException as error:
        if not has_retention or "No such file" not in str(error):
            raise
        continue
    for partition, count, different, first, last, _ in seen:
        where = f"partition {partition} at query {queries}: {count} events, {different} different, {first} to {last}"
        assert count == different == last - first + 1, where
        assert last >= ends.get(partition, 0), f"{where}; the last was {ends[partition]} before"
        assert has_retention or count >= counts.get(partition, 0), f"{where}; there were {counts[partition]} before"
        ends[partition], counts[partition] = last, count
    queries += 1
    if ended:
        break
print(queries)
