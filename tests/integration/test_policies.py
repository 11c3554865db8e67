"""The IAM policies of the template, enforced in front of S3 while the real programs run: each needs no more and no less."""

from __future__ import annotations

import base64
import fnmatch
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError
from cfnlint.decode import decode

from lambda_refresh import handler
from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.services import breast_cancer, put_table, run_pipeline, start_service
from podium.registry.signing import Signer
from service.webhooks import Webhooks

pytestmark = pytest.mark.slow

TEMPLATE = Path(__file__).resolve().parents[2] / "deploy" / "podium.yaml"
PROJECT = "breast-cancer"
BUCKET = "arn:aws:s3:::podium"
CSV = {"content-type": "text/csv"}
LOG_KEY = Signer.new()


def policy(name: str) -> list[dict[str, Any]]:
    """Return the statements of a policy for the bucket of the local cloud."""
    template, problems = decode(str(TEMPLATE))
    assert not problems
    statements = json.loads(json.dumps(template["Resources"][name]["Properties"]["PolicyDocument"]["Statement"]))
    for statement in statements:
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        names = {"${AWS::Partition}": "aws", "${BucketName}": "podium"}
        texts = [resource["Fn::Sub"] for resource in resources]
        for variable, value in names.items():
            texts = [text.replace(variable, value) for text in texts]
        statement["Resource"] = texts
    return statements


def is_allowed(statements: list[dict[str, Any]], action: str, resource: str, *, creates: bool) -> bool:
    """Evaluate a policy that has only Allow statements, and only the condition that a write creates."""
    for statement in statements:
        matches = action == statement["Action"] and any(fnmatch.fnmatchcase(resource, each) for each in statement["Resource"])
        if matches and ("Condition" not in statement or creates):
            assert statement["Effect"] == "Allow"
            assert statement.get("Condition", {"Null": {"s3:if-none-match": False}}) == {"Null": {"s3:if-none-match": False}}
            return True
    return False


class Guard(ThreadingHTTPServer):
    """An S3 server with the rights of one policy; it forwards what is allowed."""

    daemon_threads = True

    def __init__(self, name: str, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forwarding)
        self.statements, self.upstream = policy(name), urlsplit(upstream).netloc
        self.denied, self.allowed = list[str](), set[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def allows(self, method: str, target: str, headers: Any) -> bool:
        path, query = unquote(urlsplit(target).path).strip("/"), parse_qs(urlsplit(target).query, keep_blank_values=True)
        bucket, _, key = path.partition("/")
        creates, resource = "If-None-Match" in headers and method == "PUT", f"arn:aws:s3:::{bucket}/{key}"
        match method:
            case "GET" if not key and "list-type" in query:
                action, resource = "s3:ListBucket", f"arn:aws:s3:::{bucket}"
            case "GET" | "HEAD" if key:
                action = "s3:GetObject"
            case "PUT" if key and not query:
                action = "s3:PutObject"
            case _:
                action = f"{method} {target}"
        allowed = is_allowed(self.statements, action, resource, creates=creates)
        name = f"{action} {resource.removeprefix(BUCKET + '/')}"
        self.allowed.add(name) if allowed else self.denied.append(name)
        return allowed


class _Forwarding(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Guard

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.server.allows(self.command, self.path, self.headers):
            return self._answer(403, {}, b"<Error><Code>AccessDenied</Code><Message>denied</Message></Error>")
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        data = response.read()
        self._answer(response.status, dict(response.getheaders()), data)
        connection.close()

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._forward
        raise AttributeError(name)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def guarded(cloud: LocalCloud, *names: str) -> Iterator[tuple[Guard, dict[str, str]]]:
    """Yield a guarded S3 server, and the environment of a program that uses it."""
    guard = Guard(names[0], cloud.environment["AWS_ENDPOINT_URL_S3"])
    for name in names[1:]:
        guard.statements += policy(name)
    thread = threading.Thread(target=guard.serve_forever, daemon=True)
    thread.start()
    try:
        yield guard, {**cloud.environment, "AWS_ENDPOINT_URL_S3": guard.url, "PODIUM_LOG_KEY": LOG_KEY.private}
    finally:
        guard.shutdown()
        guard.server_close()
        thread.join()


@pytest.fixture(scope="module", autouse=True)
def tables_in_bucket(own_cloud: LocalCloud) -> None:
    put_table(own_cloud, "raw/breast-cancer.csv", breast_cancer())
    put_table(own_cloud, "drop/breast-cancer.csv", breast_cancer().drop(columns="diagnosis").head(30))


def test_each_program_runs_with_its_policy_alone(own_cloud: LocalCloud, tmp_path: Path) -> None:
    with guarded(own_cloud, "TrainerPolicy") as (trainer, environment):
        run_pipeline(environment, PROJECT, "Publish", "--budget", "5s", quiet=True)
    client = own_cloud.client()
    listed = client.list_objects_v2(Bucket="podium", Prefix=f"versions/{PROJECT}/")["Contents"]
    version = next(entry["Key"].split("/")[2] for entry in listed if entry["Key"].endswith("manifest.json"))
    with guarded(own_cloud, "PromoterPolicy") as (promoter, environment):
        options = ("--version", version, "--reason", "tested")
        run_pipeline(environment, PROJECT, "PromoteVersion", *options, quiet=True)
    with guarded(own_cloud, "BatchPolicy") as (batch, environment):
        run_pipeline(environment, PROJECT, "PredictBatch", quiet=True)
        run_pipeline(environment, PROJECT, "Monitor", quiet=True)
    with guarded(own_cloud, "TrainerPolicy", "PromoterPolicy") as (retrainer, environment):
        run_pipeline(environment, PROJECT, "RetrainDue", "--date", f"{datetime.now(UTC):%Y-%m-%d}", quiet=True)
    with guarded(own_cloud, "ServicePolicy") as (service, environment):
        _use_service(own_cloud, environment, tmp_path)
    for guard in (trainer, promoter, batch, retrainer, service):
        assert guard.denied == []
    assert {name.split("/")[0] for name in service.allowed if "Put" in name} == {
        "s3:PutObject drop",
        "s3:PutObject labels",
        "s3:PutObject log",
        "s3:PutObject outbox",
        "s3:PutObject predictions",
    }


def _use_service(cloud: LocalCloud, environment: dict[str, str], folder: Path) -> None:
    """Predict, send a label, and put a file into the inbox, while the Lambda is the only one that tells the service."""
    port = cloud.service_port
    settings = {"PODIUM_JOURNAL_SECONDS": "1", "PODIUM_INBOX_POLL_SECONDS": "600", "PODIUM_DASK_WORKERS": "0"}
    process = start_service({**environment, **settings}, port, folder)
    try:
        client = Client(f"http://127.0.0.1:{port}")
        client.wait_until(lambda: client.get("/readyz").status == 200, 60)
        rows = breast_cancer().drop(columns="diagnosis").head(3)
        answer = client.post(f"/projects/{PROJECT}/predict.csv", rows.to_csv(index=False).encode(), CSV)
        assert answer.status == 200
        record = json.loads(rows.iloc[0].to_json())
        prediction_id = client.post_json(f"/projects/{PROJECT}/predict", record).json()["prediction_id"]
        label = f"/predictions/{prediction_id}/label"
        client.wait_until(lambda: client.post_json(label, {"label": "benign"}).status == 202, 30)
        s3, result = cloud.client(), f"outbox/{PROJECT}/rows.csv"
        s3.put_object(Bucket="podium", Key=f"inbox/{PROJECT}/rows.csv", Body=rows.to_csv(index=False).encode())
        client.wait_until(lambda: _exists(s3, f"{result}.receipt.json"), 60)
        s3.put_object(Bucket="podium", Key="drop/breast-cancer.csv", Body=rows.to_csv(index=False).encode())
        client.wait_until(lambda: _exists(s3, f"labels/{PROJECT}/"), 30)
        client.wait_until(lambda: b"prediction" in _read(s3, "drop/breast-cancer-predictions.csv").splitlines()[0], 60)
        client.wait_until(lambda: len(_read(s3, "drop/breast-cancer-predictions.csv").splitlines()) == 4, 60)
    finally:
        process.stop(30)


def _exists(s3: Any, prefix: str) -> bool:
    return bool(s3.list_objects_v2(Bucket="podium", Prefix=prefix).get("KeyCount"))


def _read(s3: Any, key: str) -> bytes:
    data: bytes = s3.get_object(Bucket="podium", Key=key)["Body"].read()
    return data


FORBIDDEN = {
    "TrainerPolicy": [
        "aliases/p/champion.json",
        "history/p/1.json",
        "predictions/p/x",
        "outbox/p/x",
        "drop/x",
        "log/checkpoint",
        "labels/p/x",
    ],
    "PromoterPolicy": [
        "versions/p/v/manifest.json",
        "datasets/p/x",
        "predictions/p/x",
        "log/checkpoint",
        "outbox/p/x",
        "inbox/p/x",
    ],
    "BatchPolicy": ["aliases/p/champion.json", "history/p/1.json", "versions/p/v/x", "datasets/p/x", "labels/p/x", "inbox/p/x"],
    "ServicePolicy": [
        "aliases/p/champion.json",
        "history/p/1.json",
        "versions/p/v/x",
        "datasets/p/x",
        "monitoring/p/x",
        "inbox/p/x",
        "runs/x",
    ],
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_policy_denies_what_its_neighbours_may_do(own_cloud: LocalCloud, name: str) -> None:
    with guarded(own_cloud, name) as (_, environment):
        credentials = {variable.lower(): environment[variable] for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL_S3"], region_name="us-east-1", **credentials)
        for key in FORBIDDEN[name]:
            with pytest.raises(ClientError, match="denied"):
                client.put_object(Bucket="podium", Key=key, Body=b"x", IfNoneMatch="*")
        own = {"TrainerPolicy": "versions/p/v/x", "PromoterPolicy": "history/p/1.json"}.get(
            name, f"predictions/p/dt=2026/{name}"
        )
        client.put_object(Bucket="podium", Key=own, Body=b"x", IfNoneMatch="*")
        with pytest.raises(ClientError, match="denied"):
            client.put_object(Bucket="podium", Key=own, Body=b"y")
        with pytest.raises(ClientError, match="denied"):
            client.delete_object(Bucket="podium", Key=own)
        assert client.get_object(Bucket="podium", Key=own)["Body"].read() == b"x"


SECRET_ARN, SECRET = "arn:aws:secretsmanager:us-east-1:1:secret:refresh", "whsec_" + base64.b64encode(b"k" * 24).decode()
EVENT = {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "aliases/p/champion.json"}}}]}


class SecretsAndReplica(BaseHTTPRequestHandler):
    """Secrets Manager with the rights of the Lambda's role, and a replica that verifies notifications."""

    statements: list[dict[str, Any]] = []
    calls: list[str] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/refresh":
            headers = {name.lower(): value for name, value in self.headers.items()}
            accepted = Webhooks([SECRET]).accept(headers, body, datetime.now(UTC).timestamp())
            return self._answer(202 if accepted else 401, {})
        action, name = self.headers["X-Amz-Target"], json.loads(body)["SecretId"]
        self.calls.append(f"{action} {name}")
        allowed = any(action.replace(".", ":") == each["Action"] and name == each["Resource"] for each in self.statements)
        self._answer(*(200, {"SecretString": SECRET}) if allowed else (400, {"__type": "AccessDeniedException"}))

    def _answer(self, status: int, content: dict[str, str]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


def test_the_lambda_reads_its_secret_and_needs_no_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    template, _ = decode(str(TEMPLATE))
    statements = template["Resources"]["RefreshRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    assert [each["Action"] for each in statements] == ["secretsmanager:GetSecretValue", "sqs:SendMessage"]
    assert statements[0]["Resource"] == {"Ref": "SecretArn"}
    SecretsAndReplica.statements = [{**statements[0], "Resource": SECRET_ARN}]
    server = ThreadingHTTPServer(("127.0.0.1", 0), SecretsAndReplica)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("PODIUM_REFRESH_TARGETS", f"{url}/refresh")
    try:
        for name, delivered in ((SECRET_ARN, True), (SECRET_ARN + "-of-another", False)):
            monkeypatch.setattr(handler, "_cached_secret", ("", 0.0))
            monkeypatch.setenv("PODIUM_REFRESH_SECRET_ID", name)
            if delivered:
                assert handler.handler(EVENT, None)["changes"] == 1
            else:
                with pytest.raises(ClientError, match="AccessDenied"):
                    handler.handler(EVENT, None)
    finally:
        server.shutdown()
        server.server_close()
    assert SecretsAndReplica.calls[0] == f"secretsmanager.GetSecretValue {SECRET_ARN}"
