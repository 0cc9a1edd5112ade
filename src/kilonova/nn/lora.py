"""Low-rank adapters of linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class LoRALinear(nn.Linear):
    """A frozen linear layer with a trained low-rank addition: `W x + scaling * B A x + b`.

    It takes over the parameters of `base`, so that they keep their names, and adds `lora_A` `[rank, in]`, `lora_B`
    `[out, rank]` (LoRA, arXiv 2106.09685, equation 3) and with `dora` the `lora_magnitude_vector` `[out]`, which
    becomes the length of each row of `W + scaling * B A` (DoRA, arXiv 2402.09353, equation 5; the length itself is
    taken as constant by gradients, section 4.3). `scaling` is `alpha / rank`, or `alpha / sqrt(rank)` with `rslora`
    (arXiv 2312.03732). Parameters have the dtype and device of `base`; until it is trained the layer computes what
    `base` did.
    """

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        alpha: float,
        *,
        rslora: bool = False,
        dora: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        # Not Linear's own initialiser, which would allocate and draw weights that the base already has.
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.rank, self.alpha, self.rslora = rank, alpha, rslora
        self.scaling = alpha / (rank**0.5 if rslora else rank)
        self.weight, self.bias = base.weight.requires_grad_(False), base.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        lora_a = torch.empty(rank, self.in_features, dtype=self.weight.dtype)
        lora_a.uniform_(-(self.in_features**-0.5), self.in_features**-0.5, generator=generator)
        self.lora_A = nn.Parameter(lora_a.to(self.weight.device))
        self.lora_B = nn.Parameter(self.weight.new_zeros(self.out_features, rank))
        self.lora_magnitude_vector: nn.Parameter | None = None
        if dora:
            self.lora_magnitude_vector = nn.Parameter(self._row_norms().to(self.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        update = linear(linear(x, self.lora_A), self.lora_B) * self.scaling
        if self.lora_magnitude_vector is None:
            return linear(x, self.weight, self.bias) + update
        product = linear(x, self.weight) + update
        product = product * (self.lora_magnitude_vector / self._row_norms()).to(product.dtype)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """The weight `[out, in]` of the plain linear layer that computes the same, in the dtype of `weight`."""
        merged = self.weight.float() + self.scaling * (self.lora_B.float() @ self.lora_A.float())
        if self.lora_magnitude_vector is not None:
            merged *= (self.lora_magnitude_vector.float() / self._row_norms())[:, None]
        return merged.to(self.weight.dtype)

    @torch.no_grad()
    def _row_norms(self) -> Tensor:
        """Length of each row of `W + scaling * B A`, float32 `[out]`, without a second matrix of that size."""
        with torch.autocast(self.weight.device.type, enabled=False):
            weight, a, b = self.weight.float(), self.lora_A.float(), self.lora_B.float() * self.scaling
            squares = weight.square().sum(1) + ((2 * weight @ a.t() + b @ (a @ a.t())) * b).sum(1)
        return squares.clamp_min(torch.finfo(torch.float32).tiny).sqrt()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}, scaling={self.scaling:g}"
