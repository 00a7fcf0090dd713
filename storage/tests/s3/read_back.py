"""Reads an archive's table from S3 with what knows nothing of Dwell: deltalake and DuckDB.

usage: read_back.py ENDPOINT s3://BUCKET/FOLDER/TENANT/KIND
prints for each reader: its name, rows, sum of ts, distinct tracks
"""
import os
import sys

import duckdb
from deltalake import DeltaTable
from duckdb_extensions import import_extension

endpoint, table = sys.argv[1:]
key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
region = os.environ.get("AWS_REGION", "us-east-1")
is_plain = endpoint.startswith("http://")

delta = DeltaTable(
    table,
    storage_options={
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": str(is_plain).lower(),
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": region,
    },
)
rows = delta.to_pyarrow_table(columns=["track", "ts"])
print("deltalake", len(rows), sum(rows["ts"].to_pylist()), len(set(rows["track"].to_pylist())))

for extension in ("httpfs", "delta"):
    import_extension(extension)
db = duckdb.connect()
db.execute("load httpfs; load delta")
db.execute(
    f"""create secret (type s3, key_id '{key}', secret '{secret}', region '{region}',
        endpoint '{endpoint.split("://")[1]}', use_ssl {str(not is_plain).lower()}, url_style 'path')"""
)
query = "select count(*), sum(ts)::hugeint, count(distinct track) from delta_scan(?)"
print("duckdb", *db.execute(query, [table]).fetchone())
