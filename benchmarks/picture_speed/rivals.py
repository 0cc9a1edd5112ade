"""Guided denoising steps a second of U-ViT, beside those of transformers of diffusers."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kilonova.core.device import choose_dtype
from kilonova.models.text_encoder.states import masked_states
from kilonova.models.uvit.config import UVIT_PRESETS, UViTConfig
from kilonova.studio.flow_painter import GuidedVelocity
from kilonova.studio.guidance import Guidance
from kilonova.studio.samplers import sample, sampling_timesteps
from picture_speed.clock import Clock, Run
from picture_speed.networks import random_uvit

SPATIAL_FACTOR, TEXT_TOKENS, CFG_SCALE = 8, 16, 4.0


def ours(config: UViTConfig, side: int, steps: int, device: torch.device, dtype: torch.dtype) -> tuple[nn.Module, Run]:
    """Our network, and `steps` of Euler with guidance as a picture is drawn: one text, and no negative text."""
    model = random_uvit(config, device, dtype)
    states = torch.randn(1, TEXT_TOKENS, config.text_hidden_size, device=device)
    mask = torch.ones(1, TEXT_TOKENS, dtype=torch.bool, device=device)
    text, nothing = masked_states(states, mask), masked_states(states[:, :0], mask[:, :0], states[:, 0] * 0)
    velocity = GuidedVelocity(model, text, nothing, None, Guidance(cfg_scale=CFG_SCALE))
    noise = torch.randn(1, config.in_channels, side, side, device=device)
    timesteps = sampling_timesteps(steps)
    return model, torch.inference_mode()(lambda: sample(velocity, noise, timesteps))


def theirs(
    name: str, layers: int, config: UViTConfig, side: int, steps: int, device: torch.device, dtype: torch.dtype
) -> tuple[nn.Module, Run]:
    """A transformer of diffusers, and the same steps as its pipelines take them."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    model = rival(name, config, side, layers).to(device).eval()
    if dtype != torch.float32:
        model.to(dtype)
    states = torch.randn(2, TEXT_TOKENS, config.text_hidden_size, device=device, dtype=dtype)
    mask = torch.ones(2, TEXT_TOKENS, device=device, dtype=dtype)
    mask[0, 1:] = 0
    pooled = states.mean(1)
    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    noise = torch.randn(1, config.in_channels, side, side, device=device)

    @torch.inference_mode()
    def run() -> Tensor:
        scheduler.set_timesteps(steps, device=device)
        latents = noise
        for timestep in scheduler.timesteps:
            both = torch.cat((latents, latents)).to(dtype)
            times = timestep.expand(2)
            if name == "PixArt":
                answer = model(
                    both,
                    encoder_hidden_states=states,
                    encoder_attention_mask=mask,
                    timestep=times,
                    added_cond_kwargs={"resolution": None, "aspect_ratio": None},
                    return_dict=False,
                )[0]
            else:
                answer = model(
                    both, encoder_hidden_states=states, pooled_projections=pooled, timestep=times, return_dict=False
                )[0]
            unconditional, conditional = answer.float().chunk(2)
            guided = unconditional + CFG_SCALE * (conditional - unconditional)
            latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
        return latents

    return model, run


def rival(name: str, config: UViTConfig, side: int, layers: int) -> Any:
    from diffusers import PixArtTransformer2DModel, SD3Transformer2DModel

    common: dict[str, Any] = {
        "sample_size": side,
        "patch_size": config.patch_size,
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "num_layers": layers,
        "num_attention_heads": config.num_attention_heads,
        "attention_head_dim": config.hidden_size // config.num_attention_heads,
    }
    if name == "PixArt":
        return PixArtTransformer2DModel(
            **common,
            cross_attention_dim=config.hidden_size,
            caption_channels=config.text_hidden_size,
            attention_bias=True,
            use_additional_conditions=False,
        )
    return SD3Transformer2DModel(
        **common,
        joint_attention_dim=config.text_hidden_size,
        caption_projection_dim=config.hidden_size,
        pooled_projection_dim=config.text_hidden_size,
        pos_embed_max_size=max(side // config.patch_size, 96),
        qk_norm="rms_norm",
    )


def matching_layers(name: str, config: UViTConfig, side: int, by: str) -> int:
    """The depth at which a rival comes nearest to our parameters, or to the operations of our steps."""
    cpu = torch.device("cpu")

    def measure(pair: tuple[nn.Module, Run]) -> float:
        if by == "parameters":
            return sum(parameter.numel() for parameter in pair[0].parameters())
        return step_flops(pair[1])

    target = measure(ours(config, side, 1, cpu, torch.float32))
    one, two = (measure(theirs(name, layers, config, side, 1, cpu, torch.float32)) for layers in (1, 2))
    return max(1 + round((target - one) / (two - one)), 1)


def step_flops(run: Run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def measure_rivals(arguments: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    device = arguments.device
    dtype = choose_dtype(arguments.dtype, device) if device.type == "cuda" else torch.float32
    config, side, steps = UVIT_PRESETS[arguments.size], arguments.pixels // SPATIAL_FACTOR, arguments.steps
    arms = {"U-ViT": ours(config, side, steps, device, dtype)}
    for name in ("PixArt", "SD3"):
        for by in ("parameters", "FLOPs"):
            layers = matching_layers(name, config, side, by)
            arms[f"{name}, equal {by}"] = theirs(name, layers, config, side, steps, device, dtype)
    flops = {arm: step_flops(run) / steps for arm, (_, run) in arms.items()}
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in range(arguments.rounds):
        if turn >= 3 and clock.is_over:
            break
        # Who goes first changes, so that neither is always the one after a pause.
        for arm in list(arms)[:: -1 if turn % 2 else 1]:
            times[arm].append(clock.seconds(arms[arm][1]) / steps)
    rows: dict[str, Any] = {}
    for arm, (model, _) in arms.items():
        ratios = [found / mine for found, mine in zip(times[arm], times["U-ViT"], strict=True)]
        rows[arm] = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "flops_per_step": flops[arm],
            "steps_per_second": 1 / statistics.median(times[arm]),
            "ours_over_theirs": statistics.median(ratios),
            "lowest_and_highest_ratio": [min(ratios), max(ratios)],
        }
    conditions = {
        "size": arguments.size,
        "pixels": arguments.pixels,
        "latent_tokens": (side // config.patch_size) ** 2,
        "text_tokens": TEXT_TOKENS,
        "dtype": str(dtype).removeprefix("torch."),
        "rounds": len(times["U-ViT"]),
    }
    return {"conditions": conditions, "arms": rows}


def rivals_table(rivals: dict[str, Any], device: str) -> Table:
    found = rivals["conditions"]
    title = f"{found['latent_tokens']} + {found['text_tokens']} tokens, {found['dtype']}, {device}"
    table = Table("transformer", "parameters", "GFLOPs", "guided steps/s", "U-ViT's over its", title=title)
    for arm, row in rivals["arms"].items():
        low, high = row["lowest_and_highest_ratio"]
        ratio = "" if arm == "U-ViT" else f"{row['ours_over_theirs']:.2f} ({low:.2f} to {high:.2f})"
        sizes = f"{row['parameters'] / 1e6:.1f} M", f"{row['flops_per_step'] / 1e9:.2f}"
        table.add_row(arm, *sizes, f"{row['steps_per_second']:.2f}", ratio)
    return table
