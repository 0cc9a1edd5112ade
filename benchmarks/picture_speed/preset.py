"""Pictures a second, and the share of a device's rate, of a preset of U-ViT."""

from __future__ import annotations

import argparse
import gc
import platform
from typing import Any

import torch
from rich.table import Table

from kilonova.core.device import choose_dtype
from kilonova.models.sizing import forward_flops
from kilonova.models.uvit.config import UVIT_PRESETS, UViTConfig
from kilonova.train.meter import matmul_flops_per_second
from picture_speed.clock import Clock
from picture_speed.networks import random_uvit

SPATIAL_FACTOR, TEXT_TOKENS = 8, 16
# Dense bfloat16 rates from the vendor's data sheets, the usual 100 % of MFU.
NOMINAL_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


def measure_preset(arguments: argparse.Namespace, clock: Clock, *, training: bool) -> dict[str, Any]:
    """Pictures a second, each of them one forward pass or one step of training, and the share of the device's rate."""
    device, side = arguments.device, arguments.preset_pixels // SPATIAL_FACTOR
    config = UVIT_PRESETS[arguments.preset]
    flops = forward_flops(config, side, side, TEXT_TOKENS) * (3 if training else 1)
    dtype = choose_dtype(arguments.dtype, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    nominal = next((rate for part, rate in NOMINAL_FLOPS.items() if part in name), None)
    measured = matmul_flops_per_second(device, dtype)
    rows = []
    for batch in arguments.batches:
        for mode in arguments.modes:
            if clock.is_over:
                break
            row: dict[str, Any] = {"batch": batch, "mode": mode}
            try:
                row |= time_preset(config, side, batch, mode, device, dtype, training, clock, arguments.rounds)
            except torch.OutOfMemoryError:
                row["error"] = "out of memory"
            if "seconds" in row:
                rate = batch * flops / row["seconds"]
                row |= {"pictures_per_second": batch / row["seconds"], "of_measured_matmul": rate / measured}
                row |= {"mfu": rate / nominal} if nominal else {}
            rows.append(row)
            torch._dynamo.reset()
            gc.collect()
            if device.type == "cuda":
                row["peak_bytes"] = torch.cuda.max_memory_allocated()
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
    return {
        "preset": arguments.preset,
        "pixels": arguments.preset_pixels,
        "latent_tokens": (side // config.patch_size) ** 2,
        "dtype": str(dtype).removeprefix("torch."),
        "flops_per_picture": flops,
        "matmul_flops_per_second": measured,
        "rows": rows,
    }


def time_preset(
    config: UViTConfig,
    side: int,
    batch: int,
    mode: str,
    device: torch.device,
    dtype: torch.dtype,
    training: bool,
    clock: Clock,
    rounds: int,
) -> dict[str, float]:
    """Seconds of a forward pass, or of a step of AdamW on float32 weights, of a batch."""
    model = random_uvit(config, device, torch.float32 if training else dtype)
    kind = torch.float32 if training else dtype
    latents = torch.randn(batch, config.in_channels, side, side, device=device, dtype=kind)
    states = torch.randn(batch, TEXT_TOKENS, config.text_hidden_size, device=device, dtype=kind)
    timestep = torch.rand(batch, device=device)
    network: Any = model
    if mode != "eager":
        network = torch.compile(model, dynamic=False, mode="reduce-overhead" if mode == "cuda-graphs" else None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True) if training else None

    @torch.inference_mode()
    def answer() -> None:
        if mode == "cuda-graphs":
            torch.compiler.cudagraph_mark_step_begin()
        network(latents, timestep, states, None)

    def step() -> None:
        assert optimizer is not None
        if mode == "cuda-graphs":
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = (network(latents, timestep, states, None).float() - latents).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    run = step if training else answer
    return {"first_two_seconds": clock.seconds(run) + clock.seconds(run), "seconds": clock.median(run, rounds)}


def preset_table(found: dict[str, Any], stage: str, device: str) -> Table:
    title = f"{stage} of {found['preset']}, {found['latent_tokens']} tokens, {found['dtype']}, {device}"
    table = Table("batch", "mode", "pictures/s", "of measured matmul", "MFU (data sheet)", title=title)
    for row in found["rows"]:
        values = [row.get("error", "")] * 3
        if "seconds" in row:
            mfu = f"{row['mfu']:.1%}" if "mfu" in row else ""
            values = [f"{row['pictures_per_second']:.1f}", f"{row['of_measured_matmul']:.1%}", mfu]
        table.add_row(str(row["batch"]), row["mode"], *values)
    return table
