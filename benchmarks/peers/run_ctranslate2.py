"""CTranslate2's generator."""

from __future__ import annotations

import json
from pathlib import Path

import ctranslate2

from peers.job import Job, RunToCompletion, file_bytes, run_job

COMPUTE_TYPES = {8: "int8", 16: "bfloat16", 32: "float32"}


class CTranslate2Engine(RunToCompletion):
    """A directory that CTranslate2's converter made."""

    def __init__(self, job: Job) -> None:
        self.version = ctranslate2.__version__
        self.weight_bytes = file_bytes(Path(job.weights) / "model.bin")
        self.names = json.loads((Path(job.weights) / "vocabulary.json").read_text(encoding="utf-8"))
        self.generator = ctranslate2.Generator(
            job.weights,
            device="cpu",
            compute_type=COMPUTE_TYPES[job.bits],
            intra_threads=job.threads,
            inter_threads=1,
        )

    def run(self, prompts: list[list[int]], new_tokens: int) -> None:
        results = self.generator.generate_batch(
            [[self.names[token] for token in prompt] for prompt in prompts],
            max_length=new_tokens,
            min_length=new_tokens,
            include_prompt_in_result=False,
            sampling_topk=1,
        )
        lengths = {len(result.sequences_ids[0]) for result in results}
        if lengths != {new_tokens}:
            raise RuntimeError(f"{new_tokens} tokens were asked for, {lengths} came")


if __name__ == "__main__":
    run_job(CTranslate2Engine)
