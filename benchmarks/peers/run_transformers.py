"""transformers, without what `generate` adds to each step: a greedy loop over the model and its cache."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import transformers

from peers.job import Job, run_job


class TransformersEngine:
    """The model in bfloat16 or float32, with PyTorch's attention."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        self.version = transformers.__version__
        dtype = torch.float32 if job.bits == 32 else torch.bfloat16
        model = transformers.AutoModelForCausalLM.from_pretrained(job.weights, dtype=dtype, attn_implementation="sdpa")
        self.model = model.eval()
        self.weight_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())

    @torch.inference_mode()
    def prefill(self, prompt: list[int]) -> float:
        started = time.perf_counter()
        self._step(torch.tensor([prompt]), transformers.DynamicCache(config=self.model.config))
        return time.perf_counter() - started

    @torch.inference_mode()
    def decode(self, prompts: Callable[[str], list[list[int]]], new_tokens: int) -> float:
        cache = transformers.DynamicCache(config=self.model.config)
        tokens = self._step(torch.tensor(prompts("all")), cache)
        started = time.perf_counter()
        for _ in range(new_tokens):
            tokens = self._step(tokens, cache)
        return time.perf_counter() - started

    def _step(self, tokens: torch.Tensor, cache: transformers.DynamicCache) -> torch.Tensor:
        output = self.model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1].argmax(-1, keepdim=True)


if __name__ == "__main__":
    run_job(TransformersEngine)
