"""The part of validation that runs in a fork server and its sandboxed children."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass

from pydantic import TypeAdapter

from podium.models.onnx_scorer import OnnxScorer
from podium.models.runner_scorer import LOADER, RunnerScorer
from podium.registry.loading import ValidationResult, validate_version
from podium.registry.versions import Manifest
from podium.registry.warm_up import warm_up_libraries, warm_up_onnx
from podium.sandbox.child_process import Work
from podium.sandbox.fork_server import Worker
from podium.storage.object_store import StoreError

RESULT = TypeAdapter(ValidationResult)


@dataclass(frozen=True, slots=True)
class ValidationRequest:
    """A manifest and the verified bytes of the files to load, by key."""

    manifest: Manifest
    files: dict[str, bytes]


def prepare(request: ValidationRequest) -> Work:
    if any(OnnxScorer.__module__.encode() in data for data in request.files.values()):
        warm_up_onnx()
    if any(RunnerScorer.__module__.encode() in data for data in request.files.values()):
        importlib.import_module(LOADER).LOADER.import_libraries()
    return functools.partial(_validate, request)


def _validate(request: ValidationRequest) -> str:
    result = validate_version(request.manifest, lambda key, *_: request.files[key])
    return RESULT.dump_json(result).decode()


WORKER = Worker(warm_up_libraries, prepare, expected=(StoreError,))
