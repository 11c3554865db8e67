"""The infrastructure as code: valid under cfn-lint, and made by moto's CloudFormation with what it promises."""

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

from lambda_refresh.handler import TIMEOUT_SECONDS, WATCHED, handler
from podium.project import Project
from podium.registry.promotion import PromotionContext, promote, utc_now
from podium.storage.object_store import Store
from tests import tables
from tests.conftest import publish_version

TEMPLATE = Path(__file__).resolve().parents[2] / "deploy" / "podium.yaml"
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:podium-hints-aBcDeF"
PARAMETERS = {
    "BucketName": "podium-of-a-test",
    "RefreshTargets": "https://podium.example/refresh",
    "CodeBucket": "code",
    "SecretArn": SECRET,
}


def test_the_template_is_valid() -> None:
    lint = Path(sysconfig.get_path("scripts")) / "cfn-lint"
    found = subprocess.run([lint, TEMPLATE], capture_output=True, text=True, timeout=120, check=False)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.fixture(scope="module")
def stack() -> Iterator[dict[str, str]]:
    """The physical names of what the stack made, by their logical ones."""
    with pytest.MonkeyPatch.context() as patch, mock_aws(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not supported by moto")  # policies of buckets and of invocations
        for name, value in {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}.items():
            patch.setenv(name, value)
        patch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="code")
        s3.put_object(Bucket="code", Key="podium-refresh.zip", Body=packed())
        given = [{"ParameterKey": name, "ParameterValue": value} for name, value in PARAMETERS.items()]
        client = boto3.client("cloudformation")
        client.create_stack(
            StackName="podium", TemplateBody=TEMPLATE.read_text(), Parameters=given, Capabilities=["CAPABILITY_IAM"]
        )
        resources = client.describe_stack_resources(StackName="podium")["StackResources"]
        yield {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources if "PhysicalResourceId" in each}


def packed() -> bytes:
    """The zip that the README makes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in (TEMPLATE.parents[2] / "lambda_refresh").glob("*.py"):
            archive.write(path, f"lambda_refresh/{path.name}")
    return file.getvalue()


def properties(name: str) -> Any:
    """Of a resource in the template: moto makes no alarms and keeps no versions of a stack's bucket."""
    template, problems = decode(str(TEMPLATE))
    assert not problems
    return template["Resources"][name]["Properties"]


def test_the_bucket_keeps_versions_and_tells_the_function(stack: dict[str, str]) -> None:
    assert stack["Bucket"] == PARAMETERS["BucketName"]
    bucket = properties("Bucket")
    assert bucket["VersioningConfiguration"]["Status"] == "Enabled"
    told = bucket["NotificationConfiguration"]["LambdaConfigurations"]
    prefixes = [each["Filter"]["S3Key"]["Rules"][0]["Value"] for each in told]
    assert sorted(prefixes) == sorted(WATCHED.split(","))
    assert {each["Event"] for each in told} == {"s3:ObjectCreated:*"}


def test_the_function_finds_its_secret_and_gives_up_before_its_time(stack: dict[str, str]) -> None:
    found = boto3.client("lambda").get_function_configuration(FunctionName=stack["Refresh"])
    assert found["Handler"] == f"{handler.__module__}.{handler.__name__}"
    assert found["Environment"]["Variables"]["PODIUM_REFRESH_SECRET_ID"] == SECRET
    assert found["Timeout"] > 2 * 2 * TIMEOUT_SECONDS  # connect and answer, twice when the secret was replaced


ANY, ONCE = "written any time", "created once"
ROLES = {
    "Trains": {"datasets/": ONCE, "runs/": ONCE, "versions/": ONCE, "predictions/": ANY, "drop/": ANY},
    "Promotes": {"history/": ONCE, "runs/": ONCE, "aliases/": ANY},
    "Serves": {"outbox/": ANY, "drop/": ANY},
}
CREATED_ONCE = '{"null": {"s3:if-none-match": false}}'


def statements(stack: dict[str, str], name: str) -> list[dict[str, Any]]:
    iam = boto3.client("iam")
    policy = iam.get_policy_version(PolicyArn=stack[name], VersionId="v1")["PolicyVersion"]["Document"]
    found: list[dict[str, Any]] = (json.loads(policy) if isinstance(policy, str) else policy)["Statement"]
    return found


@pytest.mark.parametrize("name", ROLES)
def test_a_role_may_write_where_its_code_writes_and_nothing_else(stack: dict[str, str], name: str) -> None:
    bucket = f"arn:aws:s3:::{PARAMETERS['BucketName']}"
    written: dict[str, str] = {}
    others = {}
    for statement in statements(stack, name):
        resources = [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
        if statement["Action"] == "s3:PutObject":
            condition = json.dumps(statement.get("Condition", {})).lower().replace('"false"', "false")
            assert condition in ("{}", CREATED_ONCE)
            how = ONCE if condition == CREATED_ONCE else ANY
            written |= {resource.removeprefix(f"{bucket}/").removesuffix("*"): how for resource in resources}
        else:
            others[statement["Action"]] = resources
    assert written == ROLES[name]
    assert others == {"s3:ListBucket": [bucket], "s3:GetObject": [f"{bucket}/*"]}


class NotesWrites:
    """A client that notes the prefix of every write, and whether it may only create."""

    def __init__(self, client: Any) -> None:
        self._client, self.written = client, dict[str, set[str]]()

    def put_object(self, **arguments: Any) -> Any:
        prefix = arguments["Key"].split("/")[0] + "/"
        self.written.setdefault(prefix, set()).add(ONCE if arguments.get("IfNoneMatch") == "*" else ANY)
        return self._client.put_object(**arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_publishing_and_promoting_write_what_their_roles_allow(context: PromotionContext) -> None:
    flowers = Project(name="p", data="s3://podium/x", target="kind", families=("linear",), n_trials=1)
    trains, promotes = NotesWrites(context.store.client), NotesWrites(context.store.client)
    for turn in range(2):
        trainer = replace(context, store=Store(trains, context.store.bucket))
        version = publish_version(trainer, tables.flowers(seed=turn), flowers).version
        promote(replace(context, store=Store(promotes, context.store.bucket)), "p", version, "x", utc_now, force=True)
    assert trains.written == {"versions/": {ONCE}}
    assert promotes.written == {"history/": {ONCE}, "aliases/": {ONCE, ANY}}


def test_what_is_not_delivered_is_kept_and_somebody_hears_of_it(stack: dict[str, str]) -> None:
    assert {properties(name)["Namespace"] for name in ("HintsFail", "HintsAreLost")} == {"AWS/Lambda", "AWS/SQS"}
    assert properties("Retries")["DestinationConfig"]["OnFailure"]
    assert "Undelivered" in stack
