import random
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kilonova.core.errors import CheckpointError
from kilonova.train.checkpoint.checkpointer import Checkpointer
from kilonova.train.checkpoint.state import random_state, set_random_state
from kilonova.train.muon import Muon


class Tied(nn.Module):
    """An embedding tied to the output, a frozen part, a buffer, and an expert that never sees a token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.hidden = nn.Linear(8, 8)
        self.idle = nn.Linear(8, 8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return self.head(self.frozen(self.hidden(self.embed(ids))))


def build(seed: int, *, muon: bool = True) -> tuple[Tied, list[torch.optim.Optimizer]]:
    torch.manual_seed(seed)
    model = Tied()
    matrices = [model.hidden.weight, model.idle.weight]
    others = [model.embed.weight, model.hidden.bias, model.idle.bias]
    if not muon:
        return model, [torch.optim.AdamW([*others, *matrices], lr=0.1, fused=True)]
    # Without vectors to move, a group may be empty.
    groups = [{"params": others}, {"params": []}]
    return model, [torch.optim.AdamW(groups, lr=0.1, fused=True), Muon(matrices, lr=0.1)]


def step(model: nn.Module, optimizers: list[torch.optim.Optimizer], seed: int) -> float:
    ids = torch.randint(0, 11, (4, 5), generator=torch.Generator().manual_seed(seed))
    loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def checkpointer(path: Path, model: nn.Module, optimizers: list, keep: int = 2) -> Checkpointer:
    return Checkpointer(path, model, optimizers, keep)


def save(saver: Checkpointer, number: int) -> None:
    saver.save(number, {"tokens": number}, {"number": number})
    result = saver.wait()
    assert result is not None
    assert (result.step, result.error) == (number, None)


def test_training_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    model, optimizers = build(1)
    saver = checkpointer(tmp_path, model, optimizers)
    for number in range(3):
        step(model, optimizers, number)
    saver.save(3, {"tokens": 30}, {"kind": "own"})
    # The weights change while the thread writes; what is written does not.
    expected = [step(model, optimizers, number) for number in range(3, 8)]
    assert saver.close() is not None

    other, others = build(2)
    frozen = other.frozen.weight.clone()
    other.frozen.load_state_dict(model.frozen.state_dict())
    restored = checkpointer(tmp_path, other, others).load_newest()
    assert restored is not None
    assert (restored.step, restored.run, restored.own) == (3, {"tokens": 30}, {"kind": "own"})
    assert other.seen == 3
    assert not torch.equal(other.frozen.weight, frozen)
    assert [step(other, others, number) for number in range(3, 8)] == expected
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_corrupt_newest_gives_way_to_the_one_before(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, optimizers = build(1)
    saver = checkpointer(tmp_path, model, optimizers)
    for number in (1, 2):
        step(model, optimizers, number)
        save(saver, number)
    file = saver.folder.checkpoint(2) / "__0_0.distcp"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    restored = saver.load_newest()
    assert restored is not None
    assert restored.step == 1
    assert "checkpoint of step 2 is corrupt (__0_0.distcp)" in capfd.readouterr().err
    (saver.folder.checkpoint(1) / ".metadata").write_bytes(b"")
    with pytest.raises(CheckpointError, match="all checkpoints are corrupt"):
        saver.load_newest()


def test_a_save_that_fails_leaves_the_one_before_and_training(tmp_path: Path) -> None:
    model, optimizers = build(1)
    saver = checkpointer(tmp_path, model, optimizers)
    step(model, optimizers, 0)
    save(saver, 1)
    # A file where the folder must be made: what any writer meets when the disk refuses.
    saver.folder.incomplete(2).write_text("")
    saver.folder.incomplete(2).chmod(0)
    saver.save(2, {}, {})
    step(model, optimizers, 1)
    failed = saver.wait()
    assert failed is not None
    assert failed.error
    assert saver.folder.newest() == 1
    saver.folder.incomplete(2).unlink()
    save(saver, 3)
    assert saver.folder.steps() == [1, 3]


def test_another_model_or_optimiser_is_refused(tmp_path: Path) -> None:
    model, optimizers = build(1)
    saver = checkpointer(tmp_path, model, optimizers)
    step(model, optimizers, 0)
    save(saver, 1)
    with pytest.raises(CheckpointError, match="another optimiser"):
        checkpointer(tmp_path, *build(1, muon=False)).load_newest()
    other, others = build(1)
    other.hidden.weight.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"other trained parameters \(hidden.weight differs\)"):
        checkpointer(tmp_path, other, others).load_newest()
    other, others = build(1)
    other.more = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"more\."):
        checkpointer(tmp_path, other, others).load_newest()


def test_nothing_to_load_is_not_an_error(tmp_path: Path) -> None:
    assert checkpointer(tmp_path / "new", *build(0)).load_newest() is None


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    state = random_state()
    drawn = (random.random(), np.random.random(), torch.rand(3).tolist())
    set_random_state(state)
    assert (random.random(), np.random.random(), torch.rand(3).tolist()) == drawn


_SHARDED = """
import sys
from pathlib import Path
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from kilonova.train.checkpoint.checkpointer import Checkpointer

dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))
fully_shard(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
saver = Checkpointer(Path(sys.argv[1]), model, [optimizer], keep=3)
restored = saver.load_newest()
for number in range(0 if restored is None else restored.step, int(sys.argv[2])):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(number))
    model(x).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    saver.save(number + 1, {"world": dist.get_world_size()}, {"rank": dist.get_rank()})
assert saver.close().error is None
if restored is not None and dist.get_rank() == 0:
    print(restored.own)
dist.destroy_process_group()
"""


def test_shards_are_saved_by_each_rank_and_read_by_another_number(fork: Callable[..., list], tmp_path: Path) -> None:
    def ranks(count: int, *arguments: str) -> str:
        """Run the script above in `count` processes; what rank 0 printed."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        every = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
        ended = fork(_SHARDED, *arguments, environments=[every | {"RANK": str(rank)} for rank in range(count)])
        assert all(process.status == 0 for process in ended), ended
        return ended[0].stdout

    ranks(2, str(tmp_path), "2")
    files = {path.name for path in (tmp_path / "step-00000002").iterdir()}
    assert files == {"__0_0.distcp", "__1_0.distcp", ".metadata", "manifest.json"}

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    restored = Checkpointer(tmp_path, model, [optimizer], keep=3).load_newest()
    assert restored is not None
    assert (restored.step, restored.run, restored.own) == (2, {"world": 2}, {"rank": 0})

    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))
    reference = torch.optim.AdamW(whole.parameters(), lr=0.1)
    for number in range(2):
        whole(torch.randn(4, 6, generator=torch.Generator().manual_seed(number))).square().sum().backward()
        reference.step()
        reference.zero_grad()
    for ours, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(optimizer.state[ours]["exp_avg_sq"], reference.state[theirs]["exp_avg_sq"])

    assert ranks(3, str(tmp_path), "4") == "{'rank': 0}\n"
    assert [path.name for path in sorted(tmp_path.glob("step-*"))][-1] == "step-00000004"
