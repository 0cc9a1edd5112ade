"""The settings of a server: `kilonova.toml`, the environment over it, and what the command line gives over both."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from msgspec import Meta

from kilonova.core.config import parse_config
from kilonova.core.errors import ConfigError
from kilonova.engine.config import EngineConfig
from kilonova.serve.ledger.prices import PricesSection

FILE_NAME = "kilonova.toml"
ENVIRONMENT_PREFIX = "KILONOVA_"

_ENGINE_DOCS = {
    "max_num_seqs": "Requests of a model that run together; more of them wait.",
    "max_context": "Longest conversation in tokens, where less than the model's own.",
    "max_queue": "Requests of a model that may wait; more are throttled.",
    "kv_cache_bytes": "Most memory of a model's key-value cache; else a quarter of the machine's.",
    "max_loras": "Adapters of a model that are held in memory; others are loaded in turn.",
    "max_lora_rank": "Highest rank of an adapter.",
    "quantization": 'Round the weights while loading: "int8" or "int4".',
    "speculate": "Check guesses of the next words where that pays; the text stays the same.",
}
_TABLES = {
    "models": (
        'mine = "runs/mine/model"',
        "Checkpoints to serve beside the shipped and imported ones: names to directories.",
    ),
    "adapters": (
        'polite = "micro:runs/polite/model"',
        "LoRA adapters: names to the model each belongs to and its PEFT directory.",
    ),
    "drafts": ('mine = "runs/small/model"', "Smaller models that guess for others: names of those to directories."),
}
_PRICES_EXAMPLE = (
    "# Prices by a model's name or alias, in US dollars for a million tokens, over Amazon's for Nova.",
    "# [prices.models.mine]",
    "# input = 0.05",
    "# output = 0.2",
)
# Members of [server] that are paths; in a file they are relative to it, as those of the tables above are.
_PATHS = ("data", "tls_certificate", "tls_key")

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, kw_only=True)
class ServerSection:
    """`[server]`: where it listens and what it keeps."""

    host: str = field(
        default="127.0.0.1",
        metadata={"doc": "Address to listen on. One that other machines reach needs a key, or open."},
    )
    port: Port = field(default=8080, metadata={"doc": "Port to listen on; 0 takes a free one."})
    open: bool = field(
        default=False, metadata={"doc": "Let anyone who can reach the address use the server, without a key."}
    )
    data: str | None = field(
        default=None,
        metadata={"doc": "Directory for imported models and what the server keeps; else the platform's place for it."},
    )
    database: str | None = field(
        default=None,
        metadata={
            "doc": "URL of the database: sqlite:///FILE or postgresql://...; else kilonova.db in the data directory."
        },
    )
    tls: bool = field(
        default=False, metadata={"doc": "Speak HTTPS, with a certificate of its own unless one is named."}
    )
    tls_certificate: str | None = field(default=None, metadata={"doc": "Certificate chain for HTTPS (PEM)."})
    tls_key: str | None = field(default=None, metadata={"doc": "Private key of the certificate (PEM)."})
    grace_seconds: Annotated[float, Meta(ge=0)] = field(
        default=15.0, metadata={"doc": "How long running answers may take to finish once the server is told to stop."}
    )
    keep_alive_seconds: Seconds = field(default=75.0, metadata={"doc": "How long an idle connection is kept."})


@dataclass(frozen=True, kw_only=True)
class LimitsSection:
    """`[limits]`: what one request, one client and all of them may take."""

    max_body_bytes: Count = field(default=25_000_000, metadata={"doc": "Longest body of a request."})
    max_header_bytes: Count = field(
        default=65_536, metadata={"doc": "Longest target and headers of a request, together."}
    )
    max_connections: Count = field(default=2048, metadata={"doc": "Connections at a time; more are closed at once."})
    max_concurrent_requests: Count = field(
        default=1024, metadata={"doc": "Requests at a time, running or waiting; more are throttled."}
    )
    request_seconds: Seconds = field(
        default=3600.0, metadata={"doc": "Longest time from a request's arrival to the end of its answer."}
    )
    queue_seconds: Seconds = field(
        default=120.0, metadata={"doc": "Longest wait for a place in the engine; then the request is throttled."}
    )
    receive_seconds: Seconds = field(
        default=60.0, metadata={"doc": "Longest time a client may take to send its headers, and then its body."}
    )
    write_seconds: Seconds = field(
        default=60.0, metadata={"doc": "Longest time a client may leave what it was sent unread."}
    )


@dataclass(frozen=True, kw_only=True)
class TelemetrySection:
    """`[telemetry]`: logs and traces; metrics are at /metrics."""

    log_format: Literal["text", "json"] = field(
        default="text", metadata={"doc": "Lines for people, or one JSON object a line."}
    )
    log_level: Literal["debug", "info", "warning", "error"] = field(
        default="info", metadata={"doc": "Least severity that is logged."}
    )
    otlp_endpoint: str | None = field(
        default=None,
        metadata={"doc": "OpenTelemetry collector to send traces to (OTLP over HTTP), such as http://localhost:4318."},
    )
    service_name: str = field(default="kilonova", metadata={"doc": "The service's name in traces."})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of a server, by section."""

    server: ServerSection = field(default_factory=ServerSection)
    models: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)
    drafts: dict[str, str] = field(default_factory=dict)
    engine: EngineConfig = field(default_factory=EngineConfig)
    limits: LimitsSection = field(default_factory=LimitsSection)
    prices: PricesSection = field(default_factory=PricesSection)
    telemetry: TelemetrySection = field(default_factory=TelemetrySection)


def load_settings(
    path: Path | None,
    given: Mapping[str, Mapping[str, Any]],
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings of a file, if any; the environment goes over them, and what is `given` (and not None) over it.

    `KILONOVA_<SECTION>_<KEY>`, such as `KILONOVA_SERVER_PORT`, sets one value of a section. Raises ConfigError for what
    cannot be read, and for an unknown key.
    """
    tree = {} if path is None else _read(path)
    for section, key, kind in _scalars():
        name = f"{ENVIRONMENT_PREFIX}{section}_{key}".upper()
        if name in environment:
            _section(tree, section)[key] = _from_text(environment[name], kind, name)
    for section, values in given.items():
        for key, value in values.items():
            if value is not None:
                _section(tree, section)[key] = value
    return parse_config(Settings, tree, source="settings" if path is None else str(path))


def default_file() -> str:
    """A `kilonova.toml` of every setting with its meaning and its default, which it may be started with."""
    lines = ["# Every setting of kilonova serve, and its default. What is set here is overridden by the environment"]
    lines += ["# (KILONOVA_SERVER_PORT=9000) and by the command line. Paths are relative to this file."]
    for name, hint in get_type_hints(Settings).items():
        if name in _TABLES:
            example, doc = _TABLES[name]
            lines += ["", f"# {doc}", f"[{name}]", f"# {example}"]
            continue
        lines += ["", f"[{name}]"]
        hints = get_type_hints(hint)
        for each in dataclasses.fields(hint):
            if get_origin(hints[each.name]) is dict:
                continue
            doc = each.metadata.get("doc") or _ENGINE_DOCS[each.name]
            text = "# " if each.default is None else ""
            lines += [f"# {doc}", f"{text}{each.name} = {_to_toml(each.default, hints[each.name])}"]
        lines += _PRICES_EXAMPLE if name == "prices" else ()
    return "\n".join(lines) + "\n"


def _scalars() -> Iterator[tuple[str, str, Any]]:
    for section, hint in get_type_hints(Settings).items():
        if dataclasses.is_dataclass(hint):
            for key, kind in get_type_hints(hint).items():
                if get_origin(kind) is not dict:
                    yield section, key, kind


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    folder = path.absolute().parent
    server = tree.get("server")
    for table, keys in ((server, _PATHS), *((tree.get(name), None) for name in _TABLES)):
        if isinstance(table, dict):
            for key, value in table.items():
                if (keys is None or key in keys) and isinstance(value, str):
                    base, colon, directory = value.rpartition(":") if table is tree.get("adapters") else ("", "", value)
                    table[key] = f"{base}{colon}{folder / directory}"
    return tree


def _section(tree: dict[str, Any], name: str) -> dict[str, Any]:
    section = tree.setdefault(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{name}: a section is expected, not {type(section).__name__}")
    return section


def _from_text(text: str, kind: Any, name: str) -> Any:
    kinds = get_args(kind) or (kind,)
    if str in kinds or get_origin(kind) is Literal or any(get_origin(each) is Literal for each in kinds):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        raise ConfigError(f"{name}: {text!r} is not a value") from None


def _to_toml(value: Any, kind: Any) -> str:
    if value is None:
        return "0" if int in get_args(kind) else '"..."'
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
