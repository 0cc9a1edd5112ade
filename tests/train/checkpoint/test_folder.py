import json
from pathlib import Path

import pytest

from kilonova.core.errors import CheckpointError
from kilonova.train.checkpoint.folder import MANIFEST, CheckpointFolder, Manifest, file_record


def commit(folder: CheckpointFolder, step: int, data: bytes = b"weights", world_size: int = 1) -> None:
    directory = folder.incomplete(step)
    directory.mkdir(parents=True)
    for name in (".metadata", *(f"__{rank}_0.distcp" for rank in range(world_size))):
        (directory / name).write_bytes(data)
    files = {path.name: file_record(path) for path in directory.iterdir()}
    folder.commit(Manifest(step=step, world_size=world_size, files=files, run={"tokens": step * 10}))


def test_a_checkpoint_exists_only_once_committed(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.newest() is None
    commit(folder, 5)
    folder.incomplete(6).mkdir()
    assert (folder.steps(), folder.newest()) == ([5], 5)
    assert folder.manifest(5).run == {"tokens": 50}
    folder.clean()
    assert sorted(path.name for path in folder.path.iterdir()) == ["latest", "step-00000005"]


def test_policy_keeps_the_newest_and_every_nth(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in range(10, 110, 10):
        commit(folder, step)
        folder.prune(keep=2, keep_every=50)
    assert folder.steps() == [50, 90, 100]


@pytest.mark.parametrize("pointer", [None, "", "step-00000099\n", "nonsense"])
def test_newest_is_found_without_a_usable_pointer(tmp_path: Path, pointer: str | None) -> None:
    folder = CheckpointFolder(tmp_path)
    commit(folder, 3)
    commit(folder, 12)
    (tmp_path / "latest").unlink()
    if pointer is not None:
        (tmp_path / "latest").write_text(pointer)
    assert folder.newest() == 12


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_damage_is_found(tmp_path: Path, harm: str) -> None:
    folder = CheckpointFolder(tmp_path)
    commit(folder, 1, bytes(range(256)) * 50, world_size=2)
    file = folder.checkpoint(1) / "__1_0.distcp"
    data = bytearray(file.read_bytes())
    if harm == "flip":
        data[7000] ^= 1
        file.write_bytes(data)
    elif harm == "truncate":
        file.write_bytes(data[:-1])
    else:
        file.unlink()
    manifest = folder.manifest(1)
    assert folder.damaged(1, manifest.files) == ["__1_0.distcp"]
    assert folder.damaged(1, manifest.files_of(0, 2)) == []
    assert set(manifest.files_of(0, 2)) == {".metadata", "__0_0.distcp"}
    assert set(manifest.files_of(0, 3)) == set(manifest.files)


def test_folders_that_are_no_checkpoints_of_ours_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "step-00000100").mkdir()
    with pytest.raises(CheckpointError, match="move them away"):
        CheckpointFolder(tmp_path).newest()


def test_a_corrupt_one_set_aside_goes_with_the_next_prune(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        commit(folder, step)
    folder.set_aside(2)
    assert folder.newest() == 1
    commit(folder, 3)
    folder.prune(keep=1, keep_every=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000003"]


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    commit(folder, 1)
    (folder.checkpoint(1) / MANIFEST).write_text(json.dumps({"step": "one"}))
    with pytest.raises(CheckpointError, match=MANIFEST):
        folder.manifest(1)


def test_a_step_can_be_committed_again(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    commit(folder, 4, b"old")
    commit(folder, 4, b"new")
    assert (folder.checkpoint(4) / "__0_0.distcp").read_bytes() == b"new"
