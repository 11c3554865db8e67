"""The infrastructure as code: valid under cfn-lint, and made by moto's CloudFormation with what it promises."""

from __future__ import annotations

import io
import json
import subprocess
import sysconfig
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

TEMPLATE = Path(__file__).resolve().parents[1] / "deploy" / "podium.yaml"
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
        yield {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources}


def packed() -> bytes:
    """The zip that the README makes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in (TEMPLATE.parents[1] / "lambda_refresh").glob("*.py"):
            archive.write(path, f"lambda_refresh/{path.name}")
    return file.getvalue()


def test_the_bucket_keeps_versions_and_tells_the_function(stack: dict[str, str]) -> None:
    s3 = boto3.client("s3")
    assert s3.get_bucket_versioning(Bucket=stack["Bucket"])["Status"] == "Enabled"
    told = s3.get_bucket_notification_configuration(Bucket=stack["Bucket"])["LambdaFunctionConfigurations"]
    prefixes = [each["Filter"]["Key"]["FilterRules"][0]["Value"] for each in told]
    assert sorted(prefixes) == ["aliases/", "inbox/"]
    assert all(each["Events"] == ["s3:ObjectCreated:*"] and stack["Refresh"] in each["LambdaFunctionArn"] for each in told)


def test_the_function_finds_its_secret_and_gives_up_before_its_time(stack: dict[str, str]) -> None:
    from lambda_refresh.handler import TIMEOUT_SECONDS, handler

    found = boto3.client("lambda").get_function_configuration(FunctionName=stack["Refresh"])
    assert found["Handler"] == f"{handler.__module__}.{handler.__name__}"
    assert found["Environment"]["Variables"]["PODIUM_REFRESH_SECRET_ID"] == SECRET
    assert found["Timeout"] > 2 * 2 * TIMEOUT_SECONDS  # connect and answer, twice when the secret was replaced


@pytest.mark.parametrize(
    ("name", "action", "place", "allowed"),
    [
        ("Trains", "s3:PutObject", "versions/", True),
        ("Trains", "s3:PutObject", "aliases/", False),
        ("Promotes", "s3:PutObject", "aliases/", True),
        ("Promotes", "s3:PutObject", "versions/", False),
        ("Serves", "s3:PutObject", "outbox/", True),
        ("Serves", "s3:PutObject", "aliases/", False),
        ("Trains", "s3:DeleteObject", "", False),
        ("Promotes", "s3:DeleteObject", "", False),
        ("Serves", "s3:DeleteObject", "", False),
    ],
)
def test_nobody_may_more_than_they_need(stack: dict[str, str], name: str, action: str, place: str, allowed: bool) -> None:
    iam = boto3.client("iam")
    policy: dict[str, Any] = iam.get_policy_version(PolicyArn=stack[name], VersionId="v1")["PolicyVersion"]["Document"]
    policy = json.loads(policy) if isinstance(policy, str) else policy
    granted = [
        resource
        for statement in policy["Statement"]
        if action in statement["Action"]
        for resource in ([statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"])
    ]
    assert any(resource.endswith(f"/{place}*") for resource in granted) is allowed


def test_what_is_not_delivered_is_kept_and_somebody_hears_of_it(stack: dict[str, str]) -> None:
    alarms = boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert {alarm["Namespace"] for alarm in alarms} == {"AWS/Lambda", "AWS/SQS"}
    assert "Undelivered" in stack
