"""What the chart renders to is what the plan says: the index arithmetic, the mounts, and edits by a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clara_wf.chart.catalog import read_catalog
from clara_wf.chart.helm import Helm
from clara_wf.chart.manifest import read_manifests
from clara_wf.chart.plan import read_plan
from clara_wf.chart.quantity import parse_quantity
from clara_wf.chart.render import plan_job
from clara_wf.chart.request import JobRequest, nested
from clara_wf.chart.workspace import Workspace
from clara_wf.model.errors import ChartError, UsageError
from clara_wf.model.plan import Plan, StagePlan

JOB_ID = "00000000-0000-0000-0000-000000000000"
PAYLOAD = Path("/payloads") / JOB_ID

Make = Callable[..., JobRequest]


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) >= 1, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new, 1))


def container_of(workspace: Workspace, stage: str) -> Path:
    return workspace.chart / "templates/stages" / stage / "container.yaml"


def host(stage: StagePlan, path: str) -> Path:
    return next(mount.host for mount in stage.mounts if mount.path == path)


def test_liver_seg_in_full(chart: Path, helm: Helm, job: Make) -> None:
    plan = plan_job(chart, job("liver-seg", trtis_uri="triton:8001", deadline=59.5), helm=helm)

    assert (plan.workflow, plan.workflow_id) == ("liver-seg", "fd3ee8bf-b9f3-4808-bd60-243f870ff9bd")
    assert (plan.job_id, plan.job_name, plan.payload) == (JOB_ID, "test", PAYLOAD)
    assert plan.deadline == 60.0  # Kubernetes counts whole seconds
    assert plan.input == PAYLOAD / "dicom-reader/input"
    assert plan.output == PAYLOAD / "dicom-writer/output"
    reader, segmenter, writer = plan.stages
    assert reader.command == ("python", "-m", "clara_wf.operators.dicom_reader")
    assert segmenter.image == "clara-wf/ai-livertumor:0.1.0"
    assert segmenter.resources.memory == 8 * 2**30
    assert writer.args == ("--workflow", "liver-seg")
    assert segmenter.environment == {
        "NVIDIA_CLARA_STAGENAME": "ai-livertumor",
        "NVIDIA_CLARA_JOBID": JOB_ID,
        "NVIDIA_CLARA_JOBNAME": "test",
        "NVIDIA_CLARA_IMAGE": "clara-wf/ai-livertumor:0.1.0",
        "NVIDIA_CLARA_APPDIR": "/app",
        "NVIDIA_CLARA_INPUTS": "input",
        "NVIDIA_CLARA_OUTPUTS": "output",
        "NVIDIA_CLARA_INPUTLOCK": "/app/locks/input.lock",
        "NVIDIA_CLARA_LOCKDIR": "/app/locks",
        "NVIDIA_CLARA_LOCKNAME": "ai-livertumor.lock",
        "NVIDIA_CLARA_WAITNAME": "dicom-reader.lock",
        "NVIDIA_CLARA_LOGNAME": "/app/logs/ai-livertumor.log",
        "NVIDIA_CLARA_TIMEOUT": "3600",
        "NVIDIA_CLARA_RUNSIMPLE": "TRUE",
        "NVIDIA_CLARA_TRTISURI": "triton:8001",
        "NVIDIA_CLARA_NETWORK": "trtis",
    }
    assert [(mount.path, mount.host, mount.read_only) for mount in segmenter.mounts] == [
        ("/app/input", PAYLOAD / "dicom-reader/output", False),
        ("/app/output", PAYLOAD / "ai-livertumor/output", False),
        ("/app/locks", PAYLOAD / "locks", False),
        ("/app/logs", PAYLOAD / "logs", False),
        ("/app/models", Path("/models"), True),
    ]


@pytest.mark.parametrize(
    "name", [w.name for w in read_catalog(Path(__file__).parents[2] / "charts/clara-workflow").workflows]
)
def test_every_chain_holds_together(name: str, chart: Path, helm: Helm, job: Make) -> None:
    """Each stage reads what the one before wrote, and waits for the lock that it leaves."""
    workflow = read_catalog(chart).workflow(name)
    plan = plan_job(chart, job(name), helm=helm)

    assert tuple(stage.name for stage in plan.stages) == workflow.stages
    assert plan.stages[0].variable("WAITNAME") == ""
    assert host(plan.stages[0], "/app/input") == PAYLOAD / f"{workflow.stages[0]}/input"
    for before, after in zip(plan.stages, plan.stages[1:], strict=False):
        assert after.variable("WAITNAME") == before.variable("LOCKNAME")
        assert host(after, "/app/input") == host(before, "/app/output")
    assert len({stage.variable("LOCKNAME") for stage in plan.stages}) == len(plan.stages)
    assert {stage.name for stage in plan.stages if stage.host_path("/app/models")} == {
        stage for stage in workflow.stages if stage.startswith("ai-")
    }


def test_dicom_adapter_takes_the_first_and_the_last_folder_only(chart: Path, helm: Helm, job: Make) -> None:
    plan = plan_job(chart, job("liver-seg", dicom_input="dicom-server", dicom_output="output"), helm=helm)
    assert plan.input == PAYLOAD / "dicom-server"
    assert host(plan.stages[1], "/app/input") == PAYLOAD / "dicom-reader/output"
    assert host(plan.stages[1], "/app/output") == PAYLOAD / "ai-livertumor/output"
    assert plan.output == PAYLOAD / "output"
    only = plan_job(chart, job("ai-only", dicom_input="dicom-server"), helm=helm)
    assert (only.input, only.output) == (PAYLOAD / "dicom-server", PAYLOAD / "ai-vnet/output")


def test_a_job_id_of_digits_stays_what_it_is(chart: Path, either_helm: Helm, job: Make) -> None:
    digits = "12345678-1234-1234-1234-123456789012"
    plan = plan_job(chart, job("ai-only", job_id=digits), helm=either_helm)
    assert plan.job_id == digits
    assert plan.payload == Path("/payloads") / digits
    assert plan.stages[0].variable("JOBID") == digits


@pytest.mark.parametrize("digits", ["123", "007", "12345678901234567890", "1e3"])
def test_digits_in_a_string_stay_what_they_are(digits: str, chart: Path, either_helm: Helm, job: Make) -> None:
    request = job("ai-only", job_name=digits, options={"ai-vnet": [digits]})
    plan = plan_job(chart, request, helm=either_helm)
    assert plan.job_name == digits
    assert plan.stages[0].args[-1] == digits


@pytest.mark.parametrize("name", ["null", "true", "12", 'it\'s "so": {a} # b', "$(NVIDIA_CLARA_JOBID)x", ""])
def test_a_job_name_arrives_as_it_was_written(name: str, chart: Path, helm: Helm, job: Make) -> None:
    plan = plan_job(chart, job("ai-only", job_name=name), helm=helm)
    # Kubernetes itself puts variables in place of $(NAME).
    assert plan.job_name == name.replace("$(NVIDIA_CLARA_JOBID)", JOB_ID)


def test_options_follow_the_workflows_own_arguments(chart: Path, helm: Helm, job: Make) -> None:
    plan = plan_job(chart, job("ai", options={"dicom-reader": ["--resample"], "dicom-writer": ["--x", "1"]}), helm=helm)
    assert [stage.args for stage in plan.stages] == [
        ("--resample",),
        ("--model", "liver-lesion"),
        ("--workflow", "liver-seg", "--x", "1"),
    ]
    with pytest.raises(UsageError, match="'ai-only' has no stage 'recon'"):
        plan_job(chart, job("ai-only", options={"recon": ["--x"]}), helm=helm)


def test_an_edit_of_container_yaml_takes_effect(workspace: Workspace, helm: Helm, job: Make) -> None:
    file = container_of(workspace, "ai-vnet")
    edit(
        file, "  # Your own", '  - name: THREADS\n    value: "2"\n  - name: FOR\n    value: $(THREADS)/$$(THREADS)\n  #'
    )
    edit(
        file,
        "volumeMounts:\n",
        "volumeMounts:\n  - name: payload\n    mountPath: /app/notes\n    subPath: notes\n    readOnly: true\n",
    )
    edit(file, "resources:\n  {{- toYaml . | nindent 2 }}", 'resources:\n  limits: {cpu: "1500m", memory: 512Mi}')
    stage = plan_job(workspace.chart, job("ai-only"), helm=helm).stages[0]
    assert stage.environment["THREADS"] == "2"
    assert stage.environment["FOR"] == "2/$(THREADS)"
    assert stage.resources.cpu == 1.5
    assert stage.resources.memory == 512 * 2**20
    mount = stage.mounts[0]
    assert (mount.path, mount.host, mount.read_only) == ("/app/notes", PAYLOAD / "notes", True)


def test_a_volume_of_its_own_is_an_edit_of_volume_yaml(workspace: Workspace, helm: Helm, job: Make) -> None:
    file = workspace.chart / "templates/stages/recon/volume.yaml"
    text = file.read_text()
    text = text.replace(
        'payloadMounts" . }}\n',
        'payloadMounts" . }}\n- {name: scratch, mountPath: /tmp}\n- {name: cal, mountPath: /cal}\n',
    )
    text = text.replace(
        'volumes" -}}\n', 'volumes" -}}\n- {name: scratch, emptyDir: {}}\n- {name: cal, hostPath: {path: /srv/cal}}\n'
    )
    file.write_text(text)
    stage = plan_job(workspace.chart, job("recon-ai"), helm=helm).stages[0]
    assert host(stage, "/cal") == Path("/srv/cal")
    assert stage.host_path("/tmp") is None  # scratch space: the stage has its own


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('value: "x"', "valueFrom: {secretKeyRef: {name: s, key: k}}", r"variable X: valueFrom \(secretKeyRef\)"),
        ('value: "x"', "value: 5", "stage 'ai-vnet': variable X: 5 is no string, quote it"),
        ('value: "x"', "value: yes", "variable X: True is no string"),
        ("name: ai-vnet\n", "name: ai-vnet\nlivenessProbe: {}\n", "stage 'ai-vnet': livenessProbe is not supported"),
        ("name: ai-vnet\n", "name: ai-vnet\nenvFrom: []\n", "envFrom is not supported"),
        ("volumeMounts:\n", "volumeMounts:\n  - {name: nowhere, mountPath: /x}\n", "mount /x: no volume 'nowhere'"),
        ("volumeMounts:\n", "volumeMounts:\n  - {name: payload, mountPath: x}\n", "mountPath 'x' is not absolute"),
        (
            "volumeMounts:\n",
            "volumeMounts:\n  - {name: payload, mountPath: /x, subPath: ../y}\n",
            "leads out of the volume",
        ),
        (
            "volumeMounts:\n",
            "volumeMounts:\n  - {name: payload, mountPath: /x, subPathExpr: $(X)}\n",
            "subPathExpr is not supported",
        ),
        (
            "resources:\n  {{- toYaml . | nindent 2 }}",
            "resources: {limits: {memory: 2GB}}",
            "limits.memory: '2GB' is no quantity",
        ),
    ],
)
def test_what_a_plan_cannot_say_is_refused_by_name(
    old: str, new: str, said: str, workspace: Workspace, helm: Helm, job: Make
) -> None:
    file = container_of(workspace, "ai-vnet")
    edit(file, "  # Your own", '  - name: X\n    value: "x"\n  # Your own')
    edit(file, old, new)
    with pytest.raises(ChartError, match=said) as caught:
        plan_job(workspace.chart, job("ai-only"), helm=helm)
    assert "\n" not in str(caught.value)


def test_all_faults_are_told_at_once(workspace: Workspace, helm: Helm, job: Make) -> None:
    edit(workspace.chart / "templates/deployment.yaml", "backoffLimit: 0", "backoffLimit: 3")
    edit(
        workspace.chart / "templates/deployment.yaml",
        "restartPolicy: Never",
        "restartPolicy: Never\n      initContainers: []",
    )
    edit(container_of(workspace, "ai-vnet"), "name: ai-vnet\n", "name: ai-vnet\nlifecycle: {}\n")
    with pytest.raises(ChartError) as caught:
        plan_job(workspace.chart, job("ai-only"), helm=helm)
    for fault in ("backoffLimit must be 0", "initContainers is not supported", "lifecycle is not supported"):
        assert fault in str(caught.value)


def plan_of(chart: Path, change: Callable[[dict[str, Any]], None], job: Make, helm: Helm) -> Plan:
    """Plan what the chart renders to after a change of its objects, by kind."""
    objects = {m.kind: m for m in read_manifests(helm.render(chart, "x", job("recon-ai").values()), chart)}
    change({kind: manifest.body for kind, manifest in objects.items()})
    return read_plan(list(objects.values()), chart)


def test_volumes_that_lead_nowhere_are_refused(chart: Path, helm: Helm, job: Make) -> None:
    def rename_claim(objects: dict[str, Any]) -> None:
        objects["PersistentVolumeClaim"]["metadata"]["name"] = "other"

    def other_class(objects: dict[str, Any]) -> None:
        objects["PersistentVolume"]["spec"]["storageClassName"] = "other"

    def secret(objects: dict[str, Any]) -> None:
        objects["Job"]["spec"]["template"]["spec"]["volumes"][1] = {"name": "models", "secret": {"secretName": "s"}}

    def shared_scratch(objects: dict[str, Any]) -> None:
        pod = objects["Job"]["spec"]["template"]["spec"]
        pod["volumes"].append({"name": "scratch", "emptyDir": {}})
        for container in pod["containers"]:
            container["volumeMounts"].append({"name": "scratch", "mountPath": "/scratch"})

    def empty_claim(objects: dict[str, Any]) -> None:
        del objects["PersistentVolumeClaim"]["spec"]

    for change, said in (
        (empty_claim, "0 PersistentVolumes fit the claim"),
        (rename_claim, "the chart makes no PersistentVolumeClaim"),
        (other_class, "0 PersistentVolumes fit the claim"),
        (secret, "volume 'models': secret is not supported"),
        (shared_scratch, "emptyDir shared by recon, ai-vnet"),
    ):
        with pytest.raises(ChartError, match=said):
            plan_of(chart, change, job, helm)


@pytest.mark.parametrize("path", [("spec",), ("spec", "template"), ("spec", "template", "spec")])
@pytest.mark.parametrize("missing", [False, True])
def test_a_job_without_a_pod_is_refused(
    path: tuple[str, ...], missing: bool, chart: Path, helm: Helm, job: Make
) -> None:
    def empty(objects: dict[str, Any]) -> None:
        *parents, last = path
        body = objects["Job"]
        for key in parents:
            body = body[key]
        body[last] = "text"
        if missing:
            del body[last]

    with pytest.raises(ChartError, match=r"deployment\.yaml: .*spec\.template\.spec: there is none") as caught:
        plan_of(chart, empty, job, helm)
    assert "\n" not in str(caught.value)


def test_a_read_only_claim_makes_every_mount_read_only(chart: Path, helm: Helm, job: Make) -> None:
    def read_only(objects: dict[str, Any]) -> None:
        objects["Job"]["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["readOnly"] = True

    plan = plan_of(chart, read_only, job, helm)
    assert all(mount.read_only for stage in plan.stages for mount in stage.mounts)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"workflows": {"ai-only": {"ioFolders": ["a"]}}}, "ioFolders: minItems"),
        (
            {"workflows": {"ai-only": {"ioFolders": ["a", "b", "c"]}}},
            "workflows.ai-only.ioFolders: has 3 entries, its stages need 2",
        ),
        (
            {"workflows": {"recon-ai": {"waitLocks": [""]}}, "workflow": {"id": "recon-ai"}},
            "workflows.recon-ai.waitLocks: has 1 entries",
        ),
        (
            {"workflows": {"recon-ai": {"waitLocks": ["", "x.lock"]}}, "workflow": {"id": "recon-ai"}},
            "'ai-vnet' would wait for ever for 'x.lock'",
        ),
        (
            {"workflows": {"recon-ai": {"waitLocks": ["ai-vnet.lock", ""]}}, "workflow": {"id": "recon-ai"}},
            "'recon' would wait for ever",
        ),
        ({"workflows": {"ai-only": {"stages": ["gone"]}}}, "workflows.ai-only.stages: no stage 'gone' below `stages`"),
        (
            {"stages": {"ai-vnet": {"lockName": "recon.lock"}}, "workflow": {"id": "recon-ai"}},
            "the lock name 'recon.lock' of an earlier stage",
        ),
        (
            {"stages": {"recon": {"lockName": "input.lock"}}, "workflow": {"id": "recon-ai"}},
            "'recon' has the lock name 'input.lock', which says that the payload is complete",
        ),
        (
            {"stages": {"ai-vnet": {"inputLock": "/app/locks/recon.lock"}}, "workflow": {"id": "recon-ai"}},
            "'recon' has the lock name 'recon.lock', which says that the payload is complete",
        ),
        (
            {"workflows": {"recon-ai": {"waitLocks": ["input.lock", ""]}}, "workflow": {"id": "recon-ai"}},
            "'recon' would wait for ever for 'input.lock'",
        ),
        (
            {"workflows": {"ai-only": {"aliases": ["ct"]}}, "workflow": {"id": "ct"}},
            "'ct' means more than one workflow: ai-only, ct-ai",
        ),
        ({"workflow": {"id": "liver"}}, "no workflow 'liver'. Known: ai-only, ct-ai"),
    ],
)
def test_workflows_that_do_not_hold_together_are_refused(
    values: dict[str, Any], said: str, chart: Path, helm: Helm, job: Make
) -> None:
    request = job("ai-only", extra=values)
    with pytest.raises(ChartError) as caught:
        helm.render(chart, "x", request.values())
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"job": {"id": 123}}, "job.id: got number, want string"),
        ({"job": {"id": "../../x"}}, "job.id"),
        ({"job": {"id": "007"}}, "job.id"),
        ({"job": {"id": "A78B1E7A-0325-4D42-B90F-207EB576B14F"}}, "job.id"),
        ({"job": {"name": "a\nb"}}, "job.name"),
        ({"workflow": {"payloads": {"hostPath": "relative"}}}, "workflow.payloads.hostPath"),
        ({"workflow": {"payloads": {"hostPath": "/a/../../etc"}}}, "workflow.payloads.hostPath"),
        ({"workflow": {"payloads": {"storage": "much"}}}, "workflow.payloads.storage"),
        ({"dicomAdapter": {"input": "/etc"}}, "dicomAdapter.input"),
        ({"dicomAdapter": {"output": "../x"}}, "dicomAdapter.output"),
        ({"runSimple": True}, "runSimple"),
        ({"trtisUri": "http://x"}, "trtisUri"),
        ({"trtisUri": "https://x:8000"}, "trtisUri"),
        ({"trtisUri": "x:8000/v2"}, "trtisUri"),
        ({"jobb": {}}, "additional properties 'jobb' not allowed"),
        ({"stages": {"recon": {"timeout": 5}}}, "stages.recon.timeout: got number, want string"),
        ({"stages": {"recon": {"imagge": {}}}}, "'imagge' not allowed"),
        ({"stages": {"Recon": {}}}, "stages"),
        ({"workflows": {"recon-ai": {"stages": ["recon", "recon"]}}}, "workflows.recon-ai.stages"),
        ({"workflows": {"recon-ai": {"id": "5"}}}, "workflows.recon-ai.id"),
    ],
)
def test_the_schema_refuses_wrong_values(values: dict[str, Any], said: str, chart: Path, helm: Helm, job: Make) -> None:
    with pytest.raises(ChartError, match="values refused") as caught:
        helm.render(chart, "x", job("ai-only", extra=values).values())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500m", 0.5),
        ("2", 2),
        (2, 2),
        (0.5, 0.5),
        ("2Gi", 2 * 2**30),
        ("1.5Mi", 1.5 * 2**20),
        ("1k", 1000),
        ("3e2", 300),
        ("100n", 1e-7),
    ],
)
def test_quantities(text: object, number: float) -> None:
    assert float(parse_quantity(text)) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "2GB", "Gi", "-1", "1 Gi", True, None, []])
def test_what_is_no_quantity(text: object) -> None:
    with pytest.raises(ValueError, match=r"is no quantity|is below zero"):
        parse_quantity(text)


@pytest.mark.parametrize(
    "address", ["localhost:8000", "http://localhost:8000", "grpc://[::1]:8001", "trtis.default:80"]
)
def test_an_inference_server_is_named_with_its_protocol_or_without(
    address: str, chart: Path, helm: Helm, job: Make
) -> None:
    plan = plan_job(chart, job("ai-only", trtis_uri=address), helm=helm)
    assert plan.stages[0].environment["NVIDIA_CLARA_TRTISURI"] == address


def test_nested_keeps_strings() -> None:
    assert nested({"job.id": "1", "job.name": "x", "a": "true"}) == {"job": {"id": "1", "name": "x"}, "a": "true"}


def test_plan_and_manifest_agree_on_the_payload(chart: Path, helm: Helm, job: Make) -> None:
    """The folder that a process uses is the one that the cluster would mount."""
    rendered = helm.render(chart, "x", job("ai-only", payloads=Path("/data/payloads/")).values())
    volume = yaml.safe_load(rendered["clara-workflow/templates/volume.yaml"])
    plan = read_plan(read_manifests(rendered, chart), chart)
    assert volume["spec"]["hostPath"]["path"] == str(plan.payload) == f"/data/payloads/{JOB_ID}"
    assert volume["metadata"]["name"] == f"pv-clara-payload-volume-{JOB_ID}"
    assert volume["spec"]["storageClassName"] == f"pv-clara-payload-{JOB_ID}"
    claim = yaml.safe_load(rendered["clara-workflow/templates/volume-claim.yaml"])
    assert claim["metadata"]["name"] == f"pv-clara-payload-volume-claim-{JOB_ID}"
