"""Starts the server and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from kilonova.core.errors import ConfigError
from kilonova.models.registry import ModelEntry, Registry, models_home
from kilonova.serve.database import Database, default_url
from kilonova.serve.keys.authentication import open_authenticator
from kilonova.serve.ledger.ledger import Ledger
from kilonova.serve.lifecycle import Lifecycle
from kilonova.serve.models import ModelServer
from kilonova.serve.origins import is_loopback
from kilonova.serve.settings import Settings
from kilonova.serve.telemetry.logs import configure_logs
from kilonova.serve.telemetry.traces import Traces
from kilonova.serve.tls import CertificateFiles, certificate_files

if TYPE_CHECKING:
    from kilonova.serve.connection import Connection

# How long connections may take to close once every answer has ended.
_CLOSING_SECONDS = 2
# How long the event loop may run Python while an engine's thread, between two calls of a kernel, waits for it: Python's
# own 5 ms are longer than such a call.
_SWITCH_SECONDS = 0.0005


class _Server(uvicorn.Server):
    """uvicorn's, which loads models while it answers already, and ends every answer in its protocol's way."""

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        grace: float,
        loading: Future,
        on_ready: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self.failure: Exception | None = None
        self._lifecycle = lifecycle
        self._grace = grace
        self._loading = loading
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._waiting = asyncio.create_task(self._wait_for_models())

    async def _wait_for_models(self) -> None:
        try:
            await asyncio.wrap_future(self._loading)
        except Exception as error:
            self.failure = error
            self._stop()
        else:
            self._lifecycle.is_loading = False
            # What was made by now stays: looking through it again would hold up every stream.
            gc.collect()
            gc.freeze()
            await self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Connections are still accepted: who comes now is told that the server stops, and not that there is none.
        await self._lifecycle.drain(self._grace)
        for connection in cast("set[Connection]", self.server_state.connections.copy()):
            if connection.is_answering:
                connection.abort()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self._lifecycle.stop()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was obeyed is not raised again, so that a stopped server exits with 0."""
        handlers = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that is ready: its base URL, whether requests need a key, and the certificate authority of its own that
    clients have to trust, if it has made one."""

    url: str
    needs_key: bool
    authority: Path | None


def serve(settings: Settings, *, on_ready: Callable[[Running], None] | None = None) -> None:
    """Serves the shipped models, those imported under the data directory, and those of the settings, until stopped.

    The models named in the settings, or else the registry's first of text, and the bases of adapters are loaded at
    once; the others, and the adapters' own weights, when they are first asked for. The port answers meanwhile;
    `on_ready` is called once they are there. SIGINT and SIGTERM let running answers finish, for a while. Raises
    CheckpointError and ConfigError for a model that cannot be loaded, and OSError when the address cannot be bound.
    """
    configure_logs(settings.telemetry)
    at = settings.server
    data = data_directory(settings)
    registry = open_registry(settings)
    traces = Traces.from_settings(settings.telemetry)
    with contextlib.ExitStack() as closing:
        database = Database(default_url(data) if at.database is None else at.database)
        closing.callback(database.close)
        database.migrate()
        reachable = not is_loopback(at.host)
        authenticator = open_authenticator(database, data, at.host, reachable=reachable, is_open=at.open)
        files = _certificate(settings, data)
        listener = closing.enter_context(_bind(at.host, at.port))
        pool = closing.enter_context(ThreadPoolExecutor(max_workers=1))
        drafts = {name: Path(directory) for name, directory in settings.drafts.items()}
        models = ModelServer(registry, settings.engine, drafts)
        first = [registry.get(name) for name in (*settings.models, *settings.adapters)] or _first(registry)
        loading = pool.submit(models.prepare, first)
        lifecycle = Lifecycle(settings.limits)
        lifecycle.is_loading = True

        from kilonova.serve.app import create_app
        from kilonova.serve.connection import Connection

        app = create_app(
            models,
            database=database,
            ledger=Ledger(database, settings.prices),
            authenticator=authenticator,
            lifecycle=lifecycle,
            observers=[traces.observe_call] if traces is not None else [],
            on_close=[authenticator.close, *([traces.close] if traces is not None else [])],
        )
        config = uvicorn.Config(
            app,
            http=cast(Any, partial(Connection, limits=settings.limits)),
            ws="none",
            access_log=False,
            log_level="warning",
            log_config=None,
            lifespan="on",
            timeout_keep_alive=cast(int, at.keep_alive_seconds),
            timeout_graceful_shutdown=_CLOSING_SECONDS,
            server_header=False,
            ssl_certfile=None if files is None else files.certificate,
            ssl_keyfile=None if files is None else files.key,
        )
        host = f"[{at.host}]" if ":" in at.host else at.host
        url = f"{'http' if files is None else 'https'}://{host}:{listener.getsockname()[1]}"

        async def ready() -> None:
            if on_ready is not None:
                needs_key = not await authenticator.is_open()
                on_ready(Running(url=url, needs_key=needs_key, authority=files.authority if files else None))

        server = _Server(config, lifecycle, at.grace_seconds, loading, ready)
        sys.setswitchinterval(_SWITCH_SECONDS)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[listener]))
        if server.failure is not None:
            raise server.failure


def _first(registry: Registry) -> list[ModelEntry]:
    """The first model of text, as a list; empty without one."""
    return [entry for entry in registry.entries() if not entry.makes_pictures][:1]


def _certificate(settings: Settings, data: Path) -> CertificateFiles | None:
    at = settings.server
    if not (at.tls or at.tls_certificate or at.tls_key):
        return None
    return certificate_files(
        data,
        at.host,
        Path(at.tls_certificate) if at.tls_certificate else None,
        Path(at.tls_key) if at.tls_key else None,
    )


def data_directory(settings: Settings) -> Path:
    """Where the server keeps what it keeps."""
    return models_home().parent if settings.server.data is None else Path(settings.server.data)


def open_registry(settings: Settings) -> Registry:
    """The models that the settings name, beside the shipped and the imported. Raises ConfigError or CheckpointError."""
    adapters: dict[str, tuple[str, Path]] = {}
    for name, value in settings.adapters.items():
        base, _, directory = value.rpartition(":")
        if not base or not directory:
            raise ConfigError(f"adapters.{name}: BASE:DIR is expected, where BASE is a model's name; it is {value!r}")
        adapters[name] = base, Path(directory)
    models = {name: Path(directory) for name, directory in settings.models.items()}
    return Registry(models, adapters, home=data_directory(settings) / "models")


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
