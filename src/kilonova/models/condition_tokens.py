"""Text and conditions as tokens that picture tokens attend to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kilonova.models.condition import Condition, ControlType
from kilonova.nn.norm import RMSNorm
from kilonova.nn.rotary_2d import grid_positions

# Near the scale of embedded patches, so that it can be told from the start what a patch belongs to.
_EMBEDDING_STD = 0.5


@dataclass(frozen=True)
class Tokens:
    """States `[B, T, hidden]` at rows and columns `positions` `[T, 2]`.

    `weights` `[B, T]` in [0, 1] multiply the share of attention that each token gets, 0 hiding it; None stands for 1.
    """

    states: Tensor
    positions: Tensor
    weights: Tensor | None = None


def join(parts: Sequence[Tokens]) -> Tokens:
    """The tokens of all `parts` in one sequence."""
    states = torch.cat([part.states for part in parts], dim=1)
    weights = None
    if any(part.weights is not None for part in parts):
        every = [
            part.states.new_ones(part.states.shape[:2]) if part.weights is None else part.weights for part in parts
        ]
        weights = torch.cat([weight.to(states.dtype) for weight in every], dim=1)
    return Tokens(states, torch.cat([part.positions for part in parts]), weights)


def key_bias(tokens: Tokens) -> Tensor | None:
    """What `nn.joint_attention` adds to the scores of `tokens` `[B, T]`; None where all have their full share.

    Whether they have is not looked up on a device that would have to be waited for, nor in compiled code.
    """
    weights = tokens.weights
    if weights is None:
        return None
    if not torch.compiler.is_compiling() and weights.device.type == "cpu" and bool((weights == 1).all()):
        return None
    return weights.log()


def without_position(states: Tensor, weights: Tensor | None = None) -> Tokens:
    """Tokens that stand nowhere in the picture."""
    return Tokens(states, torch.zeros(states.shape[1], 2, device=states.device), weights)


class TextProjection(nn.Module):
    """Text states of any scale to tokens: a norm, then a linear layer (as in arXiv 2410.10629)."""

    def __init__(self, text_hidden_size: int, hidden_size: int) -> None:
        super().__init__()
        self.norm = RMSNorm(text_hidden_size)
        self.proj = nn.Linear(text_hidden_size, hidden_size)

    def forward(self, text_states: Tensor, text_mask: Tensor | None) -> Tokens:
        """Tokens of `text_states` `[B, T, text_hidden]`; `text_mask` `[B, T]` None says that all are real."""
        return without_position(self.proj(self.norm(text_states)), text_mask)


class ConditionTokens(nn.Module):
    """Palette, references and control of a `Condition` as tokens of `hidden_size`.

    The strength of a control, and the similarity of references, weigh the attention that their tokens get: it goes to
    nothing with them, without a step at 0.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.palette_linear_1 = nn.Linear(3, hidden_size)
        self.palette_linear_2 = nn.Linear(hidden_size, hidden_size)
        self.control_type_embedding = nn.Parameter(torch.zeros(len(ControlType), hidden_size))
        self.reference_embedding = nn.Parameter(torch.zeros(hidden_size))

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw the embeddings; linear layers are the caller's."""
        with torch.no_grad():
            self.control_type_embedding.normal_(std=_EMBEDDING_STD, generator=generator)
            self.reference_embedding.normal_(std=_EMBEDDING_STD, generator=generator)

    def forward(
        self, condition: Condition | None, patch_embed: Callable[[Tensor], Tensor], patch_size: int
    ) -> list[Tokens]:
        """The parts that are there; `patch_embed` makes `[B, tokens, hidden]` of latents `[B, C, h, w]`."""
        if condition is None:
            return []
        parts = []
        if condition.palette is not None and condition.palette_mask is not None:
            colours = (condition.palette / 100).to(self.palette_linear_1.weight.dtype)
            states = self.palette_linear_2(nn.functional.silu(self.palette_linear_1(colours)))
            parts.append(without_position(states, condition.palette_mask))
        if condition.references is not None:
            assert condition.references_mask is not None
            assert condition.similarity is not None
            batch, count = condition.references.shape[:2]
            states = patch_embed(condition.references.flatten(0, 1)) + self.reference_embedding
            positions = _patch_positions(condition.references, patch_size)
            weights = condition.references_mask * condition.similarity[:, None]
            weights = weights.repeat_interleave(len(positions), dim=1)
            states = states.unflatten(0, (batch, count)).flatten(1, 2)
            parts.append(Tokens(states, positions.repeat(count, 1), weights))
        if condition.control is not None:
            assert condition.control_type is not None
            assert condition.control_strength is not None
            states = patch_embed(condition.control) + self.control_type_embedding[condition.control_type][:, None]
            positions = _patch_positions(condition.control, patch_size)
            weights = condition.control_strength * (condition.control_type != ControlType.NONE)
            parts.append(Tokens(states, positions, weights[:, None].expand(-1, len(positions))))
        return parts


def kept_channels(condition: Condition | None) -> Tensor | None:
    """The channels `[B, C + 1, h, w]` that say what inpainting keeps, all zero where it keeps nothing; None without."""
    if condition is None or condition.masked_latents is None or condition.mask is None:
        return None
    kept = 1 - condition.mask
    return torch.cat((condition.masked_latents * kept, kept), dim=1)


def _patch_positions(latents: Tensor, patch_size: int) -> Tensor:
    height, width = latents.shape[-2:]
    return grid_positions(height // patch_size, width // patch_size, latents.device)
