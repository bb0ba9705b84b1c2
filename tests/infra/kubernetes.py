"""Manifests against what Kubernetes would check of them: KubeRay's own schemas and those of the core kinds.

Unknown keys are errors here; a cluster would drop them in silence. What is not covered: the rules that KubeRay's
operator checks in code, and whether a cluster could run what is described.
"""

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

PROJECT = Path(__file__).parents[2]
KUBERAY = PROJECT / "infra" / "kuberay"


def crds() -> Path:
    """The folder of KubeRay's CRDs, which KUBERAY_CRDS names; skips without."""
    named = os.environ.get("KUBERAY_CRDS")
    folder = PROJECT / named if named else PROJECT.parent / "shared" / "kuberay-crds"
    if any(folder.glob("ray.io_*.yaml")):
        return folder
    assert not named, f"KUBERAY_CRDS={named}: no ray.io_*.yaml there"
    pytest.skip(
        "no CRDs of KubeRay: let KUBERAY_CRDS name a folder with ray.io_rayclusters*.yaml and ray.io_rayjobs*.yaml"
    )


def render(folder: Path) -> list[dict[str, Any]]:
    """What kustomize makes of a folder; skips where neither `kustomize` nor `kubectl` is installed."""
    for words in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(words[0]):
            done = subprocess.run([*words, str(folder)], text=True, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr
            return list(yaml.safe_load_all(done.stdout))
    pytest.skip("neither kustomize nor kubectl is installed to render overlays")


def strict(schema: Any) -> Any:
    """A structural schema as JSON Schema, with unknown keys refused."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    made = {
        key: {name: strict(item) for name, item in value.items()} if key == "properties" else strict(value)
        for key, value in schema.items()
        if not key.startswith("x-")
    }
    if "properties" in made and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def faults(manifest: dict[str, Any], folder: Path) -> list[str]:
    """What is wrong with a manifest, each with its place."""
    group = manifest["apiVersion"].split("/")[0]
    if group != "ray.io":
        try:
            kubernetes_validate.validate(manifest, "1.34", strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as err:
            return [str(err)]
        return []
    result = _validator(folder, manifest["apiVersion"], manifest["kind"]).iter_errors(manifest)
    return [f"{'/'.join(map(str, item.absolute_path))}: {item.message[:200]}" for item in result]


@functools.cache
def _validator(folder: Path, api_version: str, kind: str) -> jsonschema.Draft202012Validator:
    [text] = [file.read_text() for file in folder.glob(f"ray.io_{kind.lower()}s*.yaml")]
    # 25,000 lines: the loader in C takes a tenth of the time.
    definition = yaml.load(text, yaml.CSafeLoader)
    version = next(item for item in definition["spec"]["versions"] if f"ray.io/{item['name']}" == api_version)
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)
