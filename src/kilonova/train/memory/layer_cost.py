"""What one decoder layer keeps for its backward pass under each policy, and what it computes again."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kilonova.models.decoder.config import DecoderConfig
from kilonova.train.memory.pointwise import block_size
from kilonova.train.memory.section import MemoryPolicy

_MAX_O_PROJ_SHARE = 0.015
_FLOAT32, _INT64 = 4, 8


@dataclass(frozen=True)
class LayerCost:
    """Layer `index` of `config`, computed in `dtype` with residuals in `residual_dtype`, rows of `sequence_length`.

    Under autocast residuals are float32; under FSDP2, which gathers weights in `dtype`, they are `dtype`. A `compiled`
    layer without a policy keeps what `selective` keeps, and behind attention the output projection's result.
    """

    config: DecoderConfig
    index: int
    dtype: torch.dtype
    residual_dtype: torch.dtype
    sequence_length: int
    compiled: bool = False

    def kept_bytes(self, policy: MemoryPolicy) -> float:
        """Bytes a token; `budget` has no formula and is a `ValueError`.

        Attention is flash attention, which keeps its inputs, its output and one float32 a head. `none` is counted with
        the norms of a CPU, which keep their normalised input too.
        """
        match policy:
            case "none" if not self.compiled:
                return self._norm(3) + self._attention(composite=True) + self._feed_forward(composite=True)
            case "none" | "selective":
                return self._residual + self._normed + self._attention() + self._feed_forward()
            case "full":
                return self._residual
            case "ssc" | "ssc8":
                return self._super_selective(compressed=policy == "ssc8")
            case _:
                raise ValueError(f"what memory: {policy} keeps is the compiler's choice")

    def recomputed_flops(self, policy: MemoryPolicy) -> float:
        """FLOPs a token of the matrix products and attention that the backward pass computes again."""
        if policy == "full":
            # Recomputation ends when the last kept tensor is there, which the down projection only reads.
            last = 0 if self.has_experts else 2 * self.config.intermediate_size * self.config.hidden_size
            return self.matmul_flops - last + self.attention_flops
        if policy in ("ssc", "ssc8") and self.recomputes_o_proj:
            return self._o_proj_flops
        return 0.0

    @property
    def step_flops(self) -> float:
        """FLOPs a token of the layer's forward and backward pass; that of flash attention costs 2.5 forward ones."""
        return 3 * self.matmul_flops + 3.5 * self.attention_flops

    @property
    def recomputes_o_proj(self) -> bool:
        """Whether `ssc` and `ssc8` drop the residual behind attention: it costs a dense layer at most 1.5 %."""
        return not self.has_experts and self._o_proj_flops <= _MAX_O_PROJ_SHARE * self.step_flops

    @property
    def has_experts(self) -> bool:
        return self.index in self.config.moe_layers

    @property
    def matmul_flops(self) -> float:
        """Forward FLOPs a token of the layer's matrix products."""
        config = self.config
        weights = config.hidden_size * 2 * (self._heads + self._kv_heads)
        if self.has_experts:
            expert = 3 * config.hidden_size * config.moe_intermediate_size
            weights += config.hidden_size * config.num_experts + config.num_experts_per_tok * expert
        else:
            weights += 3 * config.hidden_size * config.intermediate_size
        return 2.0 * weights

    @property
    def attention_flops(self) -> float:
        """Forward FLOPs a token of attention, at the mean number of positions a query sees in a whole row."""
        length = self.sequence_length
        window = min(self.config.window(self.index) or length, length)
        seen = window - window * (window - 1) / (2 * length)
        return 4.0 * self._heads * seen

    @property
    def _o_proj_flops(self) -> float:
        return 2.0 * self._heads * self.config.hidden_size

    @property
    def _heads(self) -> int:
        return self.config.num_attention_heads * self.config.head_dim

    @property
    def _kv_heads(self) -> int:
        return self.config.num_key_value_heads * self.config.head_dim

    @property
    def _residual(self) -> int:
        return self.residual_dtype.itemsize * self.config.hidden_size

    @property
    def _normed(self) -> int:
        return self.dtype.itemsize * self.config.hidden_size

    def _norm(self, readers: int) -> float:
        """A norm of plain operations, and the form of its output that each of the linear layers reading it keeps."""
        wide = _FLOAT32 * self.config.hidden_size
        if self.residual_dtype == self.dtype:
            return wide + 2 * self._residual + _FLOAT32
        # Under autocast every reader casts for itself.
        return 2 * wide + readers * self._normed + _FLOAT32

    def _attention(self, *, composite: bool = False, rebuilt: bool = False) -> float:
        """Queries, keys, values, what they attend to, and the inputs of the query-key norm unless `rebuilt` from."""
        config, width = self.config, self.dtype.itemsize
        kept = width * (2 * self._heads + 2 * self._kv_heads) + _FLOAT32 * config.num_attention_heads
        if config.qk_norm and composite:
            rotated = self._heads + self._kv_heads
            kept += (_FLOAT32 + width) * rotated
            kept += _FLOAT32 * (config.num_attention_heads + config.num_key_value_heads)
        elif config.qk_norm and not rebuilt:
            kept += width * (self._heads + self._kv_heads)
        return kept

    def _feed_forward(self, *, composite: bool = False) -> float:
        """The second half of a layer when every matrix product keeps its input."""
        config, width = self.config, self.dtype.itemsize
        norm = self._norm(1 if self.has_experts else 2) if composite else self._residual + self._normed
        if not self.has_experts:
            return norm + width * (4 if composite else 3) * config.intermediate_size
        outputs = (2 * width + self.residual_dtype.itemsize) * config.hidden_size
        pair = outputs + 4 * width * config.moe_intermediate_size
        return norm + config.num_experts_per_tok * pair + self._routing

    def _super_selective(self, *, compressed: bool) -> float:
        config, width = self.config, self.dtype.itemsize
        residual = self._normed if compressed and not self.compiled else self._residual
        kept = residual + self._attention(rebuilt=True)
        if not self.recomputes_o_proj:
            kept += self._normed if self.compiled else residual
        inner = config.moe_intermediate_size if self.has_experts else config.intermediate_size
        gate_up = 2 * (inner + width * inner // block_size(inner)) if compressed else 2 * width * inner
        if not self.has_experts:
            return kept + gate_up
        return kept + config.num_experts_per_tok * gate_up + self._routing

    @property
    def _routing(self) -> float:
        """Probabilities of all experts; of the chosen ones their number, weight, order and token."""
        config = self.config
        chosen = 3 * _INT64 + self.residual_dtype.itemsize
        if config.norm_topk_prob:
            chosen += _FLOAT32
        return (
            _FLOAT32 * config.num_experts
            + config.num_experts_per_tok * chosen
            + (_FLOAT32 if config.norm_topk_prob else 0)
        )
