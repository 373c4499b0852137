"""The schema of a FlinkDeployment, read from the jar of the Flink Kubernetes operator."""

import hashlib
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import yaml
from support.required import missing

from transforms.losses.networks.weights_file import cache_directory

VERSION = "1.10.0"

_SHA256 = "b1f44814e17514fa8395c61b329a3ee9087123a5bda5b21fe1a495d5182c30b6"
_ARTIFACT = f"org.apache.flink:flink-kubernetes-operator-api:{VERSION}"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
_DEFINITION = "META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"


def flink_deployment_schema() -> dict[str, Any]:
    """JSON schema that allows only the operator's fields; skips the test if the jar cannot be fetched."""
    with zipfile.ZipFile(_jar()) as jar:
        definition = yaml.load(jar.read(_DEFINITION), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = definition["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    # Every Kubernetes object has these fields, so resource definitions leave them out.
    schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {}}
    _forbid_others(schema)
    return schema


def _forbid_others(schema: Any) -> None:
    """Make unknown properties an error; Kubernetes would drop them silently."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            _forbid_others(part)


def _jar() -> Path:
    """The jar in the cache, fetched by Maven where it is not there yet."""
    path = cache_directory() / "flink" / f"operator-api-{VERSION}.jar"
    if not path.is_file():
        maven = shutil.which("mvn")
        if not maven:
            missing("operator", "the operator's schema is not in the cache, and there is no Maven to fetch it")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            command = [
                maven,
                "--batch-mode",
                "--quiet",
                _COPY,
                f"-Dartifact={_ARTIFACT}",
                f"-DoutputDirectory={scratch}",
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=scratch)
            if done.returncode:
                missing("operator", f"Maven could not fetch {_ARTIFACT}: {done.stdout.strip()[:200]}")
            (fetched,) = Path(scratch).glob("*.jar")
            fetched.rename(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == _SHA256, f"{path} is another file than the pinned one"
    return path
