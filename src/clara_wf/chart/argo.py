"""A rendered job as an Argo Workflow: the same stages, one pod each.

The chart's Job is one pod whose containers order themselves by their locks. Argo starts a pod when those before it have
ended, so:

- The graph's edges are the wait locks: who waits for whose lock. The locks are still written, and found at once.
- A stage holds its memory and its GPU only while it works, and may run on another node. In return nothing overlaps:
  imports and models are loaded when the stage before has ended, and each pod has to be scheduled.
- The payload must be storage that all pods reach: a claim of many readers and writers, or a folder of the one node
  where all run. A bucket needs a claim between its two ends (`workflow.payloads.storageClass`).
- When a stage fails, the ones after it never start, and leave no lock. What brings results back to a bucket runs at the
  end in any case (`onExit`), and does not wait for a lock that may never come.
- No stage gets a token of the cluster. Argo's own container in each pod needs one, of the service account
  `executor.serviceAccountName`, which must be allowed to create and patch `workflowtaskresults`. Argo mounts it from
  a Secret that it finds by the account's name, and which nobody makes since Kubernetes 1.24: `token_secret` does.
- That container reports to the API server. The chart's own NetworkPolicy would not let it: a job with one is refused.
- Argo replaces ``{{...}}`` in every text; what holds it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from clara_wf.chart.manifest import Manifest
from clara_wf.chart.plan import TRANSFERS
from clara_wf.model.errors import ChartError
from clara_wf.model.plan import PREFIX

#: Of Argo's own container, unless another is named.
SERVICE_ACCOUNT = "default"
#: Name of the graph among the templates, where no stage has it.
ENTRY = "graph"

_QUEUE = "kueue.x-k8s.io/queue-name"
# Keys of a pod, and what Argo calls them for all pods of a workflow.
_SAME = {
    "affinity": "affinity",
    "automountServiceAccountToken": "automountServiceAccountToken",
    "dnsConfig": "dnsConfig",
    "dnsPolicy": "dnsPolicy",
    "imagePullSecrets": "imagePullSecrets",
    "nodeSelector": "nodeSelector",
    "priorityClassName": "podPriorityClassName",
    "schedulerName": "schedulerName",
    "securityContext": "securityContext",
    "serviceAccountName": "serviceAccountName",
    "tolerations": "tolerations",
}
_ELSEWHERE = {"containers", "initContainers", "volumes", "restartPolicy"}


def argo_workflow(manifests: Sequence[Manifest], *, service_account: str = SERVICE_ACCOUNT) -> dict[str, Any]:
    """Return a rendered release's Job as an Argo Workflow (``argoproj.io/v1alpha1``).

    Parameters
    ----------
    manifests : sequence of Manifest
        All objects of the release, of which `read_plan` has found a Job that is one.
    service_account : str
        Of Argo's own container in each pod.

    Raises
    ------
    ChartError
        The stages share no storage, a text holds what Argo would replace, or a policy keeps Argo's own container from
        the API server.
    """
    if any(manifest.kind == "NetworkPolicy" for manifest in manifests):
        raise ChartError(
            "networkPolicy.enabled: Argo's own container in each pod would not reach the API server",
            remedy="Leave it out, and write a policy that lets the pods reach it.",
        )
    job = next(manifest for manifest in manifests if manifest.kind == "Job" and not manifest.is_hook).body
    spec = job["spec"]
    pod = spec["template"]["spec"]
    transfers = set(str(job["metadata"]["annotations"].get(TRANSFERS) or "").split(",")) - {""}
    shared, own = _volumes(pod)
    before = pod.get("initContainers") or []
    stages = [container for container in pod["containers"] if container["name"] not in transfers]
    after = [_without_waiting(container) for container in pod["containers"] if container["name"] in transfers]
    templates = [_template(container, own) for container in (*before, *stages, *after)]
    entry = ENTRY
    while any(template["name"] == entry for template in templates):
        entry += "-0"
    workflow: dict[str, Any] = {
        "entrypoint": entry,
        "podMetadata": _pod_metadata(job),
        "podGC": {"strategy": "OnWorkflowSuccess"},
        "executor": {"serviceAccountName": service_account},
        **{theirs: pod[ours] for ours, theirs in _SAME.items() if ours in pod},
        "templates": [{"name": entry, "dag": {"tasks": _tasks(before, stages)}}, *templates],
        "volumes": shared,
    }
    if "activeDeadlineSeconds" in spec:
        workflow["activeDeadlineSeconds"] = spec["activeDeadlineSeconds"]
    if "ttlSecondsAfterFinished" in spec:
        workflow["ttlStrategy"] = {"secondsAfterCompletion": spec["ttlSecondsAfterFinished"]}
    if after:
        workflow["onExit"] = after[0]["name"]
    rest = {key: value for key, value in pod.items() if key not in _ELSEWHERE | set(_SAME)}
    if rest:
        workflow["podSpecPatch"] = json.dumps(rest, sort_keys=True)
    found = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": dict(job["metadata"]),
        "spec": workflow,
    }
    _check_texts(found, "")
    return found


def token_secret(service_account: str, namespace: str) -> dict[str, Any]:
    """Return the Secret that Kubernetes fills with a service account's token, by the name that Argo looks for.

    Nothing in it is of one job: all jobs with that account share it. See Argo Workflows, "Service Account Secrets".
    """
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"{service_account}.service-account-token",
            "namespace": namespace,
            "annotations": {"kubernetes.io/service-account.name": service_account},
        },
        "type": "kubernetes.io/service-account-token",
    }


def _volumes(pod: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the volumes that all pods see, and the scratch space that each has of its own, by name."""
    own = {volume["name"]: volume for volume in pod.get("volumes") or [] if "emptyDir" in volume}
    for name in own:
        users = [
            container["name"]
            for container in (*(pod.get("initContainers") or []), *pod["containers"])
            if any(mount["name"] == name for mount in container.get("volumeMounts") or [])
        ]
        if len(users) > 1:
            raise ChartError(
                f"volume '{name}' lives and dies with a pod, and in an Argo Workflow {', '.join(users)} are pods of"
                " their own",
                remedy="Give them a claim: --set workflow.payloads.storageClass=NAME.",
            )
    return [volume for volume in pod.get("volumes") or [] if volume["name"] not in own], own


def _pod_metadata(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pods' labels and annotations; Kueue, which does not know workflows, queues pod by pod."""
    found = job["spec"]["template"].get("metadata") or {}
    metadata = {key: dict(found.get(key) or {}) for key in ("labels", "annotations") if found.get(key)}
    queue = job["metadata"]["labels"].get(_QUEUE)
    if queue:
        metadata.setdefault("labels", {})[_QUEUE] = queue
    return metadata


def _tasks(before: Sequence[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the graph: who waits for a lock depends on whose lock it is, and all others on what comes first."""
    makers = {_variable(stage, "LOCKNAME"): stage["name"] for stage in stages}
    first = [container["name"] for container in before]
    tasks: list[dict[str, Any]] = [{"name": name, "template": name} for name in first]
    for stage in stages:
        awaited = _variable(stage, "WAITNAME")
        depends = [makers[awaited]] if awaited else first
        task = {"name": stage["name"], "template": stage["name"]}
        tasks.append(task | {"dependencies": depends} if depends else task)
    return tasks


def _variable(container: Mapping[str, Any], name: str) -> str:
    return next((str(entry.get("value", "")) for entry in container["env"] if entry["name"] == PREFIX + name), "")


def _template(container: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    mounted = [mount["name"] for mount in container.get("volumeMounts") or []]
    inside = {key: value for key, value in container.items() if key != "name"}  # Argo has a name for it
    template = {"name": container["name"], "container": inside}
    scratch = [own[name] for name in mounted if name in own]
    return template | {"volumes": scratch} if scratch else template


def _without_waiting(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container that starts when all is over."""
    env = [
        {**entry, "value": ""} if entry["name"] == f"{PREFIX}WAITNAME" else dict(entry) for entry in container["env"]
    ]
    return {**container, "env": env}


def _check_texts(found: object, where: str) -> None:
    if isinstance(found, Mapping):
        for key, value in found.items():
            _check_texts(value, f"{where}.{key}" if where else str(key))
    elif isinstance(found, list):
        for number, value in enumerate(found):
            _check_texts(value, f"{where}[{number}]")
    elif isinstance(found, str) and "{{" in found:
        raise ChartError(f"{where}: Argo would replace the {{{{...}}}} in it", remedy="Choose another text.")
