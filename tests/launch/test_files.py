"""Launch files fit the schemas of what reads them, and start torchrun as it wants to be started."""

from __future__ import annotations

import os
import re
import subprocess
from argparse import Namespace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.launch import schemas
from torch.distributed.run import get_args_parser

LAUNCH = Path(__file__).parents[2] / "launch"
DOCUMENTS = [
    ("pytorchjob.yaml", 0, schemas.PYTORCH_JOB),
    ("trainjob.yaml", 0, schemas.TRAINING_RUNTIME),
    ("trainjob.yaml", 1, schemas.TRAIN_JOB),
    ("skypilot.yaml", 0, schemas.SKYPILOT),
]


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((LAUNCH / name).read_text(encoding="utf-8")))


def understood(command: list[str], monkeypatch: pytest.MonkeyPatch, **environment: str) -> Namespace:
    """What torchrun makes of a command, in an environment that also fills its `$(NAME)`."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    filled = [re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], word) for word in command]
    assert filled[0] == "torchrun"
    return get_args_parser().parse_args(filled[1:])


def assert_trains(found: Namespace, recipe: str) -> None:
    assert (found.nnodes, found.nproc_per_node, found.max_restarts) in {("2", "8", 20), ("2:2", "8", 20)}
    assert found.rdzv_backend == "c10d"
    assert found.module
    assert [found.training_script, *found.training_script_args] == ["kilonova", "train", recipe]


@pytest.mark.parametrize(("name", "index", "schema"), DOCUMENTS)
def test_the_file_fits_its_schema(name: str, index: int, schema: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    document = documents(name)[index]
    assert [error.message for error in validator.iter_errors(document)] == []
    # The schemas are not so loose that anything fits.
    assert not validator.is_valid(document | {"replicas": 2})


@pytest.mark.parametrize("name", ["pytorchjob.yaml", "trainjob.yaml"])
def test_what_is_mounted_is_there(name: str) -> None:
    (pod,) = (found for found in _pods(documents(name)[0]))
    mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    (container,) = pod["containers"]
    assert container["name"] == {"pytorchjob.yaml": "pytorch", "trainjob.yaml": "node"}[name]


def test_pytorchjob_starts_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = documents("pytorchjob.yaml")[0]["spec"]
    policy, worker = spec["elasticPolicy"], spec["pytorchReplicaSpecs"]["Worker"]
    assert policy["minReplicas"] <= worker["replicas"] <= policy["maxReplicas"]
    (container,) = worker["template"]["spec"]["containers"]
    assert int(spec["nprocPerNode"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    found = understood(
        container["command"],
        monkeypatch,
        PET_NNODES=f"{policy['minReplicas']}:{policy['maxReplicas']}",
        PET_NPROC_PER_NODE=spec["nprocPerNode"],
        PET_RDZV_BACKEND=policy["rdzvBackend"],
        PET_RDZV_ENDPOINT="kilonova-worker-0:23456",
        PET_MAX_RESTARTS=str(policy["maxRestarts"]),
    )
    assert_trains(found, "/shared/my-recipe.yaml")


def test_trainjob_starts_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, job = documents("trainjob.yaml")
    assert job["spec"]["runtimeRef"]["kind"] == runtime["kind"]
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    trainer = job["spec"]["trainer"]
    found = understood(
        [*trainer["command"], *trainer["args"]],
        monkeypatch,
        PET_NNODES=str(trainer["numNodes"]),
        PET_NPROC_PER_NODE=str(trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"]),
        PET_NODE_RANK="1",
        PET_MASTER_ADDR="kilonova-node-0-0.kilonova",
        PET_MASTER_PORT="29500",
    )
    assert_trains(found, "/shared/my-recipe.yaml")
    assert found.rdzv_endpoint == "kilonova-node-0-0.kilonova:29500"


def test_skypilot_starts_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = documents("skypilot.yaml")[0]
    for name in ("bin/activate", "bin/torchrun"):
        path = tmp_path / "kilonova" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n' if name == "bin/torchrun" else f"PATH={path.parent}:$PATH\n")
        path.chmod(0o755)
    environment = os.environ | {name: str(value) for name, value in task["envs"].items()}
    environment |= {
        "HOME": str(tmp_path),
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "SKYPILOT_NODE_RANK": "1",
        "SKYPILOT_NUM_NODES": str(task["num_nodes"]),
        "SKYPILOT_NUM_GPUS_PER_NODE": task["resources"]["accelerators"].split(":")[1],
        "SKYPILOT_TASK_ID": "sky-managed-2026-01-01_kilonova_1-0",
    }
    script = ["bash", "-euo", "pipefail", "-c", task["run"]]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=30, check=True)
    found = understood(["torchrun", *done.stdout.splitlines()], monkeypatch)
    assert_trains(found, task["envs"]["RECIPE"])
    assert found.rdzv_endpoint == "10.0.0.1:29400"
    assert subprocess.run(["bash", "-n", "-c", task["setup"]], check=False).returncode == 0


def _pods(tree: Any) -> list[dict[str, Any]]:
    """All pod specifications below `tree`."""
    if isinstance(tree, list):
        return [pod for item in tree for pod in _pods(item)]
    if not isinstance(tree, dict):
        return []
    if "containers" in tree:
        return [tree]
    return [pod for item in tree.values() for pod in _pods(item)]
