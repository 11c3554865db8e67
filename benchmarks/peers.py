"""Start MLServer and BentoML with the naive pipeline, each in an environment of its own that is made in a few seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from podium.local.processes import Process, free_ports

LIBRARIES = [f"{name}=={version(name)}" for name in ("lightgbm", "scikit-learn", "pandas", "numpy")]
"""Those that pickled the pipeline."""
BENTO = """
import pickle

import bentoml
import pandas as pd


@bentoml.service(workers=1)
class Bench:
    def __init__(self):
        with open({pipeline!r}, "rb") as file:
            self.pipeline = pickle.load(file)

    @bentoml.api
    def predict(self, record: dict) -> dict:
        return {{"probabilities": self.pipeline.predict_proba(pd.DataFrame([record]))[0].tolist()}}
"""


def start_mlserver(folder: Path, port: int) -> tuple[Process, str]:
    """Start MLServer in this process's pool, with its scikit-learn runtime; return it with its version."""
    python = make_environment(folder / "mlserver", ["mlserver", "mlserver-sklearn", *LIBRARIES])
    model = {"name": "bench", "implementation": "mlserver_sklearn.SKLearnModel"}
    model |= {"parameters": {"uri": str(folder / "pipeline.pkl")}}  # type: ignore[dict-item]
    grpc, metrics = free_ports(2)
    ports = {"host": "127.0.0.1", "http_port": port, "grpc_port": grpc, "metrics_port": metrics}
    (folder / "mlserver" / "model-settings.json").write_text(json.dumps(model))
    (folder / "mlserver" / "settings.json").write_text(json.dumps({**ports, "parallel_workers": 0, "debug": False}))
    command = [str(python.parent / "mlserver"), "start", str(folder / "mlserver")]
    process = Process(command, folder / "logs" / "mlserver.log", {})
    process.wait_for(f"http://127.0.0.1:{port}/v2/models/bench/ready", 60)
    return process, _version(python, "mlserver")


def start_bentoml(folder: Path, port: int) -> tuple[Process, str]:
    """Start a BentoML service with one worker; return it with its version."""
    python = make_environment(folder / "bentoml", ["bentoml", *LIBRARIES])
    (folder / "bentoml" / "bench.py").write_text(BENTO.format(pipeline=str(folder / "pipeline.pkl")))
    command = [str(python.parent / "bentoml"), "serve", "bench:Bench", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--working-dir", str(folder / "bentoml")]
    process = Process(command, folder / "logs" / "bentoml.log", {"BENTOML_DO_NOT_TRACK": "True"})
    process.wait_for(f"http://127.0.0.1:{port}/readyz", 60)
    return process, _version(python, "bentoml")


def make_environment(folder: Path, packages: Sequence[str]) -> Path:
    """Return the Python of a new environment with these packages."""
    uv, python = Path(sys.executable).parent / "uv", folder / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *packages], check=True)
    return python


def _version(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
