"""OpenVINO GenAI's LLMPipeline."""

from __future__ import annotations

import numpy as np
import openvino
import openvino_genai

from peers.job import Job, RunToCompletion, file_bytes, run_job


class OpenVINOEngine(RunToCompletion):
    """A directory that optimum-intel exported."""

    def __init__(self, job: Job) -> None:
        self.version = openvino_genai.__version__
        self.weight_bytes = file_bytes(job.weights, "openvino_model.bin")
        self.pipeline = openvino_genai.LLMPipeline(job.weights, "CPU", INFERENCE_NUM_THREADS=job.threads)

    def run(self, prompts: list[list[int]], new_tokens: int) -> None:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = new_tokens
        config.ignore_eos = True
        config.do_sample = False
        config.apply_chat_template = False
        tokens = np.array(prompts, dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(tokens), openvino.Tensor(np.ones_like(tokens)))
        self.pipeline.generate(inputs, config)


if __name__ == "__main__":
    run_job(OpenVINOEngine)
