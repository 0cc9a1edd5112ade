"""onnxruntime-genai's generator, step by step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import onnxruntime_genai

from peers.job import Job, file_bytes, run_job


class ONNXEngine:
    """A directory that onnxruntime-genai's model builder made; its `genai_config.json` holds the number of threads."""

    def __init__(self, job: Job) -> None:
        self.version = onnxruntime_genai.__version__
        self.weight_bytes = file_bytes(job.weights, "*.onnx", "*.onnx.data")
        config = onnxruntime_genai.Config(job.weights)
        options = {"model": {"decoder": {"session_options": {"intra_op_num_threads": job.threads}}}}
        config.overlay(json.dumps(options))
        self.model = onnxruntime_genai.Model(config)

    def prefill(self, prompt: list[int]) -> float:
        generator = self._generator([prompt], 1)
        started = time.perf_counter()
        self._start(generator, [prompt])
        return time.perf_counter() - started

    def decode(self, prompts: Callable[[str], list[list[int]]], new_tokens: int) -> float:
        streams = prompts("all")
        generator = self._generator(streams, new_tokens + 1)
        self._start(generator, streams)
        started = time.perf_counter()
        for _ in range(new_tokens):
            generator.generate_next_token()
        return time.perf_counter() - started

    def _generator(self, prompts: list[list[int]], new_tokens: int) -> onnxruntime_genai.Generator:
        parameters = onnxruntime_genai.GeneratorParams(self.model)
        length = len(prompts[0]) + new_tokens
        # A least length beyond what is asked for keeps the end of sequence away.
        parameters.set_search_options(
            max_length=length + 8, min_length=length + 4, do_sample=False, batch_size=len(prompts)
        )
        return onnxruntime_genai.Generator(self.model, parameters)

    def _start(self, generator: onnxruntime_genai.Generator, prompts: list[list[int]]) -> None:
        generator.append_tokens(np.array(prompts, dtype=np.int32))
        generator.generate_next_token()


if __name__ == "__main__":
    run_job(ONNXEngine)
