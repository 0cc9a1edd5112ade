"""Runs the tasks in the JSON file it is given, each as several processes that fork from this one once it has imported
everything.
"""

import json
import os
import shutil
import socket
import sys
import traceback
from pathlib import Path

import torch
import torch._dynamo  # used by FSDP2, and long to import in every rank
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from kilonova.core.config import parse_config
from kilonova.data.packing import Batch
from kilonova.models.decoder.config import DecoderConfig
from kilonova.models.decoder.model import Decoder
from kilonova.train import trainer
from kilonova.train.parallel.mesh import parallel_mesh
from kilonova.train.parallel.section import ParallelSection
from kilonova.train.placed import PlacedDecoder
from kilonova.train.run import train


def gradients(task: dict) -> None:
    """Gradients of a loss made of the general `hidden_states` and `output_weight`, and what each rank holds."""
    section = parse_config(ParallelSection, task["parallel"])
    saved = torch.load(task["batch"])
    with parallel_mesh(section, torch.device("cpu")) as mesh:
        assert mesh is not None
        decoder = Decoder(DecoderConfig.from_hf(task["shape"]))
        decoder.init_weights(torch.Generator().manual_seed(0))
        placed = PlacedDecoder(decoder, torch.device("cpu"), torch.float32, mesh=mesh)
        held = {name: list(parameter.to_local().shape) for name, parameter in decoder.named_parameters()}
        batch = Batch(*(saved[name][mesh.data_rank :: mesh.num_data_ranks] for name in ("ids", "labels", "documents")))
        logits = placed.hidden_states(batch) @ placed.output_weight.t()
        total = (logits * saved["weight"]).square().sum()
        (total / section.context).backward()
        found = {}
        for name, parameter in decoder.named_parameters():
            assert isinstance(parameter.grad, DTensor)
            found[name] = parameter.grad.full_tensor()
        every: list = [None] * dist.get_world_size()
        dist.all_gather_object(every, held)
        if mesh.is_main:
            torch.save({"gradients": found, "held": every}, task["output"])


def run(task: dict) -> None:
    if task["kind"] == "train":
        train(task["recipe"], task.get("overrides", []))
    else:
        gradients(task)


def run_as_ranks(task: dict) -> list[int]:
    """Exit codes of the ranks."""
    ranks = task["ranks"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            # A single process has not been launched by anything.
            if ranks > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            code = 1
            try:
                run(task)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main() -> None:
    torch.set_num_threads(1)
    # What ranks that share a core measure says nothing, and takes most of the time of a short run.
    trainer.matmul_flops_per_second = lambda *_: 1e10
    for task in json.loads(Path(sys.argv[1]).read_text()):
        codes = run_as_ranks(task)
        if any(codes):
            sys.exit(f"ranks of {task} ended with {codes}")
        if "keep" in task:
            shutil.copytree(Path(task["recipe"]).with_suffix("") / "model", task["keep"])


if __name__ == "__main__":
    main()
