"""Alembic's migrations of the server's database. A file of `versions` is named after its revision: `0001_keys`."""
