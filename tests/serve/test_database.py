"""The database: SQLite and a real PostgreSQL come to the same schema, and stay whole."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import kilonova.serve.app  # everything that has tables
import kilonova.serve.keys.store
import kilonova.serve.ledger.tables
from kilonova.core.errors import ConfigError, KilonovaError
from kilonova.serve import database as module
from kilonova.serve.call import KeyLimits
from kilonova.serve.database import Database, default_url, metadata
from kilonova.serve.keys.master import MasterKey
from kilonova.serve.keys.store import KeyStore


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return default_url(tmp_path / "data")
    new_database: Callable[[], str] = request.getfixturevalue("new_postgres_database")
    return new_database()


def test_migrations_make_the_tables_that_the_code_expects(url: str) -> None:
    database = Database(url)
    database.migrate()
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert {"keys", "calls"} <= set(sa.inspect(connection).get_table_names())
    database.close()


def test_files_are_named_after_their_revisions() -> None:
    scripts = ScriptDirectory(str(module.MIGRATIONS))
    revisions = [script.revision for script in scripts.walk_revisions("base", "heads")]
    assert sorted(revisions) == module._revisions()
    assert scripts.get_current_head() == module._head()


def test_migrations_go_down_and_up_again(url: str) -> None:
    from alembic import command
    from alembic.config import Config

    database = Database(url)
    database.migrate()
    with database.write() as connection:
        config = Config()
        config.set_main_option("script_location", str(module.MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert set(sa.inspect(connection).get_table_names()) == {"alembic_version"}
    database.migrate()
    database.migrate()
    database.close()


def test_several_processes_may_migrate_at_once(url: str) -> None:
    code = f"from kilonova.serve.database import Database; Database({url!r}).migrate()"
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        error = process.communicate(timeout=120)[1]
        assert process.returncode == 0, error.decode()


def test_an_up_to_date_database_does_not_import_alembic(tmp_path: Path) -> None:
    url = default_url(tmp_path)
    code = f"import sys; from kilonova.serve.database import Database; Database({url!r}).migrate(); "
    code += "print('alembic' in sys.modules)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert [run.stdout.strip() for run in runs] == ["True", "False"]


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    database = Database(url)
    database.migrate()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_later'")
    with pytest.raises(ConfigError, match=r"newer version of Kilonova.*9999_later") as caught:
        database.migrate()
    assert "pass" not in str(caught.value)
    database.close()


def test_a_migration_that_fails_leaves_the_database_as_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import op

    database = Database(url)

    def fail(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("no more space")

    monkeypatch.setattr(op, "create_index", fail)
    monkeypatch.setattr(sa, "PrimaryKeyConstraint", fail)
    with pytest.raises(RuntimeError, match="no more space"):
        database.migrate()
    monkeypatch.undo()
    with database.engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == []
    database.migrate()
    database.close()


def test_keys_are_read_back_as_they_were_written(url: str) -> None:
    database = Database(url)
    database.migrate()
    store = KeyStore(database)
    limits = KeyLimits(requests_per_minute=2**40, tokens_per_day=3, budget_usd=Decimal("0.10"), budget_period="total")
    expires = datetime(2031, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    made, _ = store.create(
        MasterKey(bytes(32)), "wéb", models=["b", "a"], operations=[], limits=limits, expires_at=expires
    )
    plain, _ = store.create(MasterKey(bytes(32)), "plain")
    assert store.list() == [made, plain]
    assert made.expires_at == datetime(2031, 1, 1, 10, tzinfo=UTC)
    assert str(store.list()[0].limits.budget_usd) == "0.10"
    assert (made.principal.models, made.principal.operations) == (frozenset({"a", "b"}), frozenset())
    assert (plain.principal.models, plain.principal.operations, plain.principal.limits) == (None, None, None)
    version = store.version()
    store.note_use({made.id: datetime.now(UTC)})
    assert store.version() == version
    assert store.revoke("plain").state(datetime.now(UTC)) == "revoked"
    assert store.version() != version
    database.close()


def test_writers_wait_for_each_other(url: str) -> None:
    database = Database(url)
    database.migrate()
    store = KeyStore(database)
    key, _ = store.create(MasterKey(bytes(32)), "counter", limits=KeyLimits(requests_per_minute=1))
    table = kilonova.serve.keys.store.keys
    failures: list[Exception] = []

    def add() -> None:
        try:
            for _ in range(20):
                with database.write() as connection:
                    row = sa.select(table.c.requests_per_minute).where(table.c.id == key.id).with_for_update()
                    value = connection.execute(row).scalar_one()
                    connection.execute(table.update().values(requests_per_minute=value + 1))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.list()[0].limits.requests_per_minute == 81
    database.close()


def test_what_is_written_after_another_process_has_read_stays(tmp_path: Path) -> None:
    url = default_url(tmp_path)
    database = Database(url)
    database.migrate()
    # A second connection, as of another thread, while the first is open.
    with database.engine.connect() as first, database.engine.connect() as second:
        assert first is not second
    code = f"from kilonova.serve.database import Database; d = Database({url!r}); "
    code += "c = d.engine.connect(); print(c.exec_driver_sql('SELECT version_num FROM alembic_version').scalar()); "
    code += "c.close(); d.close()"

    def read() -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    assert read() == module._head()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'written'")
    assert read() == "written"
    database.close()


def test_an_interrupted_write_leaves_nothing(url: str) -> None:
    database = Database(url)
    database.migrate()
    table = kilonova.serve.keys.store.keys
    KeyStore(database).create(MasterKey(bytes(32)), "kept")

    def interrupt() -> None:
        with database.write() as connection:
            connection.execute(table.delete())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupt()
    assert [key.name for key in KeyStore(database).list()] == ["kept"]
    database.close()


def test_sqlite_files_are_their_owners_alone(tmp_path: Path) -> None:
    database = Database(default_url(tmp_path / "new" / "data"))
    database.migrate()
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x INTEGER)")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new" / "data").iterdir()}
    assert modes == dict.fromkeys(("kilonova.db", "kilonova.db-wal", "kilonova.db-shm"), 384)
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()


@pytest.mark.parametrize(
    "text",
    ["", "kilonova.db", "sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "oracle+nothing://h", "http://h"],
)
def test_other_urls_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"sqlite:///FILE or postgresql://") as caught:
        Database(text)
    assert "secret" not in str(caught.value)


def test_a_database_that_cannot_be_opened_is_named_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "kilonova.db").write_bytes(b"this is no database, but a text that is long enough to be read as one")
    with pytest.raises(KilonovaError, match=r"kilonova\.db cannot be opened: file is not a database"):
        Database(default_url(tmp_path)).migrate()
    pytest.importorskip("psycopg")
    with pytest.raises(KilonovaError, match="cannot be opened") as caught:
        Database("postgresql://u:secret@127.0.0.1:1/d").migrate()
    assert "secret" not in str(caught.value)
