"""Published schemas, kept to the fields that the files use; a field that is not here is an error.

From the types of batch/v1 and core/v1 of Kubernetes, of jobset.x-k8s.io/v1alpha2, and SkyPilot's description of a task.
"""

from typing import Any

TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def only(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def several(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


METADATA = only(("name",), name=NAME, annotations=TEXTS, labels=TEXTS)

CONTAINER = only(
    ("name", "image"),
    name=NAME,
    image=TEXT,
    command=several(TEXT),
    args=several(TEXT),
    # In Kubernetes a value is always text; the number 2 would be refused.
    env=several(only(("name", "value"), name={"type": "string", "pattern": "^[A-Z_]+$"}, value={"type": "string"})),
    ports=several(only(("containerPort",), containerPort={"type": "integer", "minimum": 1, "maximum": 65535})),
    resources=only(limits={"type": "object", "additionalProperties": {"type": ["integer", "string"]}}),
    volumeMounts=several(only(("name", "mountPath"), name=NAME, mountPath={"type": "string", "pattern": "^/"})),
)

POD = only(
    ("restartPolicy", "containers"),
    # Policies on the failure of pods need pods that are not restarted in place.
    restartPolicy={"const": "Never"},
    terminationGracePeriodSeconds=COUNT,
    nodeSelector=TEXTS,
    containers=several(CONTAINER),
    volumes=several(
        only(
            ("name",),
            name=NAME,
            persistentVolumeClaim=only(("claimName",), claimName=NAME),
            emptyDir=only(medium={"enum": ["", "Memory"]}),
        )
    ),
)

POD_FAILURE_RULE = {
    **only(
        ("action",),
        action={"enum": ["Count", "FailIndex", "FailJob", "Ignore"]},
        onExitCodes=only(
            ("operator", "values"),
            containerName=NAME,
            operator={"enum": ["In", "NotIn"]},
            values=several({"type": "integer", "minimum": 1, "maximum": 255}),
        ),
        onPodConditions=several(only(("type", "status"), type=TEXT, status={"enum": ["True", "False", "Unknown"]})),
    ),
    "oneOf": [{"required": ["onExitCodes"]}, {"required": ["onPodConditions"]}],
}

JOB_SPEC = only(
    ("template",),
    completions=COUNT,
    parallelism=COUNT,
    completionMode={"enum": ["Indexed", "NonIndexed"]},
    backoffLimit=COUNT,
    backoffLimitPerIndex=COUNT,
    maxFailedIndexes=COUNT,
    podFailurePolicy=only(("rules",), rules={**several(POD_FAILURE_RULE), "maxItems": 20}),
    template=only(("spec",), spec=POD),
)

JOB = only(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "batch/v1"},
    kind={"const": "Job"},
    metadata=METADATA,
    spec=JOB_SPEC,
)

JOB_SET = only(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=METADATA,
    spec=only(
        ("replicatedJobs",),
        network=only(enableDNSHostnames=FLAG, subdomain=NAME, publishNotReadyAddresses=FLAG),
        failurePolicy=only(
            maxRestarts=COUNT,
            restartStrategy={"enum": ["Recreate", "BlockingRecreate"]},
            rules=several(
                only(
                    ("name", "action"),
                    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                    action={"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]},
                    onJobFailureReasons={
                        "type": "array",
                        "uniqueItems": True,
                        "items": {
                            "enum": [
                                "BackoffLimitExceeded",
                                "DeadlineExceeded",
                                "FailedIndexes",
                                "MaxFailedIndexesExceeded",
                                "PodFailurePolicy",
                            ]
                        },
                    },
                    targetReplicatedJobs=several(NAME),
                )
            ),
        ),
        replicatedJobs=several(only(("name", "template"), name=NAME, replicas=COUNT, template=only(spec=JOB_SPEC))),
    ),
)

SKYPILOT_TASK = only(
    ("resources", "run"),
    name=TEXT,
    workdir=TEXT,
    num_nodes={"type": "integer", "minimum": 1},
    resources=only(
        infra=TEXT,
        accelerators={"type": "string", "pattern": r"^[\w-]+(:\d+)?$"},
        use_spot=FLAG,
        job_recovery=only(
            max_restarts_on_errors=COUNT,
            recover_on_exit_codes=several({"type": "integer", "minimum": 0, "maximum": 255}),
        ),
    ),
    volumes=TEXTS,
    envs=TEXTS,
    setup=TEXT,
    run=TEXT,
)
