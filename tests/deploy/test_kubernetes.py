"""The files for Kubernetes, checked against the schemas of Kubernetes and the operator, and by the program."""

import copy
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from support.flink_operator import flink_deployment_schema
from support.required import missing
from yamllint import linter
from yamllint.config import YamlLintConfig

from deploy.flink.downloads import flink_jars, missing_tools
from pipeline.audit import gate
from pipeline.audit.judging.rules import read_rules
from pipeline.engines.engine import beam_options
from pipeline.parse import parse
from pipeline.run import NOTHING_SCORED, USAGE

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "flink" / "kubernetes"
# The first version with sidecars, which are init containers that keep running, and the newest known version.
VERSIONS = ("1.29.0", kubernetes_validate.latest_version())
VARIANTS = ("base", "gpu")
YAML_FILES = sorted(path for path in DEPLOY.rglob("*.y*ml") if path.suffix in (".yaml", ".yml"))
LINT = "{extends: default, rules: {line-length: {max: 120}, document-start: disable, braces: {max-spaces-inside: 0}}}"


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def merged(base: Any, over: Any) -> Any:
    """Merge two pod templates as the operator does: items of lists by their names."""
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {key: merged(base.get(key), value) for key, value in over.items()}
    if isinstance(base, list) and isinstance(over, list):
        named = {item["name"]: item for item in base}
        return list((named | {item["name"]: merged(named.get(item["name"]), item) for item in over}).values())
    return over


def pod(deployment: dict[str, Any], role: str) -> dict[str, Any]:
    """The pod of a role in the cluster, as far as the deployment describes it."""
    spec = deployment["spec"]
    template = merged(spec["podTemplate"], spec[role]["podTemplate"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": role.lower()}, **template}


@pytest.fixture(scope="module", params=VARIANTS)
def built(request) -> dict[str, dict[str, Any]]:
    """The objects of a variant by kind and name."""
    kubectl = shutil.which("kubectl")
    if not kubectl:
        missing("kubectl", "there is no kubectl to build the kustomizations with")
    command = [kubectl, "kustomize", str(KUBERNETES / request.param)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        f"{it['kind']}/{re.sub('-[a-z0-9]{10}$', '', it['metadata']['name'])}": it for it in yaml.safe_load_all(text)
    }


@pytest.fixture
def deployment(built) -> dict[str, Any]:
    return copy.deepcopy(built["FlinkDeployment/pairloss-flink"])


@pytest.fixture
def job(built) -> dict[str, Any]:
    return copy.deepcopy(built["CronJob/pairloss-nightly"]["spec"]["jobTemplate"]["spec"])


@pytest.fixture
def launcher(job) -> dict[str, Any]:
    (container,) = job["template"]["spec"]["containers"]
    return container


@pytest.fixture
def arguments(built, launcher) -> list[str]:
    """The launcher's arguments, with variables replaced as Kubernetes replaces them."""
    variables = {**built["ConfigMap/pairloss-settings"]["data"], "RUN": "pairloss-nightly-29497095"}
    return [re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], argument) for argument in launcher["args"]]


@pytest.fixture
def worker(deployment) -> dict[str, Any]:
    (container,) = pod(deployment, "taskManager")["spec"]["initContainers"]
    return container


@pytest.fixture(scope="module")
def operator() -> jsonschema.Validator:
    """A validator of FlinkDeployments that knows the fields of the operator."""
    return jsonschema.Draft202012Validator(flink_deployment_schema())


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_yamllint(path):
    assert [str(problem) for problem in linter.run(path.read_text(encoding="utf-8"), YamlLintConfig(LINT))] == []


class TestSchemas:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_kubernetes_knows_every_field(self, built, version):
        kinds = [name for name, it in built.items() if not it["apiVersion"].startswith("flink.")]
        assert len(kinds) == 7
        for name in kinds:
            kubernetes_validate.validate(built[name], version, strict=True)

    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize("role", ["jobManager", "taskManager"])
    def test_the_pods_of_the_cluster(self, deployment, role, version):
        kubernetes_validate.validate(pod(deployment, role), version, strict=True)

    def test_the_operator_knows_every_field(self, operator, deployment):
        assert [f"{error.json_path}: {error.message}" for error in operator.iter_errors(deployment)] == []

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("taskManager", "resources"), {}),
            (("flinkVersion",), "1.20"),
            (("flinkConfiguration", "taskmanager.numberOfTaskSlots"), 1),
            (("taskManager", "podTemplate", "spec", "initContainers"), [{"name": "x", "imagePolicy": "Always"}]),
        ],
    )
    def test_the_operators_schema_finds_mistakes(self, operator, deployment, path, value):
        place = deployment["spec"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        assert not operator.is_valid(deployment)


class TestCluster:
    def test_flink_knows_every_setting(self, deployment):
        if problem := missing_tools():
            missing("flink", problem)
        # Flink silently ignores settings that it does not know.
        with zipfile.ZipFile(next(flink_jars().glob("flink-dist-*.jar"))) as jar:
            known = b"".join(jar.read(name) for name in jar.namelist() if name.endswith("Options.class"))
        settings = deployment["spec"]["flinkConfiguration"]
        ours = [name for name in settings if not name.startswith("kubernetes.operator.")]
        assert [name for name in ours if name.encode() not in known] == []

    def test_flink_and_the_job_server_are_of_one_version(self, deployment, arguments):
        flink = deployment["spec"]["flinkVersion"].removeprefix("v").replace("_", ".")
        assert deployment["spec"]["image"].startswith(f"flink:{flink}.")
        options = beam_options(parse(arguments[3:]).beam_flags).get_all_options()
        assert Path(options["flink_job_server_jar"]).name.startswith(f"beam-runners-flink-{flink}-job-server-2.77.")

    def test_one_slot_for_each_worker_and_no_more_than_the_job_asks_for(self, deployment, arguments):
        settings = deployment["spec"]["flinkConfiguration"]
        options = beam_options(parse(arguments[3:]).beam_flags).get_all_options()
        assert settings["taskmanager.numberOfTaskSlots"] == "1"
        assert settings["slotmanager.number-of-slots.max"] == str(options["parallelism"])

    def test_the_worker_pool_is_where_the_job_looks_for_it(self, worker, arguments):
        options = beam_options(parse(arguments[3:]).beam_flags).get_all_options()
        (port,) = worker["ports"]
        assert (options["environment_type"], options["environment_config"]) == (
            "EXTERNAL",
            f"localhost:{port['containerPort']}",
        )
        command = ["python", "-m", "pipeline.worker_pool", f"--service_port={port['containerPort']}"]
        assert worker["args"][:4] == command
        assert worker["startupProbe"]["tcpSocket"]["port"] == port["name"]

    def test_the_job_finds_the_cluster(self, deployment, arguments):
        options = beam_options(parse(arguments[3:]).beam_flags).get_all_options()
        # The operator gives the cluster's service this name.
        assert options["flink_master"] == f"{deployment['metadata']['name']}-rest:8081"

    def test_launcher_and_workers_are_of_one_image(self, built, worker, launcher):
        tag = "gpu" if "nvidia.com/gpu" in worker["resources"]["limits"] else "cpu"
        assert worker["image"] == launcher["image"] == f"registry.example.com/pairloss:{tag}"

    def test_devices_are_for_the_workers_alone(self, request, built, deployment, job):
        asked = re.findall("nvidia.com/gpu", str([deployment, job]))
        spec = pod(deployment, "taskManager")["spec"]
        if "nodeSelector" in spec:
            assert spec["initContainers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
            assert [toleration["key"] for toleration in spec["tolerations"]] == ["nvidia.com/gpu"]
            assert len(asked) == 2
        else:
            assert asked == []

    @pytest.mark.parametrize("role", ["jobManager", "taskManager", "launcher"])
    def test_containers_can_do_little(self, deployment, job, role):
        spec = job["template"]["spec"] if role == "launcher" else pod(deployment, role)["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["runAsUser"] > 0
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]

    def test_volumes_are_there(self, deployment, job):
        for spec in (
            pod(deployment, "jobManager")["spec"],
            pod(deployment, "taskManager")["spec"],
            job["template"]["spec"],
        ):
            volumes = {volume["name"] for volume in spec["volumes"]}
            for container in [*spec["containers"], *spec.get("initContainers", [])]:
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes

    def test_who_decodes_images_has_no_rights_in_kubernetes(self, built, deployment, job):
        workers = deployment["spec"]["flinkConfiguration"]["kubernetes.taskmanager.service-account"]
        assert workers == job["template"]["spec"]["serviceAccountName"] == "pairloss"
        (subject,) = built["RoleBinding/pairloss-flink"]["subjects"]
        assert subject["name"] == deployment["spec"]["serviceAccount"] != workers
        assert not pod(deployment, "taskManager")["spec"]["automountServiceAccountToken"]
        assert not job["template"]["spec"]["automountServiceAccountToken"]


class TestNightlyJob:
    def test_the_program_accepts_its_arguments(self, arguments):
        assert arguments[:3] == ["python", "-m", "pipeline.run"]
        config = parse(arguments[3:])
        assert config.output == "gs://my-bucket/runs/pairloss-nightly-29497095"
        assert config.input == ("gs://my-bucket/pairs/*.parquet",)
        assert (config.gate, config.baseline) == ("/etc/pairloss/rules.yaml", "")
        options = beam_options(config.beam_flags).get_all_options()
        assert (options["runner"], options["flink_submit_uber_jar"]) == ("FlinkRunner", True)

    def test_a_retry_resumes_and_another_night_does_not(self, launcher):
        (run,) = [variable for variable in launcher["env"] if variable["name"] == "RUN"]
        # All pods of a job have it in common, and a job is named after the minute it is due.
        assert run["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['batch.kubernetes.io/job-name']"
        assert "--output=$(RUNS)/$(RUN)" in launcher["args"]
        assert "--overwrite" not in " ".join(launcher["args"])

    def test_what_is_not_tried_again(self, job, launcher):
        rules = {rule["action"]: rule for rule in job["podFailurePolicy"]["rules"]}
        codes = rules["FailJob"]["onExitCodes"]
        assert codes["containerName"] == launcher["name"]
        assert codes["values"] == sorted({USAGE, NOTHING_SCORED, gate.FAILED})
        assert rules["Ignore"]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        # Kubernetes accepts a pod failure policy only with this restart policy.
        assert job["template"]["spec"]["restartPolicy"] == "Never"
        assert job["backoffLimit"] > 0

    def test_the_gate_has_its_rules(self, built, job, launcher):
        rules = built["ConfigMap/pairloss-rules"]
        (volume,) = [volume for volume in job["template"]["spec"]["volumes"] if "configMap" in volume]
        (mount,) = [mount for mount in launcher["volumeMounts"] if mount["name"] == volume["name"]]
        assert volume["configMap"]["name"] == rules["metadata"]["name"]
        (name,) = rules["data"]
        assert f"--gate={mount['mountPath']}/{name}" in launcher["args"]
        assert read_rules(str(KUBERNETES / "base" / "rules.yaml"))
        assert launcher["envFrom"] == [
            {"configMapRef": {"name": built["ConfigMap/pairloss-settings"]["metadata"]["name"]}}
        ]

    def test_no_secret_is_written_down(self, built):
        assert not [name for name in built if name.startswith("Secret/")]
        assert not re.search("password|token:|credentials.json|private_key", str(list(built.values())).lower())
