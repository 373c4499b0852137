"""The files of deploy/dataflow, read by Google's libraries and compared with the program."""

import json
import re
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from google.cloud.dataflow_v1beta3 import LaunchFlexTemplateRequest, TemplateMetadata
from google.cloud.devtools.cloudbuild_v1 import Build
from google.cloud.scheduler_v1 import HttpMethod, Job

from deploy.dataflow.metadata import NOT_PARAMETERS, describe
from pipeline.engines.engine import beam_options, check_engine
from pipeline.errors import UsageError
from pipeline.parse import parse, parser

REPOSITORY = Path(__file__).parents[2]
DATAFLOW = REPOSITORY / "deploy" / "dataflow"
ACCELERATOR = "type:nvidia-l4;count:1;machine_type:g2-standard-8;install-nvidia-driver"
IMAGE = "europe-docker.pkg.dev/project/pairloss/pairloss:1"


class TestMetadata:
    METADATA = (DATAFLOW / "metadata.json").read_text()

    def test_google_reads_it(self):
        metadata = TemplateMetadata.from_json(self.METADATA, ignore_unknown_fields=False)
        required = [parameter.name for parameter in metadata.parameters if not parameter.is_optional]
        assert required == ["output"]

    def test_every_flag_is_a_parameter_and_the_reverse(self):
        flags = {option for action in parser()._actions for option in action.option_strings if option.startswith("--")}
        parameters = [parameter["name"] for parameter in json.loads(self.METADATA)["parameters"]]
        assert len(parameters) == len(set(parameters))
        assert {f"--{name}" for name in (*parameters, *NOT_PARAMETERS)} == flags
        assert not set(parameters) & NOT_PARAMETERS.keys()

    def test_it_says_what_the_program_says(self):
        assert json.loads(self.METADATA) == describe(), "python -m deploy.dataflow.metadata makes it anew"

    @pytest.mark.parametrize("parameter", describe()["parameters"], ids=lambda parameter: parameter["name"])
    def test_the_default_is_accepted(self, parameter):
        if default := parameter.get("defaultValue"):
            given = [f"--{parameter['name']}={default}"]
            assert parse(["--input=in", "--output=out", *given]) == parse(["--input=in", "--output=out"])
            assert all(re.search(pattern, default) for pattern in parameter.get("regexes", ()))

    @pytest.mark.parametrize(
        ("name", "value", "good"),
        [
            ("input", "gs://bucket/*.parquet", True),
            ("input", "gs://bucket/a.parquet,gs://bucket/b/*", True),
            ("input", "s3://bucket/*.parquet", True),
            ("input", "gs://bucket/{a,b}/my pairs.parquet, s3://bucket/c.parquet", True),
            ("input", "", False),
            ("weights", "s3://bucket/weights.safetensors", True),
            ("output", "s3://bucket/run", True),
            ("image_root", "https://example.com/sets", True),
            ("accelerator", ACCELERATOR, True),
            ("accelerator", "type:nvidia-tesla-t4;count:1;install-nvidia-driver", True),
            ("accelerator", "type:nvidia-l4;count:1;install-nvidia-driver:5xx", True),
            ("accelerator", "nvidia-tesla-t4", False),
            ("accelerator", "type:nvidia-tesla-t4;count:0", False),
            ("min_ram", "16GB", True),
            ("min_ram", "1.5TiB", True),
            ("min_ram", "16", False),
            ("chunk_pairs", "1024", True),
            ("chunk_pairs", "-1", False),
            ("chunk_pairs", "many", False),
        ],
    )
    def test_the_patterns_and_the_program_agree(self, name, value, good):
        assert self.admits(name, value) is good
        flags = {"input": "in", "output": "out", name: value}
        try:
            parse([f"--{flag}={text}" for flag, text in flags.items()])
        except UsageError:
            assert not good
        else:
            assert good

    @pytest.mark.parametrize(
        ("paths", "good"),
        [
            ({"generated": "s3://b/out", "target": "gs://b/gt", "mask": "s3://b/masks"}, True),
            ({"generated": "a=s3://b/out"}, True),
            ({"generated": "out"}, False),
            ({"generated": "a=out"}, False),
            ({"target": "gt"}, False),
            ({"mask": "masks"}, False),
            ({"output": "run"}, False),
            ({"image_root": "sets"}, False),
            ({"reuse": "runs/yesterday"}, False),
            ({"weights": "weights.safetensors"}, False),
        ],
    )
    def test_paths_are_those_that_dataflow_admits(self, paths, good):
        """The launcher refuses the same paths as the form."""
        assert all(self.admits(name, path) for name, path in paths.items()) is good
        records = paths.keys() & {"image_root", "reuse"}
        pairs = {"input": "s3://b/a.csv"} if records else {"generated": "gs://b/out", "target": "gs://b/gt"}
        flags = {"runner": "DataflowRunner", "project": "p", "region": "r", "temp_location": "gs://b/tmp"}
        flags |= {"sdk_container_image": IMAGE, "output": "gs://b/run", **pairs, **paths}
        config = parse([f"--{name}={value}" for name, value in flags.items()])
        refused = pytest.raises(UsageError, match="do not see local files; give gs:// or s3:// paths")
        with nullcontext() if good else refused:
            check_engine(beam_options(config.beam_flags), config)

    def admits(self, name: str, value: str) -> bool:
        (parameter,) = (entry for entry in json.loads(self.METADATA)["parameters"] if entry["name"] == name)
        return all(re.search(pattern, value) for pattern in parameter["regexes"])


class TestRunbook:
    TEXT = (DATAFLOW / "README.md").read_text()
    OPTIONS = re.findall(r"^\|[^|]*\| `(--[^`]+)`", TEXT, re.MULTILINE)

    @pytest.mark.parametrize("options", ["--dry_run=True", *OPTIONS])
    def test_its_flags_are_accepted(self, options):
        (command,) = re.findall(r"^    pairloss run (.*?[^\\])$", self.TEXT, re.MULTILINE | re.DOTALL)
        flags = shlex.split(command.replace("\\\n", " ").replace("$IMAGE", IMAGE))
        config = parse([*flags, *shlex.split(options)])
        check_engine(beam_options(config.beam_flags), config)

    @pytest.mark.parametrize("gpu", ["tesla-t4", "l4", "tesla-a100"])
    def test_it_knows_the_usual_gpus(self, gpu):
        (flag,) = (option for option in self.OPTIONS if f"type:nvidia-{gpu};" in option)
        assert "machine_type:" in flag
        assert "install-nvidia-driver" in flag


class TestRequests:
    LAUNCH = (DATAFLOW / "launch.json").read_text()

    def test_google_reads_the_launch(self):
        request = LaunchFlexTemplateRequest.from_json(self.LAUNCH, ignore_unknown_fields=False)
        assert request.launch_parameter.environment.sdk_container_image
        assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", request.launch_parameter.job_name)

    def test_the_template_and_the_program_accept_its_parameters(self):
        given = json.loads(self.LAUNCH)["launchParameter"]["parameters"]
        known = {parameter["name"]: parameter for parameter in describe()["parameters"]}
        assert given.keys() <= known.keys()
        for name, value in given.items():
            assert all(re.search(pattern, value) for pattern in known[name].get("regexes", ())), name
        config = parse([f"--{name}={value}" for name, value in given.items()])
        assert config.overwrite, "a schedule cannot name a new directory each night"
        assert "install-nvidia-driver" in config.resource_hints["accelerator"]

    def test_google_reads_the_schedule(self):
        flags = yaml.safe_load((DATAFLOW / "scheduler.yaml").read_text())
        job = Job.from_json(
            json.dumps(
                {
                    "description": flags.pop("--description"),
                    "schedule": flags.pop("--schedule"),
                    "timeZone": flags.pop("--time-zone"),
                    "attemptDeadline": flags.pop("--attempt-deadline"),
                    "retryConfig": {"retryCount": flags.pop("--max-retry-attempts")},
                    "httpTarget": {
                        "uri": flags.pop("--uri"),
                        "httpMethod": flags.pop("--http-method"),
                        "oauthToken": {"serviceAccountEmail": flags.pop("--oauth-service-account-email")},
                    },
                }
            ),
            ignore_unknown_fields=False,
        )
        assert REPOSITORY / flags.pop("--message-body-from-file") == DATAFLOW / "launch.json"
        assert flags == {}
        assert job.http_target.http_method == HttpMethod.POST
        assert job.http_target.uri.endswith("/flexTemplates:launch")
        assert len(job.schedule.split()) == 5

    def test_google_reads_the_build(self):
        build = Build.from_json(
            json.dumps(yaml.safe_load((DATAFLOW / "cloudbuild.yaml").read_text())), ignore_unknown_fields=False
        )
        arguments = [argument for step in build.steps for argument in step.args]
        for flag in ("--file", "--metadata-file"):
            (path,) = (argument.partition("=")[2] for argument in arguments if argument.startswith(f"{flag}="))
            assert (REPOSITORY / path).is_file()
        declared = set(re.findall(r"^ARG (\w+)", (REPOSITORY / "deploy" / "Dockerfile").read_text(), re.MULTILINE))
        given = {argument.split("=")[1] for argument in arguments if argument.startswith("--build-arg=")}
        assert given <= declared
        # The caller must give these two; they have no sensible default.
        used = set(re.findall(r"\$\{(\w+)\}", " ".join(arguments)))
        assert used - build.substitutions.keys() == {"_IMAGE", "_TEMPLATE"}

    def test_yaml_is_tidy(self):
        rules = "{extends: default, rules: {line-length: {max: 120}}}"
        command = [sys.executable, "-m", "yamllint", "--strict", "-d", rules, str(DATAFLOW)]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout
