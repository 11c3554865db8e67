"""Where Podium finds its bucket, its projects and its keys, from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from podium.project import BadProject, PromotionRules, load_rules
from podium.registry.signing import BadKey, Signer, TrustPolicy, VerifyingKeys
from podium.storage.object_store import Store, StoreError, s3_client

ROOT = Path(__file__).resolve().parent.parent
FROM_FILE = "file:"


class BadRules(StoreError):
    """The promoter's own project file is not valid, so nothing is promoted by it."""


class StoreSettings(BaseSettings):
    """PODIUM_… variables that every part reads; S3 itself is reached by the standard AWS_… variables."""

    model_config = SettingsConfigDict(env_prefix="PODIUM_", extra="ignore")

    bucket: str = Field("podium", description="the bucket that holds everything")
    source_buckets: tuple[str, ...] = Field((), description="further buckets that a project's data may lie in, as JSON")
    projects: Path = Field(ROOT / "projects", description="folder of the projects")
    templates: Path = Field(ROOT / "templates", description="folder of the page templates")
    actor: str = Field("", description="who trains and promotes, for the records; the login name when empty")
    signing_key: SecretStr = Field(
        SecretStr(""), description="private key of who trains or promotes; file:PATH reads it from there"
    )
    trainer_keys: tuple[str, ...] = Field((), description="public keys whose versions are believed, as JSON")
    promoter_keys: tuple[str, ...] = Field(
        (), description="public keys whose promotions are believed, as JSON; the trainers' if empty"
    )

    import_allowed: Path | None = Field(None, description="file of further names that an imported pickle may construct")

    def store(self, patience: float = 60.0) -> Store:
        return Store(s3_client(patience), self.bucket)

    def signer(self) -> Signer:
        """Raises BadKey."""
        text = self.signing_key.get_secret_value()
        if not text:
            raise BadKey("PODIUM_SIGNING_KEY is not set: `podium keys new` makes one")
        if text.startswith(FROM_FILE):
            text = Path(text.removeprefix(FROM_FILE)).read_text().strip()
        return Signer.parse(text)

    def rules_for(self, project: str) -> PromotionRules:
        """How this process judges versions of the project before it promotes them. Raises BadRules."""
        try:
            return load_rules(self.projects, project)
        except BadProject as error:
            raise BadRules(f"no version of {project} can be judged, as its project file is not valid: {error}") from None

    def trust(self) -> TrustPolicy:
        """Raises BadKey."""
        if not self.trainer_keys:
            raise BadKey("PODIUM_TRAINER_KEYS is not set, so no version could be believed: `podium keys new` shows how")
        return TrustPolicy(VerifyingKeys(self.trainer_keys), VerifyingKeys(self.promoter_keys or self.trainer_keys))
