"""The ledger's tables: one row a call, and the servers that write them."""

from __future__ import annotations

import sqlalchemy as sa

from kilonova.serve.database import metadata

# `running` is a call whose end is not known yet. Of the others, `refused` ones never reached a model, `cancelled` ones
# lost their client, and `lost` ones their server.
STATUSES = ("running", "finished", "cancelled", "failed", "refused", "lost")

# Times are milliseconds since 1970 in UTC, durations seconds. `input_tokens` leaves out what was read from and written
# to the prefix cache. Pictures are all of the size, as `1024x1024`, and the quality. Prices are in picodollars.
calls = sa.Table(
    "calls",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("server_id", sa.String(32), nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("key_id", sa.String(64), nullable=False),
    sa.Column("key_name", sa.String(100), nullable=False),
    sa.Column("protocol", sa.String(16), nullable=False),
    sa.Column("operation", sa.String(64), nullable=False),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("service_tier", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("http_status", sa.Integer, nullable=True),
    sa.Column("error", sa.String(100), nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("cache_read_tokens", sa.BigInteger, nullable=False),
    sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
    sa.Column("images", sa.Integer, nullable=False),
    sa.Column("video_seconds", sa.Integer, nullable=False),
    sa.Column("time_to_first_token", sa.Double, nullable=True),
    sa.Column("latency", sa.Double, nullable=True),
    sa.Column("stop_reason", sa.String(64), nullable=False),
    sa.Column("price", sa.BigInteger, nullable=False),
    sa.Column("price_entry", sa.String(200), nullable=False),
    sa.Column("request_metadata", sa.JSON, nullable=False),
    sa.Column("image_size", sa.String(16), nullable=False, server_default=""),
    sa.Column("image_quality", sa.String(16), nullable=False, server_default=""),
    sa.Index("ix_calls_started_at", "started_at"),
    sa.Index("ix_calls_key_id_started_at", "key_id", "started_at"),
)
# Few rows run at any time, so that finding those of dead servers reads no more than them.
sa.Index(
    "ix_calls_running",
    calls.c.server_id,
    sqlite_where=calls.c.status == "running",
    postgresql_where=calls.c.status == "running",
)

# A server is a process with a ledger. `host` tells apart those whose process ids mean nothing to each other, and
# `process_started` (seconds since 1970) a process from a later one of the same id.
servers = sa.Table(
    "servers",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("host", sa.String(200), nullable=False),
    sa.Column("process_id", sa.Integer, nullable=False),
    sa.Column("process_started", sa.Double, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
)
