"""Where Podium finds its bucket and its projects, from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from podium.store.s3 import Store, s3_client

ROOT = Path(__file__).resolve().parent.parent


class StoreSettings(BaseSettings):
    """PODIUM_… variables that every part reads; S3 itself is reached by the standard AWS_… variables."""

    model_config = SettingsConfigDict(env_prefix="PODIUM_", extra="ignore")

    bucket: str = Field("podium", description="the bucket that holds everything")
    source_buckets: tuple[str, ...] = Field((), description="further buckets that a project's data may lie in, as JSON")
    projects: Path = Field(ROOT / "projects", description="folder of the projects")
    templates: Path = Field(ROOT / "templates", description="folder of the page templates")
    actor: str = Field("", description="who promotes, for the records; the login name when empty")

    def store(self) -> Store:
        return Store(s3_client(), self.bucket)
