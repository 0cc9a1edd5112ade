"""A segmenter whose learnable and conditional queries answer together (MQ-Former, arXiv 2404.04469).

Pictures are encoded without words. Words and the picture's coarse tokens then see each other; the tokens that come
nearest to the words become queries beside learnable ones, as in arXiv 2303.05499, section 3.2; and all queries look
at the picture inside what they took for their masks so far (arXiv 2112.01527). Each gives a mask, and how well it fits
each text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kilonova.core.errors import ConfigError
from kilonova.models.segmenter.blocks import DecoderLayer, EncoderLayer, sine_positions
from kilonova.models.segmenter.config import MixedQuerySegmenterConfig
from kilonova.models.segmenter.pixels import PictureEncoder, PictureFeatures
from kilonova.models.segmenter.texts import Questions
from kilonova.nn.initialization import init_layers
from kilonova.nn.rotary_2d import RotaryEmbedding2D, grid_positions

TOKEN_SIZE = 16
_LOGIT_SCALE = 10.0
_LOGIT_BIAS = -4.0
_MAX_LOGIT_SCALE = 50.0


@dataclass(frozen=True)
class Answers:
    """What Q queries take for things: `class_logits` `[B, Q, K]`, how well each fits each text, and `mask_logits`
    `[B, Q, H / 2, W / 2]`, where each is."""

    class_logits: Tensor
    mask_logits: Tensor


class MixedQuerySegmenter(nn.Module):
    """Things and grounds in RGB pictures by their names or by phrases, and the foreground, from one set of weights.

    Weights are of no use until `init_weights` draws them or a checkpoint fills them.
    """

    def __init__(self, config: MixedQuerySegmenterConfig) -> None:
        super().__init__()
        self.config = config
        hidden_size, heads, ratio = config.hidden_size, config.num_attention_heads, config.mlp_ratio
        self.picture_encoder = PictureEncoder(config)
        self.text_proj = nn.Sequential(nn.Linear(config.text_hidden_size, hidden_size), nn.LayerNorm(hidden_size))
        self.rotary = RotaryEmbedding2D(hidden_size // heads, config.rope_theta)
        self.fusion_layers = nn.ModuleList(
            EncoderLayer(hidden_size, heads, ratio) for _ in range(config.num_fusion_layers)
        )
        self.fusion_norm = nn.LayerNorm(hidden_size)
        self.eighth_proj = nn.Conv2d(config.block_out_channels[2], hidden_size, 1)
        self.query_embed = nn.Parameter(torch.zeros(config.num_learnable_queries, hidden_size))
        self.conditional_proj = nn.Linear(2 * hidden_size, hidden_size)
        self.decoder_layers = nn.ModuleList(
            DecoderLayer(hidden_size, heads, ratio) for _ in range(config.num_decoder_layers)
        )
        self.query_norm = nn.LayerNorm(hidden_size)
        self.class_head = nn.Linear(hidden_size, hidden_size)
        self.text_head = nn.Linear(hidden_size, hidden_size)
        self.mask_head = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, config.block_out_channels[0])
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(_LOGIT_SCALE)))
        self.logit_bias = nn.Parameter(torch.tensor(_LOGIT_BIAS))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights."""
        init_layers(self, generator)
        self.picture_encoder.init_residuals()
        self.query_embed.normal_(generator=generator)

    def encode(self, image: Tensor) -> PictureFeatures:
        """The features of `image` `[B, 3, H, W]`, RGB in [-1, 1].

        ConfigError for other than three channels, or for sides that are no multiple of 16.
        """
        _, channels, height, width = image.shape
        if channels != 3:
            raise ConfigError(f"image: {channels} channels, not the 3 of RGB")
        if height % TOKEN_SIZE or width % TOKEN_SIZE:
            raise ConfigError(f"image: {height} x {width} is not a multiple of {TOKEN_SIZE}")
        return self.picture_encoder(image)

    def decode(self, features: PictureFeatures, questions: Questions) -> list[Answers]:
        """What all queries make of `questions`: first the picture's tokens, one query each, then after each layer.

        The last are the answers; the others are for training. Of the last, the `num_learnable_queries` come first.
        """
        words, tokens = self._fuse(features.tokens, questions)
        summary = _mean_of(words, questions.membership)
        proposals = self._answers(tokens, summary, features.pixels)
        levels = self._contexts(words, tokens, features)
        word_mask = questions.token_mask[:, None]
        queries = self._queries(tokens, summary, proposals.class_logits, questions.text_mask)
        found = [proposals]
        for index, layer in enumerate(self.decoder_layers):
            context, shape = levels[index % len(levels)]
            masks = found[-1].mask_logits if index else None
            queries = layer(queries, context, _allowed(masks, shape, word_mask.expand(-1, queries.shape[1], -1)))
            found.append(self._answers(queries, summary, features.pixels))
        return found

    def forward(self, image: Tensor, questions: Questions) -> tuple[PictureFeatures, list[Answers]]:
        """`encode` and `decode`."""
        features = self.encode(image)
        return features, self.decode(features, questions)

    def _fuse(self, grid: Tensor, questions: Questions) -> tuple[Tensor, Tensor]:
        """Words `[B, T, hidden]` that have seen the picture, and the picture's tokens that have seen the words."""
        words = self.text_proj(questions.states)
        height, width = grid.shape[-2:]
        positions = grid_positions(height, width, grid.device)
        no_place = positions.new_zeros(words.shape[1], 2)
        rotary = self.rotary(torch.cat((no_place, positions)), words.dtype)
        x = torch.cat((words, grid.flatten(2).transpose(1, 2).to(words.dtype)), dim=1)
        there = nn.functional.pad(questions.token_mask, (0, len(positions)), value=True)
        bias = torch.zeros_like(there, dtype=x.dtype).masked_fill(~there, float("-inf"))
        for layer in self.fusion_layers:
            x = layer(x, rotary, bias)
        x = self.fusion_norm(x)
        return x[:, : words.shape[1]], x[:, words.shape[1] :]

    def _contexts(
        self, words: Tensor, tokens: Tensor, features: PictureFeatures
    ) -> tuple[tuple[Tensor, tuple[int, int]], ...]:
        """What layers look at by turns: the words beside the picture's tokens, coarse ones and fine ones."""
        contexts = []
        for states, grid in (
            (tokens, features.tokens),
            (self.eighth_proj(features.eighth).flatten(2).transpose(1, 2), features.eighth),
        ):
            height, width = grid.shape[-2:]
            places = sine_positions(height, width, states.shape[-1], states.device).to(states.dtype)
            contexts.append((torch.cat((words.to(states.dtype), states + places), dim=1), (height, width)))
        return tuple(contexts)

    def _queries(self, tokens: Tensor, summary: Tensor, class_logits: Tensor, text_mask: Tensor) -> Tensor:
        """Learnable queries, and as many conditional ones as there may be: the tokens that fit any text best, each with
        that text."""
        queries = self.query_embed.to(tokens.dtype).expand(len(tokens), -1, -1)
        count = min(self.config.num_conditional_queries, tokens.shape[1])
        if not count:
            return queries
        fit, text = class_logits.masked_fill(~text_mask[:, None], float("-inf")).max(2)
        chosen = fit.topk(count, dim=1).indices
        states = torch.cat((_take(tokens, chosen), _take(summary, text.gather(1, chosen))), dim=-1)
        return torch.cat((queries, self.conditional_proj(states)), dim=1)

    def _answers(self, queries: Tensor, summary: Tensor, pixels: Tensor) -> Answers:
        queries = self.query_norm(queries)
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_head(queries), pixels)
        classes, texts = self.class_head(queries), self.text_head(summary)
        similarity = torch.cosine_similarity(classes[:, :, None].float(), texts[:, None].float(), dim=-1)
        scale = self.logit_scale.exp().clamp(max=_MAX_LOGIT_SCALE)
        return Answers(scale * similarity + self.logit_bias, masks.float())


def _mean_of(words: Tensor, membership: Tensor) -> Tensor:
    """The mean state `[B, K, hidden]` of each text's words, 0 for none."""
    shares = membership.to(words.dtype)
    return shares @ words / shares.sum(-1, keepdim=True).clamp(min=1)


def _take(states: Tensor, indices: Tensor) -> Tensor:
    """The states `[B, N, hidden]` at `indices` `[B, N]` of `[B, S, hidden]`."""
    return states.gather(1, indices[..., None].expand(-1, -1, states.shape[-1]))


def _allowed(mask_logits: Tensor | None, shape: tuple[int, int], words: Tensor) -> Tensor:
    """What each query may look at, bool `[B, Q, T + tokens]`: the `words` there are, and the tokens of its mask so far.

    Without a mask, or where it is empty, it is the whole picture.
    """
    batch, queries = words.shape[:2]
    if mask_logits is None:
        inside = words.new_ones(batch, queries, math.prod(shape))
    else:
        small = nn.functional.interpolate(mask_logits.detach(), shape, mode="area").flatten(2)
        inside = small > 0
        inside = inside | ~inside.any(-1, keepdim=True)
    return torch.cat((words, inside), dim=-1)
