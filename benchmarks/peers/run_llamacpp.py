"""llama.cpp, through the C interface that llama-cpp-python binds: no Python sampler in the loop."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence

import llama_cpp
import numpy as np

from peers.job import Job, file_bytes, run_job

BATCH, MICRO_BATCH = 2048, 512

Row = tuple[int, int, int, bool]


@llama_cpp.llama_log_callback
def _silence(level: int, text: bytes, user: object) -> None:
    pass


class LlamaEngine:
    """A GGUF file in memory. `use_extra_bufts` lets it repack weights for the processor, as its own tools do."""

    def __init__(self, job: Job) -> None:
        llama_cpp.llama_backend_init()
        llama_cpp.llama_log_set(_silence, ctypes.c_void_p(0))
        self.version = llama_cpp.__version__
        self.weight_bytes = file_bytes(job.weights)
        self.threads = job.threads
        self.vocab_size = job.vocab_size
        parameters = llama_cpp.llama_model_default_params()
        parameters.use_mmap = False
        parameters.use_extra_bufts = True
        self.model = llama_cpp.llama_model_load_from_file(job.weights.encode(), parameters)
        if not self.model:
            raise RuntimeError(f"{job.weights} could not be loaded")

    def prefill(self, prompt: list[int]) -> float:
        context = self._context(1, len(prompt) + 1)
        started = time.perf_counter()
        self._run(context, _prompt_rows(prompt, 0))
        self._top(context, len(prompt) - 1)
        seconds = time.perf_counter() - started
        llama_cpp.llama_free(context)
        return seconds

    def decode(self, prompts: Callable[[str], list[list[int]]], new_tokens: int) -> float:
        streams = prompts("all")
        context = self._context(len(streams), len(streams) * (len(streams[0]) + new_tokens + 8))
        last = []
        for stream, prompt in enumerate(streams):
            self._run(context, _prompt_rows(prompt, stream))
            last.append(self._top(context, len(prompt) - 1))
        started = time.perf_counter()
        for step in range(new_tokens):
            position = len(streams[0]) + step
            self._run(context, [(token, position, stream, True) for stream, token in enumerate(last)])
            last = [self._top(context, stream) for stream in range(len(last))]
        seconds = time.perf_counter() - started
        llama_cpp.llama_free(context)
        return seconds

    def _context(self, streams: int, tokens: int) -> object:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = tokens, BATCH, MICRO_BATCH
        parameters.n_seq_max = streams
        parameters.n_threads = parameters.n_threads_batch = self.threads
        return llama_cpp.llama_init_from_model(self.model, parameters)

    def _run(self, context: object, rows: Sequence[Row]) -> None:
        batch = llama_cpp.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for index, (token, position, stream, wants_logits) in enumerate(rows):
            batch.token[index], batch.pos[index], batch.n_seq_id[index] = token, position, 1
            batch.seq_id[index][0], batch.logits[index] = stream, wants_logits
        code = llama_cpp.llama_decode(context, batch)
        llama_cpp.llama_batch_free(batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")

    def _top(self, context: object, index: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(context, index)
        return int(np.ctypeslib.as_array(logits, shape=(self.vocab_size,)).argmax())


def _prompt_rows(prompt: Sequence[int], stream: int) -> list[Row]:
    return [(token, position, stream, position == len(prompt) - 1) for position, token in enumerate(prompt)]


if __name__ == "__main__":
    run_job(LlamaEngine)
