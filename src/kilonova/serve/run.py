"""Starts the server and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn

from kilonova.engine.config import EngineConfig
from kilonova.models.registry import Registry
from kilonova.serve.models import ModelServer

# How long running answers may take to finish once the server is told to stop.
GRACEFUL_SHUTDOWN_SECONDS = 15


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was obeyed is not raised again, so that a stopped server exits with 0."""
        handlers = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)


def serve(
    *,
    host: str,
    port: int,
    models: Mapping[str, Path],
    data_dir: Path,
    on_ready: Callable[[str], None] | None = None,
    adapters: Mapping[str, tuple[str, Path]] | None = None,
    drafts: Mapping[str, Path] | None = None,
    engine: EngineConfig | None = None,
) -> None:
    """Serves the shipped models, those imported under `data_dir`, and `models` (name to directory), until stopped.

    `adapters` are more names, of PEFT directories and the models they belong to (see `Registry`), and `drafts` the
    directories of smaller models that guess for those named. `engine` is for every model. The models named in
    `models`, or else the registry's first, and the bases of `adapters` are loaded before the port opens; the others,
    and the adapters' own weights, when they are first asked for. `on_ready` is called with the base URL once requests
    are accepted; port 0 takes a free one. SIGINT and SIGTERM let running answers finish, for a while. Raises
    CheckpointError and ConfigError for a model that cannot be loaded, and OSError when the address cannot be bound.
    """
    _log_to_stderr()
    listener = _bind(host, port)
    with listener, ThreadPoolExecutor(max_workers=1) as pool:
        registry = Registry(models, adapters, home=data_dir / "models")
        server_models = ModelServer(registry, engine, drafts)
        first = [registry.get(name) for name in (*models, *(adapters or ()))] or list(registry.entries()[:1])
        loading = pool.submit(lambda: [server_models.load(entry) for entry in first])

        from kilonova.serve.app import create_app

        app = create_app(server_models)
        loading.result()
        url_host = f"[{host}]" if ":" in host else host
        base_url = f"http://{url_host}:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            app,
            access_log=False,
            log_level="warning",
            log_config=None,
            lifespan="on",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
            server_header=False,
        )
        server = _Server(config, lambda: on_ready(base_url) if on_ready is not None else None)
        asyncio.run(server.serve(sockets=[listener]))


def _log_to_stderr() -> None:
    logger = logging.getLogger("kilonova")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


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
