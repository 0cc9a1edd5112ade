"""Responses in the database: whose they are, and how long they stay."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from kilonova.serve.database import Database, default_url
from kilonova.serve.openai.store import LIFETIME, ResponseStore, StoredResponse, responses


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    is_sqlite = request.param == "sqlite"
    opened = Database(default_url(tmp_path) if is_sqlite else request.getfixturevalue("new_postgres_database")())
    opened.migrate()
    yield opened
    opened.close()


def response(identifier, previous=None):
    body = {"id": identifier, "output": [{"text": "\0 \u2028 \U0001f600"}]}
    return StoredResponse(body=body, input=[{"id": f"input of {identifier}"}], previous_response_id=previous)


def test_a_response_belongs_to_its_key(database):
    store = ResponseStore(database)
    store.save("key", response("a"))
    store.save("key", response("b", "a"))
    assert store.get("key", "a") == response("a")
    assert store.history("key", "b") == [response("a"), response("b", "a")]
    for other in ("", "another"):
        assert store.get(other, "a") is None
        assert store.history(other, "b") == []
        assert not store.delete(other, "a")
    assert store.delete("key", "a")
    assert not store.delete("key", "a")
    assert store.history("key", "b") == [response("b", "a")]


def test_a_history_does_not_cross_keys(database):
    store = ResponseStore(database)
    store.save("one", response("a"))
    store.save("two", response("b", "a"))
    assert store.history("two", "b") == [response("b", "a")]


def test_a_long_history(database):
    store = ResponseStore(database)
    for number in range(100):
        store.save("", response(str(number), str(number - 1) if number else None))
    assert [each.body["id"] for each in store.history("", "99")] == [str(number) for number in range(100)]


def test_expired_responses_are_not_found_and_go(database):
    store = ResponseStore(database)
    store.save("", response("old"))
    store.save("", response("new", "old"))
    with database.write() as connection:
        old = datetime.now(UTC) - timedelta(seconds=1)
        connection.execute(sa.update(responses).where(responses.c.id == "old").values(expires_at=old))
    assert store.get("", "old") is None
    assert [each.body["id"] for each in store.history("", "new")] == ["new"]
    ResponseStore(database).save("", response("newer"))
    with database.engine.connect() as connection:
        rows = connection.execute(sa.select(responses.c.id, responses.c.created_at, responses.c.expires_at)).all()
    assert {row.id for row in rows} == {"new", "newer"}
    assert all(row.expires_at - row.created_at == LIFETIME for row in rows)


def test_the_migration_makes_the_table_that_is_used(database):
    inspector = sa.inspect(database.engine)
    columns = {column["name"]: column for column in inspector.get_columns("responses")}
    assert columns.keys() == {column.name for column in responses.columns}
    assert all(columns[column.name]["nullable"] == column.nullable for column in responses.columns)
    assert [index["name"] for index in inspector.get_indexes("responses")] == ["ix_responses_expires_at"]
