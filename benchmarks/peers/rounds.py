"""Rounds in which engines take turns, each time in a process of its own, and the medians of them."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import psutil
from install import ENVIRONMENTS
from random_models import find_model, vocab_size

from kilonova.core.errors import KilonovaError
from kilonova.core.progress import ProgressReporter
from peers.job import Job, write_job

HERE = Path(__file__).parent
CONVERSION_SECONDS = 3600
JOB_SECONDS = 900
INT4_GROUP_SIZE = 64


@dataclass(frozen=True)
class Variant:
    """An engine with weights of a kind. `environment` None is Kilonova's own; `format` is what `convert.py` makes."""

    engine: str
    name: str
    bits: int
    runner: str
    environment: str | None = None
    format: str | None = None
    converter: str = "convert"

    @property
    def label(self) -> str:
        """How it is told apart."""
        return f"{self.engine} {self.name}"


_llama = partial(Variant, "llama.cpp", runner="run_llamacpp", environment="llamacpp", converter="llamacpp")
_openvino = partial(Variant, "openvino-genai", runner="run_openvino", environment="openvino")
VARIANTS = (
    Variant("kilonova", "bf16", 16, "run_kilonova"),
    Variant("kilonova", "float32", 32, "run_kilonova"),
    Variant("kilonova", "int8", 8, "run_kilonova"),
    Variant("kilonova", "int4", 4, "run_kilonova"),
    Variant("transformers", "bf16", 16, "run_transformers"),
    Variant("transformers", "float32", 32, "run_transformers"),
    _llama(name="bf16", bits=16, format="gguf-bf16"),
    _llama(name="q8_0", bits=8, format="gguf-q8_0"),
    _llama(name="q4_0", bits=4, format="gguf-q4_0"),
    _llama(name="q4_k_m", bits=4, format="gguf-q4_k_m"),
    _openvino(name="int8", bits=8, format="openvino-int8"),
    _openvino(name="int4", bits=4, format="openvino-int4"),
    Variant("onnxruntime-genai", "int4", 4, "run_onnxruntime", "onnxruntime", "onnx-int4"),
    Variant("ctranslate2", "int8", 8, "run_ctranslate2", "ctranslate2", "ctranslate2-int8"),
    Variant("vllm-cpu", "bf16", 16, "run_vllm", "vllm"),
)


class PeerFailed(Exception):
    """A conversion or a run that ended badly, with its last words."""


@dataclass(frozen=True)
class Measured:
    """The results of a variant's rounds."""

    variant: Variant
    rounds: list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What was measured, which environments are not there, and what failed and why."""

    model: str
    threads: int
    measured: list[Measured]
    missing: list[str]
    failed: dict[str, str]

    def head(self) -> dict[str, Any]:
        """What every report begins with."""
        limits = [one["read_bandwidth"] for measured in self.measured for one in measured.rounds]
        return {
            "model": self.model,
            "threads": self.threads,
            "read_bandwidth_gb_s": statistics.median(limits) / 1e9 if limits else None,
            "missing": self.missing,
            "failed": self.failed,
        }


def run_rounds(
    job: Job, variants: Sequence[Variant], rounds: int, models: Path, *, what: str, quiet: bool = False
) -> Outcome:
    """Measure each variant whose environment exists once a round, in turn, each round beginning one further.

    `job` lacks what differs between variants: `weights` and `bits`. Conversions are made first and kept.
    """
    missing = sorted({f"{one.engine} ({_install_hint(one)})" for one in variants if not _python(one)})
    failed: dict[str, str] = {}
    ready = []
    for variant in variants:
        if _python(variant):
            try:
                ready.append((variant, replace(job, weights=str(_weights(variant, job, models)), bits=variant.bits)))
            except PeerFailed as error:
                failed[variant.label] = str(error)
    results: dict[Variant, list[dict[str, Any]]] = {}
    with ProgressReporter(what, rounds * len(ready), quiet=quiet) as progress:
        done = 0
        for number in range(rounds):
            start = number % max(1, len(ready))
            for variant, own_job in (*ready[start:], *ready[:start]):
                done += 1
                progress.update(done, variant.label)
                if variant.label in failed:
                    continue
                try:
                    result = run_once(variant, replace(own_job, seed=job.seed + number))
                except PeerFailed as error:
                    failed[variant.label] = str(error)
                else:
                    results.setdefault(variant, []).append(result)
    # In the variants' own order; one that failed in a later round is not half reported.
    measured = [Measured(one, results[one]) for one in variants if one in results and one.label not in failed]
    return Outcome(Path(job.model).name, job.threads, measured, missing, failed)


def run_once(variant: Variant, job: Job) -> dict[str, Any]:
    """One run in a process of its own. Raises PeerFailed."""
    python = _python(variant)
    assert python is not None
    environment = os.environ | {"OMP_NUM_THREADS": str(job.threads), "HF_HUB_OFFLINE": "1"}
    own_path = [os.environ["PYTHONPATH"]] if variant.environment is None and "PYTHONPATH" in os.environ else []
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *own_path])
    try:
        done = subprocess.run(
            [str(python), "-m", f"peers.{variant.runner}"],
            input=write_job(job),
            capture_output=True,
            text=True,
            timeout=JOB_SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PeerFailed(f"took more than {JOB_SECONDS} s") from error
    lines = done.stdout.splitlines()
    if not lines:
        raise PeerFailed(_last_words(done.stderr, done.returncode))
    return json.loads(lines[-1])


def make_job(measure: str, model: str, models: Path, threads: int | None, **settings: Any) -> Job:
    """A job for the model of that name; `threads` None takes a thread a core."""
    directory = find_model(model, models)
    return Job(
        measure=measure,
        model=str(directory),
        weights="",
        bits=0,
        threads=threads or default_threads(),
        vocab_size=vocab_size(directory),
        seed=0,
        **settings,
    )


def default_threads() -> int:
    """As many as there are cores, of those that this process may use."""
    usable = len(os.sched_getaffinity(0))
    return min(usable, psutil.cpu_count(logical=False) or usable)


def choose(bits: Sequence[int], engines: Sequence[str]) -> list[Variant]:
    """The variants with weights of these bits, of these engines or of all."""
    known = sorted({one.engine for one in VARIANTS})
    if unknown := [engine for engine in engines if engine not in known]:
        raise SystemExit(f"no engine {unknown[0]!r}; known: {', '.join(known)}")
    return [one for one in VARIANTS if one.bits in bits and (not engines or one.engine in engines)]


def _python(variant: Variant) -> Path | None:
    """The interpreter of a variant's environment, if that exists."""
    if variant.environment is None:
        return Path(sys.executable) if find_spec(variant.engine) is not None else None
    python = ENVIRONMENTS / variant.environment / "bin" / "python"
    return python if python.exists() else None


def _install_hint(variant: Variant) -> str:
    if variant.environment is None:
        return "make test"
    return "make bench-peers" + (" PEERS=vllm" if variant.environment == "vllm" else "")


def _weights(variant: Variant, job: Job, models: Path) -> Path:
    """The model in the variant's format, converted if it is not there yet."""
    source = Path(job.model)
    if variant.engine == "kilonova" and variant.bits < 16:
        return _quantised(source, variant, models / f"{_key(source)}-{variant.name}")
    if variant.format is None:
        return source
    output = models / f"{_key(source)}-{variant.format}"
    if output.exists():
        return output
    python = ENVIRONMENTS / variant.converter / "bin" / "python"
    if not python.exists():
        raise PeerFailed(f"the environment {variant.converter}, which converts models, is not there: make bench-peers")
    models.mkdir(parents=True, exist_ok=True)
    temporary = models / f".{output.name}"
    # What an interrupted conversion left.
    if temporary.is_dir():
        shutil.rmtree(temporary)
    temporary.unlink(missing_ok=True)
    command = [str(python), str(HERE / "convert.py"), variant.format, str(source), str(temporary)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CONVERSION_SECONDS, check=False)
    if done.returncode != 0:
        raise PeerFailed("conversion: " + _last_words(done.stderr, done.returncode))
    temporary.rename(output)
    return output


def _key(source: Path) -> str:
    """A name for what is made from a checkpoint: another one for other files, or another folder of that name."""
    written = max(file.stat().st_mtime_ns for file in source.iterdir())
    return f"{source.name}-{zlib.crc32(f'{source} {written}'.encode()):08x}"


def _quantised(source: Path, variant: Variant, output: Path) -> Path:
    from kilonova.models.quantization.quantize import QuantizationConfig, quantize_directory

    if not output.exists():
        group_size = INT4_GROUP_SIZE if variant.bits == 4 else None
        config = QuantizationConfig(number_format=variant.name, group_size=group_size)  # type: ignore[arg-type]
        try:
            quantize_directory(source, output, config, quiet=True)
        except KilonovaError as error:
            raise PeerFailed(f"conversion: {error}") from error
    return output


def _last_words(text: str, code: int) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return (lines[-1] if lines else "no output")[:300] + f" (exit code {code})"
