"""Settings for the store, the projects and the keys, from PODIUM_… environment variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from podium.project import BadProject, PromotionRules, load_rules
from podium.registry.signing import BadKey, Signer, TrustPolicy, VerifyingKeys
from podium.storage.object_store import Store, StoreError, s3_client

ROOT = Path(__file__).resolve().parent.parent
FILE_PREFIX = "file:"


class BadRules(StoreError):
    """The project file that defines the promotion rules is not valid."""


class StoreSettings(BaseSettings):
    """Settings that all parts of Podium share. The connection to S3 is configured by the standard AWS_… variables."""

    model_config = SettingsConfigDict(env_prefix="PODIUM_", extra="ignore")

    bucket: str = Field("podium", description="Bucket that holds all of Podium's data.")
    source_buckets: tuple[str, ...] = Field(
        (), description="Additional buckets from which projects may read training data. JSON list."
    )
    projects: Path = Field(ROOT / "projects", description="Folder with the projects.")
    templates: Path = Field(ROOT / "templates", description="Folder with the page templates.")
    actor: str = Field(
        "", description="Recorded name of the person or system that trains and promotes. Default: the login name."
    )
    signing_key: SecretStr = Field(
        SecretStr(""),
        description="Private key that signs trained versions and audit-log entries. `file:PATH` reads it from a file.",
    )
    trainer_keys: tuple[str, ...] = Field(
        (), description="Public keys whose versions are trusted. JSON list; list both keys during a rotation."
    )
    promoter_keys: tuple[str, ...] = Field(
        (), description="Public keys whose audit-log entries are trusted. JSON list. Default: the trainer keys."
    )
    retired_keys: tuple[str, ...] = Field(
        (),
        description="Public keys of trainers and promoters that are not accepted any more, for example because they leaked. "
        "What they signed before stays readable in the history and in the log. JSON list.",
    )
    log_key: SecretStr = Field(
        SecretStr(""),
        description="Private key that signs the prediction log; without it, predictions are not logged. `file:PATH` reads it "
        "from a file.",
    )
    log_keys: tuple[str, ...] = Field(
        (), description="Public keys of the prediction log. JSON list. Default: the public key of the private one."
    )
    log_name: str = Field(
        "",
        pattern=r"^[!-*,-~]*$",
        description="Name in the checkpoints of the prediction log. Default: podium/ and the name of the bucket. A bucket that "
        "was restored under another name needs the name of before.",
    )
    alarm_url: str = Field("", description="URL that monitoring sends alarms to, as Standard Webhooks.")
    alarm_secret: SecretStr = Field(
        SecretStr(""), description="Key that signs alarms, in base64 after `whsec_`. `file:PATH` reads it from a file."
    )
    import_allowed: Path | None = Field(
        None, description="File that lists additional classes and functions that an imported pickle may use."
    )

    def store(self, timeout: float = 60.0) -> Store:
        return Store(s3_client(timeout), self.bucket)

    def signer(self) -> Signer:
        """Return the signer for the configured key. Raises BadKey."""
        return _signer(self.signing_key, "PODIUM_SIGNING_KEY")

    def log_signer(self) -> Signer:
        """Return the signer of the prediction log. Raises BadKey."""
        return _signer(self.log_key, "PODIUM_LOG_KEY")

    def log_verifiers(self) -> VerifyingKeys:
        """Return the keys whose checkpoints of the prediction log are trusted. Raises BadKey."""
        if not self.log_keys and not self.log_key.get_secret_value():
            raise BadKey("PODIUM_LOG_KEYS is not set, so no entry of the log can be verified: it is a JSON list of public keys")
        return VerifyingKeys(self.log_keys or [self.log_signer().public])

    def alarm_key(self) -> str:
        """Return the key that signs alarms; empty without one."""
        return _secret_text(self.alarm_secret)

    def rules_for(self, project: str) -> PromotionRules:
        """Return the promotion rules that this process applies to a project. Raises BadRules."""
        try:
            return load_rules(self.projects, project)
        except BadProject as error:
            raise BadRules(f"cannot evaluate versions of {project}, because its project file is not valid: {error}") from None

    def trust(self) -> TrustPolicy:
        """Return the trusted keys. Raises BadKey."""
        if not self.trainer_keys:
            raise BadKey("PODIUM_TRAINER_KEYS is not set, so no version can be verified. Create keys with `podium keys new`.")
        trainers, promoters = (
            VerifyingKeys(keys, self.retired_keys) for keys in (self.trainer_keys, self.promoter_keys or self.trainer_keys)
        )
        return TrustPolicy(trainers, promoters)


def _signer(secret: SecretStr, setting: str) -> Signer:
    """Return the signer for a configured key. Raises BadKey."""
    text = _secret_text(secret)
    if not text:
        raise BadKey(f"{setting} is not set. Create keys with `podium keys new`.")
    return Signer.parse(text, setting)


def _secret_text(secret: SecretStr) -> str:
    """Return a secret, or the content of the file that it names."""
    text = secret.get_secret_value()
    return Path(text.removeprefix(FILE_PREFIX)).read_text().strip() if text.startswith(FILE_PREFIX) else text
