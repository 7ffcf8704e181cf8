"""The rows that DuckDB answers to a query, as JSON.

usage: query.py QUERY
"""

import json
import sys

import duckdb

print(json.dumps([list(row) for row in duckdb.sql(sys.argv[1]).fetchall()]))
