"""`kilonova doctor`: say whether this machine can run Kilonova, and how well."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer()

Status = Literal["ok", "warning", "failed"]
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One thing looked at: `failed` means that serving the shipped family will not work."""

    name: str
    status: Status
    detail: str


@app.command()
def doctor(
    data: Annotated[Path | None, typer.Option(help="Data directory that serve will use.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Check this machine: versions, processor, memory, device, disk, port and the shipped weights.

    Exits with 1 when something that is needed is missing.

    Example: kilonova doctor --json
    """
    checks = list(run_checks(data))
    failed = any(check.status == "failed" for check in checks)
    if as_json:
        print(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        from rich.console import Console
        from rich.table import Table

        styles = {"ok": "green", "warning": "yellow", "failed": "bold red"}
        table = Table("check", "", "found")
        for check in checks:
            table.add_row(check.name, f"[{styles[check.status]}]{check.status}[/]", check.detail)
        Console().print(table)
    raise typer.Exit(1 if failed else 0)


def run_checks(data_directory: Path | None) -> Iterator[Check]:
    """Yield every check in the order of the table; none of them raises."""
    from kilonova.models.registry import models_home

    data_directory = data_directory or models_home().parent
    checks: tuple[tuple[str, Callable[[], tuple[Status, str]]], ...] = (
        ("python", _python),
        ("torch", _torch),
        ("threads", _threads),
        ("processor", _processor),
        ("native kernels", _native_kernels),
        ("memory", _memory),
        ("cuda", _cuda),
        ("device", _device),
        ("data directory", lambda: _data_directory(data_directory)),
        ("disk", lambda: _disk(data_directory)),
        ("port 8080", _port),
    )
    for name, check in checks:
        yield _run(name, check)
    yield from _weights(data_directory / "models")


def _run(name: str, check: Callable[[], tuple[Status, str]]) -> Check:
    try:
        status, detail = check()
    except Exception as error:
        status, detail = "failed", f"{type(error).__name__}: {error}"
    return Check(name, status, detail)


def _python() -> tuple[Status, str]:
    version = platform.python_version()
    return ("ok" if sys.version_info >= (3, 11) else "failed"), f"{version} on {platform.system()} {platform.machine()}"


def _torch() -> tuple[Status, str]:
    import torch

    return "ok", torch.__version__


def _threads() -> tuple[Status, str]:
    import torch

    return "ok", f"{torch.get_num_threads()} for a product, {os.cpu_count()} processors"


def _processor() -> tuple[Status, str]:
    import torch

    from kilonova.core.device import has_fast_bfloat16

    supported = {
        "AVX2": torch.cpu._is_avx2_supported(),
        "AVX-512": torch.cpu._is_avx512_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
        "fast bfloat16": has_fast_bfloat16(torch.device("cpu")),
    }
    return "ok", ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in supported.items())


def _native_kernels() -> tuple[Status, str]:
    from kilonova.engine.native.library import instruction_sets, load

    if load() is None:
        return (
            "warning",
            "not built, so PyTorch generates, more slowly; install a C++20 compiler, then this package again",
        )
    sets = instruction_sets()
    if not sets:
        return "warning", "this processor lacks AVX2, so PyTorch generates, more slowly"
    return "ok", f"{sets[0]} in use" + (f"; also {', '.join(sets[1:])}" if sets[1:] else "")


def _memory() -> tuple[Status, str]:
    import psutil

    memory = psutil.virtual_memory()
    status: Status = "ok" if memory.available >= 2 * GIB else "warning"
    return status, f"{memory.available / GIB:.1f} GiB free of {memory.total / GIB:.1f}"


def _cuda() -> tuple[Status, str]:
    import torch

    if not torch.cuda.is_available():
        return "ok", "none; the CPU is used"
    return "ok", ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _device() -> tuple[Status, str]:
    from kilonova.core.device import choose_device, choose_dtype

    device = choose_device()
    return "ok", f"{device}, {str(choose_dtype('auto', device)).removeprefix('torch.')}"


def _data_directory(directory: Path) -> tuple[Status, str]:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
        return "ok", f"{directory} can be written to"


def _disk(directory: Path) -> tuple[Status, str]:
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    return ("ok" if free >= GIB else "warning"), f"{free / GIB:.1f} GiB free"


def _port() -> tuple[Status, str]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8080))
        except OSError as error:
            return "warning", f"{error.strerror}; use serve --port"
    return "ok", "free"


def _weights(imported: Path) -> Iterator[Check]:
    """One check a model: its files are there and load."""
    from kilonova.models.registry import Registry

    registry = Registry(home=imported)
    entries = registry.entries()
    if not entries:
        yield Check("weights", "failed", "there are no models here; serve needs --model NAME=DIR")
    for name, reason in registry.unusable.items():
        yield Check(f"weights of {name}", "warning", reason)
    for entry in entries:
        if entry.base:
            yield _run(f"weights of {entry.name}", partial(_fits, entry.directory, registry.get(entry.base).directory))
            continue

        yield _run(f"weights of {entry.name}", partial(_loads, entry.directory, entry.makes_pictures))


def _loads(directory: Path, makes_pictures: bool) -> tuple[Status, str]:
    size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    if makes_pictures:
        from kilonova.studio.loading import load_canvas

        load_canvas(directory)
        return "ok", f"{size / 2**20:.0f} MiB, loads"
    from kilonova.models.checkpoint import load_decoder

    parameters = sum(parameter.numel() for parameter in load_decoder(directory).parameters())
    return "ok", f"{parameters / 1e6:.1f} M parameters, {size / 2**20:.0f} MiB, loads"


def _fits(adapter: Path, base: Path) -> tuple[Status, str]:
    from kilonova.models.adapter import check_adapter

    check_adapter(adapter, base)
    return "ok", "an adapter, fits its base"
