"""The models being served: one immutable version per project, replaced by a single assignment."""

from __future__ import annotations

import time

from podium.inference.served_model import ServedModel
from podium.registry.versions import Manifest
from podium.schema.data_errors import shorten_name
from service.errors import ModelNotReady, UnknownProject

MAX_LISTED = 20


class ActiveModels:
    """The loaded versions by project, the projects that should be loaded, and those evicted to save memory."""

    def __init__(self, default_project: str = "") -> None:
        self._models: dict[str, ServedModel] = {}
        self._last_used: dict[str, float] = {}
        self.evicted: dict[str, Manifest] = {}
        self._default = default_project
        self.expected: frozenset[str] = frozenset()
        self.draining = False
        self.starting = False
        """True until the first successful check of the store: until then, any project may exist."""

    def get(self, project: str) -> ServedModel:
        """Return a project's model. Raises UnknownProject, ModelNotReady."""
        served = self.find(project)
        if served is None and project in self.expected:
            raise ModelNotReady("this project's champion failed to load; see /status")
        if served is None and self.starting:
            raise ModelNotReady("the service is starting and has not read the object store yet")
        if served is None:
            raise UnknownProject(f'project not found: "{shorten_name(project)}" (available: {self._available()})')
        return served

    def _available(self) -> str:
        """Return the names of the deployed projects, which every authenticated caller may list."""
        names = sorted(self._models.keys() | self.evicted.keys())
        return ", ".join([*names[:MAX_LISTED], *(["…"] if len(names) > MAX_LISTED else [])]) or "none"

    def default(self) -> ServedModel:
        """Return the model for paths that do not name a project. Raises ModelNotReady, UnknownProject."""
        if self._default:
            return self.get(self._default)
        if not self._models:
            raise ModelNotReady("no models deployed yet")
        if len(self._models) + len(self.evicted) > 1:
            raise UnknownProject(
                "several projects are deployed: name one (/projects/NAME/…, ?project=NAME), or set PODIUM_DEFAULT_PROJECT"
            )
        return next(iter(self._models.values()))

    def find(self, project: str) -> ServedModel | None:
        """Return a project's model, or None, and record the use; an empty name means the default project."""
        if not project and not self._default:
            return next(iter(self._models.values())) if len(self._models) == 1 and not self.evicted else None
        served = self._models.get(project or self._default)
        if served is not None:
            self._last_used[served.project] = time.monotonic()
        return served

    def is_loaded(self, project: str) -> bool:
        """Return whether a project's model is in memory; unlike `find`, this does not record a use."""
        return project in self._models

    def all(self) -> list[ServedModel]:
        return sorted(self._models.values(), key=lambda served: served.project)

    def swap(self, served: ServedModel) -> ServedModel | None:
        """Serve this version from now on; return the previous one."""
        previous = self._models.get(served.project)
        self._models = {**self._models, served.project: served}  # the swap: one assignment
        self._last_used[served.project] = time.monotonic()
        self.evicted = {name: manifest for name, manifest in self.evicted.items() if name != served.project}
        return previous

    def least_recently_used(self) -> ServedModel | None:
        """Return the candidate for eviction; the default project is never evicted."""
        candidates = [served for served in self._models.values() if served.project != self._default]
        return min(candidates, key=lambda served: self._last_used.get(served.project, 0.0), default=None)

    def evict(self, served: ServedModel) -> None:
        """Remove a model from memory until the next request for it."""
        self._models = {name: model for name, model in self._models.items() if model is not served}
        self.evicted = {**self.evicted, served.project: served.manifest}
