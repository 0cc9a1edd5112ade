"""The parts of other projects' schemas that the launch files use, as JSON schemas that refuse any other key.

After the custom resource definitions of kubeflow/trainer (branch release-1.9 for PyTorchJob; `trainjobs` and
`trainingruntimes` of version v1alpha1) and SkyPilot's YAML reference.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
# A DNS-1035 label.
NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}


def keys(required: str = "", **properties: Any) -> dict[str, Any]:
    """An object with these keys and no others."""
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


def several(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


RESOURCES = keys(limits={"type": "object"}, requests={"type": "object"})
ENVIRONMENT = several(keys("name value", name=TEXT, value=TEXT))
MOUNTS = several(keys("name mountPath", name=TEXT, mountPath=TEXT))
CONTAINER = {
    "name": TEXT,
    "image": TEXT,
    "command": several(TEXT),
    "args": several(TEXT),
    "env": ENVIRONMENT,
    "resources": RESOURCES,
    "volumeMounts": MOUNTS,
}
VOLUME = keys(
    "name",
    name=TEXT,
    persistentVolumeClaim=keys("claimName", claimName=TEXT),
    emptyDir=keys(medium={"enum": ["", "Memory"]}, sizeLimit=TEXT),
)
POD = keys(
    "containers",
    containers=several(keys("name image", **CONTAINER)),
    volumes=several(VOLUME),
    restartPolicy={"enum": ["Never", "OnFailure"]},
    terminationGracePeriodSeconds=COUNT,
)
METADATA = keys("name", name=NAME, labels=TEXTS)

PYTORCH_JOB = keys(
    "apiVersion kind metadata spec",
    apiVersion={"const": "kubeflow.org/v1"},
    kind={"const": "PyTorchJob"},
    metadata=METADATA,
    spec=keys(
        "pytorchReplicaSpecs",
        nprocPerNode=TEXT,
        elasticPolicy=keys(
            rdzvBackend={"enum": ["c10d", "etcd", "etcd-v2"]}, minReplicas=COUNT, maxReplicas=COUNT, maxRestarts=COUNT
        ),
        runPolicy=keys(cleanPodPolicy={"enum": ["All", "Running", "None"]}),
        # The validating webhook asks for workers under an elastic policy.
        pytorchReplicaSpecs=keys(
            "Worker",
            Worker=keys(
                "template",
                replicas=COUNT,
                restartPolicy={"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
                template=keys("spec", spec=POD),
            ),
        ),
    ),
)

TRAINING_RUNTIME = keys(
    "apiVersion kind metadata spec",
    apiVersion={"const": "trainer.kubeflow.org/v1alpha1"},
    kind={"const": "TrainingRuntime"},
    metadata=METADATA,
    spec=keys(
        "template",
        mlPolicy=keys(numNodes=COUNT, torch={"type": "object"}),
        template=keys(
            "spec",
            spec=keys(
                "replicatedJobs",
                failurePolicy=keys(maxRestarts=COUNT),
                replicatedJobs=several(
                    keys(
                        "name template",
                        name=TEXT,
                        template=keys(
                            "spec",
                            metadata=keys(labels=TEXTS),
                            spec=keys("template", backoffLimit=COUNT, template=keys("spec", spec=POD)),
                        ),
                    )
                ),
            ),
        ),
    ),
)

TRAIN_JOB = keys(
    "apiVersion kind metadata spec",
    apiVersion={"const": "trainer.kubeflow.org/v1alpha1"},
    kind={"const": "TrainJob"},
    metadata=METADATA,
    spec=keys(
        "runtimeRef",
        runtimeRef=keys("name", apiGroup=TEXT, kind={"enum": ["TrainingRuntime", "ClusterTrainingRuntime"]}, name=TEXT),
        trainer=keys(
            numNodes=COUNT,
            image=TEXT,
            command=several(TEXT),
            args=several(TEXT),
            env=ENVIRONMENT,
            resourcesPerNode=RESOURCES,
        ),
    ),
)

SKYPILOT = keys(
    "resources run",
    name=TEXT,
    num_nodes=COUNT,
    workdir=TEXT,
    setup=TEXT,
    run=TEXT,
    envs={"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
    volumes={"type": "object", "additionalProperties": TEXT},
    resources=keys(
        infra=TEXT,
        accelerators={"type": "string", "pattern": r"^\w+:\d+$"},
        network_tier={"enum": ["standard", "best"]},
        job_recovery=keys(strategy={"enum": ["FAILOVER", "EAGER_NEXT_REGION"]}, max_restarts_on_errors=COUNT),
    ),
)
