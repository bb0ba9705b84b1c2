"""The manifests for Kubernetes: every key is one that KubeRay and Kubernetes know, and what they promise is in them."""

import json
import os
from pathlib import Path

import pytest
import yaml

from pipeline.config import load_job
from pipeline.prompts import check_captions
from tests.infra.kubernetes import KUBERAY, crds, faults, render

OVERLAYS = sorted(path.name for path in (KUBERAY / "overlays").iterdir())


def cluster_of(manifests):
    for item in manifests:
        if item["kind"] == "RayJob":
            return item["spec"]["rayClusterSpec"]
    return next(item["spec"] for item in manifests if item["kind"] == "RayCluster")


def pods_of(spec):
    return [
        spec["headGroupSpec"]["template"]["spec"],
        *(group["template"]["spec"] for group in spec["workerGroupSpecs"]),
    ]


def composed(folder: Path, *components: str):
    """An overlay of the base and some components, as a user would write it."""
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(KUBERAY / "base", folder)],
        "components": [os.path.relpath(KUBERAY / "components" / name, folder) for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


@pytest.fixture(scope="module")
def base():
    return yaml.safe_load((KUBERAY / "base" / "cluster.yaml").read_text())


@pytest.mark.parametrize("file", [*sorted(KUBERAY.glob("base/[!k]*.yaml")), KUBERAY / "components/job/job.yaml"])
def test_every_key_of_the_base_is_known(file):
    assert faults(yaml.safe_load(file.read_text()), crds()) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_key_of_an_overlay_is_known(overlay):
    manifests = render(KUBERAY / "overlays" / overlay)
    kinds = {item["kind"] for item in manifests}
    assert ("RayJob" in kinds, "RayCluster" in kinds) == ((True, False) if "job" in overlay else (False, True))
    for item in manifests:
        assert faults(item, crds()) == [], item["kind"]
        assert item["metadata"]["namespace"] == "joyfleet"


def test_all_components_go_together(tmp_path):
    manifests = composed(tmp_path, "spot", "redis", "job")
    assert [fault for item in manifests for fault in faults(item, crds())] == []
    spec = cluster_of(manifests)
    password = spec["gcsFaultToleranceOptions"]["redisPassword"]
    assert password["valueFrom"]["secretKeyRef"]["name"] == "joyfleet"
    assert spec["workerGroupSpecs"][1]["template"]["spec"]["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}


def test_only_replicas_go_to_spot_nodes():
    spot, fixed = (cluster_of(render(KUBERAY / "overlays" / name)) for name in ("spot", "on-demand"))
    assert [("nodeSelector" in pod) for pod in pods_of(spot)] == [False, False, True]
    assert {item["value"] for item in pods_of(spot)[2]["tolerations"] if "value" in item} == {"spot"}
    assert not any("nodeSelector" in pod for pod in pods_of(fixed))


@pytest.mark.parametrize(
    "mistake",
    [
        lambda spec: spec["workerGroupSpecs"][0].update(minReplica=1),
        lambda spec: spec["headGroupSpec"]["template"]["spec"].update(terminationGraceSeconds=1),
        lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0]["securityContext"].update(
            runAsRoot=False
        ),
        lambda spec: spec["workerGroupSpecs"][1].update(maxReplicas="eight"),
        lambda spec: spec["headGroupSpec"].pop("template"),
    ],
)
def test_a_mistake_is_found(base, mistake):
    broken = json.loads(json.dumps(base))  # the YAML's anchors become copies
    mistake(broken["spec"])
    assert len(faults(broken, crds())) == 1


def test_the_head_runs_no_tasks_and_replicas_start_from_none(base):
    spec = base["spec"]
    readers, replicas = spec["workerGroupSpecs"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert (readers["groupName"], replicas["groupName"]) == ("readers", "replicas")
    assert replicas["minReplicas"] == 0
    assert replicas["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    # The second autoscaler is refused by the operator otherwise.
    assert {pod["restartPolicy"] for pod in pods_of(spec)} == {"Never"}


def test_no_pod_runs_as_root_or_writes_into_its_image(base):
    for pod in pods_of(base["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
            written = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {"/work", "/tmp", "/dev/shm", "/models"} <= written
            assert {mount["name"] for mount in container["volumeMounts"]} <= {item["name"] for item in pod["volumes"]}


def test_no_secret_is_written_down(base):
    for pod in pods_of(base["spec"]):
        for variable in pod["containers"][0]["env"]:
            assert "valueFrom" in variable or not any(
                word in variable["name"] for word in ("TOKEN", "KEY", "SECRET", "PASSWORD")
            )


def test_the_head_has_time_for_the_drain_of_the_job(base):
    job = load_job(str(KUBERAY / "components" / "job" / "captions.yaml"))
    check_captions(job)
    ray_job = yaml.safe_load((KUBERAY / "components" / "job" / "job.yaml").read_text())["spec"]
    wait = int(yaml.safe_load(ray_job["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"])
    grace = base["spec"]["headGroupSpec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert job.cluster.drain_timeout_s + 30 <= wait <= grace
    readers, replicas = base["spec"]["workerGroupSpecs"]
    assert job.engine.num_gpus == 1
    assert job.engine.replicas.max == replicas["maxReplicas"]
    assert job.cluster.max_concurrent_reads == readers["maxReplicas"] * int(readers["rayStartParams"]["num-cpus"])
