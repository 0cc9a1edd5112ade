"""vLLM's CPU build, in process."""

from __future__ import annotations

import os

from peers.job import Job, RunToCompletion, file_bytes, run_job

KV_CACHE_GIB = 2


class VLLMEngine(RunToCompletion):
    """The offline engine in bfloat16, with prefixes not reused and steps not compiled."""

    def __init__(self, job: Job) -> None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(KV_CACHE_GIB))
        cores = sorted(os.sched_getaffinity(0))[: job.threads]
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)))
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        import vllm

        self.version = vllm.__version__
        self.weight_bytes = file_bytes(job.weights, "*.safetensors")
        self.sampling = vllm.SamplingParams
        self.llm = vllm.LLM(
            job.weights,
            dtype="bfloat16",
            max_model_len=2 * (job.prompt_tokens + job.new_tokens) + 8,
            max_num_seqs=max(job.streams, default=1),
            enable_prefix_caching=False,
            enforce_eager=True,
        )

    def run(self, prompts: list[list[int]], new_tokens: int) -> None:
        sampling = self.sampling(temperature=0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
        self.llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)


if __name__ == "__main__":
    run_job(VLLMEngine)
