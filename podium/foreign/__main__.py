"""The child that turns one file: a request on standard input, `turned` or `refused` with the rest on standard output."""

from __future__ import annotations

import os
import pickle
import sys

from podium.foreign.importing import turn
from podium.foreign.refusal import Refusal
from podium.limits import restrict


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    request = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    restrict(request["seconds"], request["most_bytes"])
    try:
        words = "turned\n" + turn(request["wish"]).to_json()
    except Refusal as refusal:
        words = f"refused\n{refusal}"
    except MemoryError:
        words = "refused\nthe file needs more memory than an import may have"
    except Exception as error:
        words = f"refused\nthe file made its reader fail ({type(error).__name__})"
    answers.write(words)
    answers.flush()
    os._exit(0)  # without the exit handlers that a file may have set


if __name__ == "__main__":
    main()
