"""What gradient reduction costs a step, for the choices a recipe has under `parallel.reduction`.

Collectives and bytes of one optimiser step are counted where PyTorch issues them, so that they are the same on every
machine. Bytes are what a rank sends in a ring: a gather or a reduce-scatter of `b` bytes over `n` ranks sends
`b (n - 1) / n`, an all-reduce twice that. With two or more GPUs the profiler also gives the exposed communication: the
time of communication kernels in which no other kernel runs, and its part of the step.

    python benchmarks/gradient_reduction.py [--ranks 4] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from kilonova.data.packing import Batch
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.train.parallel.gradients import begin_micro_batch
from kilonova.train.parallel.mesh import ParallelMesh, parallel_mesh
from kilonova.train.parallel.section import ParallelSection, ReductionSection
from kilonova.train.placed import PlacedDecoder

MICRO_BATCHES = 4
SHAPE = {
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
# On GPUs: layers as wide as those of Llama 3.2 1B.
GPU_SHAPE = SHAPE | {
    "vocab_size": 32_768,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}


@dataclass(frozen=True)
class Interval:
    """A time from `start` to `end`, in nanoseconds."""

    start: int
    end: int


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same times as disjoint intervals, in order."""
    merged: list[Interval] = []
    for interval in sorted(intervals, key=lambda item: item.start):
        if merged and interval.start <= merged[-1].end:
            merged[-1] = Interval(merged[-1].start, max(merged[-1].end, interval.end))
        else:
            merged.append(interval)
    return merged


def exposed(communication: Iterable[Interval], compute: Iterable[Interval]) -> int:
    """Nanoseconds of communication during which nothing is computed."""
    communicated, computed = union(communication), union(compute)
    both = union([*communicated, *computed])
    return sum(i.end - i.start for i in both) - sum(i.end - i.start for i in computed)


class CollectiveCounter(TorchDispatchMode):
    """Counts the collectives of a block, and the bytes that this rank sends for them in a ring."""

    _KINDS = {  # noqa: RUF012
        "_allgather_base_": ("all_gather", 0),
        "_reduce_scatter_base_": ("reduce_scatter", 1),
        "allreduce_": ("all_reduce", 0),
    }

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            kind, whole = self._KINDS[func._schema.name.removeprefix("c10d::")]
            buffers = args[whole] if isinstance(args[whole], (list, tuple)) else [args[whole]]
            group = next(argument for argument in args if isinstance(argument, torch.ScriptObject))
            ranks = torch.distributed.ProcessGroup.unbox(group).size()
            sent = sum(tensor.nbytes for tensor in buffers) * (ranks - 1) / ranks
            self.calls[kind] += 1
            self.bytes[kind] += round(2 * sent if kind == "all_reduce" else sent)
        return func(*args, **(kwargs or {}))


def settings(ranks: int, layer_megabytes: float) -> dict[str, ParallelSection]:
    """The choices that are compared, by name."""
    several = 3.5 * layer_megabytes

    def section(*, reshard: bool = True, replicate: int = 1, prefetch: int = 0, **reduction: Any) -> ParallelSection:
        return ParallelSection(
            data_parallel_replicate=replicate,
            reshard_after_forward=reshard,
            forward_prefetch=prefetch,
            backward_prefetch=prefetch,
            reduction=ReductionSection(**reduction),
        )

    found = {
        "each layer, each micro-batch": section(bucket_megabytes=0.0, frequency="micro_batch"),
        "each layer, once": section(bucket_megabytes=0.0),
        "4 layers, each micro-batch": section(bucket_megabytes=several, frequency="micro_batch"),
        "4 layers, once": section(bucket_megabytes=several),
        "4 layers, once, bfloat16": section(bucket_megabytes=several, dtype="bfloat16"),
        "4 layers, once, kept gathered": section(bucket_megabytes=several, reshard=False),
        "each layer, once, prefetch 2, own group": section(bucket_megabytes=0.0, prefetch=2, separate_group=True),
    }
    if ranks % 2 == 0 and ranks > 2:
        found["each layer, each micro-batch, 2 copies"] = section(
            bucket_megabytes=0.0, frequency="micro_batch", replicate=2
        )
        found["4 layers, once, 2 copies"] = section(bucket_megabytes=several, replicate=2)
    return found


def measure(mesh: ParallelMesh, shape: dict[str, Any], device: torch.device, length: int) -> dict[str, Any]:
    """Counts of one step and, on GPUs, its exposed communication, on this rank."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    decoder = Decoder(DecoderConfig.from_hf(shape))
    decoder.init_weights(torch.Generator().manual_seed(0))
    placed = PlacedDecoder(decoder, device, dtype, mesh=mesh)
    ids = torch.randint(0, shape["vocab_size"], (1, length), generator=torch.Generator().manual_seed(mesh.data_rank))
    batch = Batch(ids, ids, torch.zeros_like(ids)).to(device)

    def step() -> None:
        for index in range(1, MICRO_BATCHES + 1):
            begin_micro_batch(decoder, mesh, last=index == MICRO_BATCHES)
            placed.cross_entropy(batch).backward()
        for parameter in decoder.parameters():
            parameter.grad = None

    step()
    with CollectiveCounter() as counter:
        step()
    found: dict[str, Any] = {
        "calls": dict(counter.calls),
        "bytes": dict(counter.bytes),
    }
    if device.type == "cuda":
        found |= profile(step)
    return found


def profile(step: Any, steps: int = 5) -> dict[str, float]:
    """Milliseconds of a step, and of its exposed communication, by the profiler's kernels."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    kernels: dict[bool, list[Interval]] = {True: [], False: []}
    for event in profiler.profiler.kineto_results.events():
        if event.device_type() == torch.autograd.DeviceType.CUDA:
            interval = Interval(event.start_ns(), event.start_ns() + event.duration_ns())
            kernels["nccl" in event.name().lower()].append(interval)
    every = union([*kernels[True], *kernels[False]])
    return {
        "step_ms": (every[-1].end - every[0].start) / steps / 1e6,
        "exposed_ms": exposed(kernels[True], kernels[False]) / steps / 1e6,
    }


def run_rank(rank: int, ranks: int, ports: list[int], device_type: str, length: int, output: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    device = torch.device(device_type, rank) if device_type == "cuda" else torch.device("cpu")
    shape = GPU_SHAPE if device_type == "cuda" else SHAPE
    results = []
    for port, (name, section) in zip(ports, settings(ranks, layer_megabytes(shape, device_type)).items(), strict=False):
        os.environ["MASTER_PORT"] = str(port)
        with parallel_mesh(section, device) as mesh:
            assert mesh is not None
            found = measure(mesh, shape, device, length)
            every: list[Any] = [None] * ranks
            torch.distributed.all_gather_object(every, found)
        # The slowest rank's time; counts are the same on all.
        slowest = max(every, key=lambda result: result.get("exposed_ms", 0.0))
        results.append({"setting": name, "section": asdict(section), **slowest})
    if rank == 0:
        Path(output).write_text(json.dumps(results), encoding="utf-8")


def layer_megabytes(shape: dict[str, Any], device_type: str) -> float:
    """Size of a layer as it is gathered."""
    with torch.device("meta"):
        layer = Decoder(DecoderConfig.from_hf(shape | {"num_hidden_layers": 1})).model.layers[0]
    itemsize = 2 if device_type == "cuda" else 4
    return sum(parameter.numel() for parameter in layer.parameters()) * itemsize / 2**20


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, of those that connections are not given by themselves meanwhile."""
    found: list[int] = []
    for port in random.sample(range(20_000, 30_000), 1000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            break
    return found


def main() -> None:
    gpus = torch.cuda.device_count()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=gpus if gpus > 1 else 4, help="processes, one a GPU if there are")
    parser.add_argument("--length", type=int, help="tokens of a micro-batch (32, or 4096 on GPUs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    device_type = "cuda" if gpus >= arguments.ranks > 1 else "cpu"
    if device_type == "cpu":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    length = arguments.length or (4096 if device_type == "cuda" else 32)
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "results.json")
        # A process that has not touched a GPU may fork, which saves every rank the imports.
        mp.start_processes(
            run_rank,
            (arguments.ranks, free_ports(16), device_type, length, output),
            nprocs=arguments.ranks,
            start_method="spawn" if device_type == "cuda" else "fork",
        )
        results = json.loads(Path(output).read_text(encoding="utf-8"))
    if arguments.json:
        print(json.dumps({"ranks": arguments.ranks, "device": device_type, "results": results}))
        return
    table = Table(title=f"one step of {MICRO_BATCHES} micro-batches on {arguments.ranks} ranks ({device_type})")
    for heading in ("grouped, reduced", "gathers", "reduce-scatters", "all-reduces", "MB gathered", "MB reduced"):
        table.add_column(heading, justify="left" if heading == "grouped, reduced" else "right")
    if device_type == "cuda":
        table.add_column("exposed ms", justify="right")
        table.add_column("of the step", justify="right")
    for found in results:
        calls, sent = Counter(found["calls"]), Counter(found["bytes"])
        row = [found["setting"]]
        row += [str(calls[kind]) for kind in ("all_gather", "reduce_scatter", "all_reduce")]
        row += [f"{sent['all_gather'] / 1e6:.2f}", f"{(sent['reduce_scatter'] + sent['all_reduce']) / 1e6:.2f}"]
        if device_type == "cuda":
            row += [f"{found['exposed_ms']:.2f}", f"{found['exposed_ms'] / found['step_ms']:.0%}"]
        table.add_row(*row)
    Console(width=140).print(table)
    if device_type == "cpu":
        print("Exposed communication needs two GPUs; counts and bytes do not depend on the device.")


if __name__ == "__main__":
    main()
