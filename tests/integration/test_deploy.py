"""The CloudFormation template: checked by cfn-lint and created in moto."""

from __future__ import annotations

import io
import json
import subprocess
import sysconfig
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint.decode import decode
from moto import mock_aws

from lambda_refresh.handler import TIMEOUT_SECONDS, WATCHED_PREFIXES, handler
from podium.project import Project
from podium.registry.promotion import PromotionContext, promote, utc_now
from podium.storage.object_store import Store
from tests import tables
from tests.conftest import publish_version

TEMPLATE = Path(__file__).resolve().parents[2] / "deploy" / "podium.yaml"
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:podium-refresh-aBcDeF"
PARAMETERS = {
    "BucketName": "podium-of-a-test",
    "RefreshTargets": "https://podium.example/refresh",
    "CodeBucket": "code",
    "SecretArn": SECRET,
}


def test_the_template_is_valid() -> None:
    lint = Path(sysconfig.get_path("scripts")) / "cfn-lint"
    result = subprocess.run([lint, TEMPLATE], capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.fixture(scope="module")
def stack() -> Iterator[dict[str, str]]:
    """The physical ids of the stack's resources by logical id."""
    with pytest.MonkeyPatch.context() as patch, mock_aws(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not supported by moto")  # bucket policies and event invoke configurations
        for name, value in {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}.items():
            patch.setenv(name, value)
        patch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="code")
        s3.put_object(Bucket="code", Key="podium-refresh.zip", Body=lambda_zip())
        parameters = [{"ParameterKey": name, "ParameterValue": value} for name, value in PARAMETERS.items()]
        client = boto3.client("cloudformation")
        client.create_stack(
            StackName="podium", TemplateBody=TEMPLATE.read_text(), Parameters=parameters, Capabilities=["CAPABILITY_IAM"]
        )
        resources = client.describe_stack_resources(StackName="podium")["StackResources"]
        yield {
            resource["LogicalResourceId"]: resource["PhysicalResourceId"]
            for resource in resources
            if "PhysicalResourceId" in resource
        }


def lambda_zip() -> bytes:
    """Build the zip file as in the README."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in (TEMPLATE.parents[2] / "lambda_refresh").glob("*.py"):
            archive.write(path, f"lambda_refresh/{path.name}")
    return file.getvalue()


def properties(name: str) -> Any:
    """Return the properties of a resource in the template, because moto does not create all of them."""
    template, problems = decode(str(TEMPLATE))
    assert not problems
    return template["Resources"][name]["Properties"]


def test_the_bucket_is_versioned_and_notifies_the_function(stack: dict[str, str]) -> None:
    assert stack["Bucket"] == PARAMETERS["BucketName"]
    bucket = properties("Bucket")
    assert bucket["VersioningConfiguration"]["Status"] == "Enabled"
    configurations = bucket["NotificationConfiguration"]["LambdaConfigurations"]
    prefixes = [configuration["Filter"]["S3Key"]["Rules"][0]["Value"] for configuration in configurations]
    assert sorted(prefixes) == sorted(WATCHED_PREFIXES.split(","))
    assert {configuration["Event"] for configuration in configurations} == {"s3:ObjectCreated:*"}


def test_the_function_has_its_secret_and_enough_time(stack: dict[str, str]) -> None:
    function = boto3.client("lambda").get_function_configuration(FunctionName=stack["Refresh"])
    assert function["Handler"] == f"{handler.__module__}.{handler.__name__}"
    assert function["Environment"]["Variables"]["PODIUM_REFRESH_SECRET_ID"] == SECRET
    assert function["Timeout"] > 2 * 2 * TIMEOUT_SECONDS  # connect and respond, twice if the secret was rotated


ANY, ONCE = "create and overwrite", "create only"
LOG = {"log/tile/": ONCE, "log/checkpoint": ANY, "log/pending": ANY}
ROLES = {
    "TrainerPolicy": {"datasets/": ONCE, "runs/": ONCE, "versions/": ONCE},
    "PromoterPolicy": {"history/": ONCE, "runs/": ONCE, "aliases/": ANY},
    "BatchPolicy": {"predictions/": ONCE, "predictions/*/predictions*.csv": ANY, "drop/": ANY, "monitoring/": ONCE, **LOG},
    "ServicePolicy": {"outbox/": ANY, "drop/": ANY, "predictions/": ONCE, "labels/": ONCE, **LOG},
}
CREATE_ONLY = '{"null": {"s3:if-none-match": false}}'


def statements(stack: dict[str, str], name: str) -> list[dict[str, Any]]:
    iam = boto3.client("iam")
    policy = iam.get_policy_version(PolicyArn=stack[name], VersionId="v1")["PolicyVersion"]["Document"]
    document: list[dict[str, Any]] = (json.loads(policy) if isinstance(policy, str) else policy)["Statement"]
    return document


@pytest.mark.parametrize("name", ROLES)
def test_a_policy_allows_only_the_needed_writes(stack: dict[str, str], name: str) -> None:
    bucket = f"arn:aws:s3:::{PARAMETERS['BucketName']}"
    written: dict[str, str] = {}
    others = {}
    for statement in statements(stack, name):
        resources = [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
        if statement["Action"] == "s3:PutObject":
            condition = json.dumps(statement.get("Condition", {})).lower().replace('"false"', "false")
            assert condition in ("{}", CREATE_ONLY)
            how = ONCE if condition == CREATE_ONLY else ANY
            written |= {resource.removeprefix(f"{bucket}/").removesuffix("*"): how for resource in resources}
        else:
            others[statement["Action"]] = resources
    assert written == ROLES[name]
    assert others == {"s3:ListBucket": [bucket], "s3:GetObject": [f"{bucket}/*"]}


class RecordingClient:
    """A client that records the prefix of every write, and whether it only creates."""

    def __init__(self, client: Any) -> None:
        self._client, self.written = client, dict[str, set[str]]()

    def put_object(self, **arguments: Any) -> Any:
        prefix = arguments["Key"].split("/")[0] + "/"
        self.written.setdefault(prefix, set()).add(ONCE if arguments.get("IfNoneMatch") == "*" else ANY)
        return self._client.put_object(**arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_publishing_and_promoting_write_what_their_policies_allow(context: PromotionContext) -> None:
    flowers = Project(name="p", data="s3://podium/x", target="kind", families=("linear",), n_trials=1)
    trainer_client, promoter_client = RecordingClient(context.store.client), RecordingClient(context.store.client)
    for seed in range(2):
        trainer = replace(context, store=Store(trainer_client, context.store.bucket))
        version = publish_version(trainer, tables.flowers(seed=seed), flowers).version
        promote(replace(context, store=Store(promoter_client, context.store.bucket)), "p", version, "x", utc_now, force=True)
    assert trainer_client.written == {"versions/": {ONCE}}
    assert promoter_client.written == {"history/": {ONCE}, "aliases/": {ONCE, ANY}}


def test_undelivered_events_are_kept_and_raise_an_alarm(stack: dict[str, str]) -> None:
    assert {properties(name)["Namespace"] for name in ("NotificationsFailing", "NotificationsLost")} == {
        "AWS/Lambda",
        "AWS/SQS",
    }
    assert properties("Retries")["DestinationConfig"]["OnFailure"]
    assert "Undelivered" in stack
