"""The server's database: SQLite beside its data, or PostgreSQL by URL, brought up to date when it is opened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.types import DateTime, TypeDecorator

from kilonova.core.errors import ConfigError, KilonovaError

# Names for constraints, so that migrations can change them later on either database.
metadata = sqlalchemy.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

MIGRATIONS = Path(__file__).with_name("migrations")

# How long a writer waits for another one's transaction.
BUSY_SECONDS = 30
_MIGRATION_LOCK = 0x6B696C6F  # PostgreSQL's advisory lock of whoever migrates


class UTCDateTime(TypeDecorator[datetime]):
    """Times with a zone, as UTC; SQLite keeps none, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def default_url(data_dir: Path) -> str:
    """The URL of the SQLite database in a data directory."""
    return f"sqlite:///{data_dir.absolute() / 'kilonova.db'}"


class Database:
    """Connections to the database at `url`: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`.

    Connecting happens when it is first used. SQLite runs in WAL mode, so readers and the one writer do not wait for
    each other; a committed transaction survives the death of the process. A database that did not exist yet is
    readable by its owner only. Raises ConfigError for a URL of any other kind.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse_url(url)
        self._sqlite = self.url.get_backend_name() == "sqlite"
        wait = {"timeout": BUSY_SECONDS} if self._sqlite else {"connect_timeout": 10}
        self.engine: Engine = sqlalchemy.create_engine(self.url, connect_args=wait, pool_pre_ping=not self._sqlite)
        if self._sqlite:
            event.listen(self.engine, "do_connect", _create_private_file)
            event.listen(self.engine, "connect", _set_up_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that will write, committed when the block ends.

        On SQLite it takes the write lock at once: a transaction that reads first and writes later cannot wait for
        another writer and would fail instead.
        """
        engine = self.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        with engine.begin() as connection:
            yield connection

    def migrate(self) -> None:
        """Creates the tables, or brings those of an older version up to date; quick when there is nothing to do.

        Raises ConfigError for a database that a newer version has written, and KilonovaError for one that cannot be
        opened.
        """
        try:
            if self._revision() != _head():
                self._upgrade()
        except DBAPIError as error:
            raise KilonovaError(f"the database {self} cannot be opened: {_first_line(error)}") from error

    def close(self) -> None:
        """Closes every connection."""
        self.engine.dispose()

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def _revision(self) -> str | None:
        with self.engine.connect() as connection:
            return _read_revision(connection)

    def _upgrade(self) -> None:
        # Alembic is slow to import, and rarely needed.
        from alembic import command
        from alembic.config import Config

        with self.write() as connection:
            if not self._sqlite:
                connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            revision = _read_revision(connection)
            if revision is not None and revision not in _revisions():
                raise ConfigError(
                    f"the database {self} was written by a newer version of Kilonova (its revision is {revision}, the "
                    f"last known here {_head()}); upgrade Kilonova, or name another database"
                )
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _parse_url(text: str) -> URL:
    expected = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME is expected"
    try:
        url = make_url(text)
        backend = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise ConfigError(f"the database URL cannot be read: {expected}") from error
    if backend == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigError(f"database {text}: {expected}, and the database must be a file")
        return url.set(drivername="sqlite+pysqlite")
    if backend in ("postgresql", "postgres"):
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise ConfigError("psycopg must be installed first: pip install 'kilonova[postgres]'") from error
        return url.set(drivername="postgresql+psycopg")
    raise ConfigError(f"database {url.render_as_string(hide_password=True)}: {expected}")


def _create_private_file(dialect: Dialect, record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
    path = Path(arguments[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite gives its write-ahead log the permissions of the database. A file that is there must not be opened: closing
    # it would end the locks of every connection that this process has, whose log another process would then delete.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _set_up_sqlite(connection: Any, record: Any) -> None:
    # Transactions are begun below: the driver's own idea of them leaves out statements that define tables.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def _revisions() -> list[str]:
    """Every migration in order: their files are named after their revisions, which are numbered."""
    return sorted(path.stem for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _head() -> str:
    return _revisions()[-1]


def _read_revision(connection: Connection) -> str | None:
    if not sqlalchemy.inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _first_line(error: DBAPIError) -> str:
    return (str(error.orig).strip().splitlines() or ["no reason given"])[0]
