"""The server's log: a line for each request and for what happens, without any text of prompts or answers."""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import msgspec

from kilonova.serve.call import Call
from kilonova.serve.settings import TelemetrySection

access_logger = logging.getLogger("kilonova.access")


def configure_logs(telemetry: TelemetrySection) -> None:
    """Send the package's log to standard error, unless whoever runs the server has set it up already."""
    logger = logging.getLogger("kilonova")
    if logger.handlers:
        return
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JSONFormatter() if telemetry.log_format == "json" else plain)
    logger.addHandler(handler)
    logger.setLevel(telemetry.log_level.upper())
    logger.propagate = False


class JSONFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, and the fields of a request or a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return msgspec.json.encode(line).decode()


def log_call(call: Call) -> None:
    """Write the line of a request at its end."""
    # Probes and pages, which ask often, only where somebody wants to see everything.
    level = logging.INFO if call.operation or call.error or call.status >= 400 else logging.DEBUG
    if not access_logger.isEnabledFor(level):
        return
    milliseconds = round(call.latency * 1000, 1)
    fields: dict[str, Any] = {
        "request_id": call.id,
        "method": call.method,
        "path": call.path,
        "status": call.status,
        "latency_ms": milliseconds,
        "operation": call.operation,
        "model": call.model,
        "key": call.principal.name or call.principal.key_id,
        "error": call.error,
        "abandoned": call.is_abandoned,
    }
    text = f"{call.id} {call.method} {call.path} {call.status} {milliseconds:.1f} ms"
    if call.images is not None:
        fields |= {"images": call.image_count, "image_size": call.images.size}
        text += f" {call.model} {call.image_count} pictures of {call.images.size}"
    elif call.generations:
        usage = call.usage
        first = min(
            (progress.time_to_first_token for progress in (each.progress() for each in call.generations)), default=0
        )
        fields |= {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_tokens": usage.cache_read_input_tokens,
            "first_token_ms": round(first * 1000, 1),
        }
        text += f" {call.model} {usage.input_tokens}+{usage.output_tokens} tokens"
    if call.error:
        text += f" {call.error}"
    access_logger.log(
        level, text, extra={"fields": {key: value for key, value in fields.items() if value not in ("", False)}}
    )
