"""Render predictions of valid rows as JSON with compiled templates; the bytes are those of `service.responses`."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence

from podium.inference.record_decoder import NeedsReport, Row
from podium.inference.served_model import ServedModel
from podium.schema.data_errors import Problem
from service.open_inference import output_tensor, output_types
from service.responses import sorted_inputs

PREPARED_KEY = "json_renderer"
Scores = Sequence[Sequence[float]]


def renderer_for(served: ServedModel) -> JsonRenderer:
    """Return the renderer of a version; the first call builds it."""
    if PREPARED_KEY not in served.prepared:
        served.prepared[PREPARED_KEY] = JsonRenderer(served)
    renderer: JsonRenderer = served.prepared[PREPARED_KEY]
    return renderer


class JsonRenderer:
    """The templates of one version. All methods raise NeedsReport for scores that are not finite."""

    def __init__(self, served: ServedModel) -> None:
        target = served.signature.target
        self._signature, self._version = served.signature, served.version
        self._classes = [(json.dumps(label), json.dumps(str(label))) for label in target.classes]
        self._heads = {family: _head(served, family) for family in served.models}
        self._predictions = {family: self._template(served.half_width(family)) for family in served.models}
        self._tensors = [_tensor_template(name, kind) for name, kind in output_types(served.signature).items()]
        self._labels = [json.dumps(label, ensure_ascii=False) for label in target.classes]
        self._infer_head = (
            f'{{"model_name":%s,"model_version":{json.dumps(served.version)},"id":%s,"parameters":{{"prediction_id":'
        )

    def _template(self, half_width: float | None) -> Callable[[Sequence[float]], str]:
        """Return the function that renders the fields of one prediction."""
        classes, labels = self._classes, [label for label, _ in self._classes]
        if len(classes) == 2:
            (_, first_name), (_, second_name) = classes
            two_labels = [f'"prediction":{label},"probabilities":{{{first_name}:' for label in labels]

        def of_two_classes(scores: Sequence[float]) -> str:
            first, second = scores
            if not math.isfinite(first + second):
                raise NeedsReport
            return f"{two_labels[second > first]}{first!r},{second_name}:{second!r}}}"

        def of_class(scores: Sequence[float]) -> str:
            if not math.isfinite(sum(scores)):
                raise NeedsReport
            label = labels[scores.index(max(scores))]
            probabilities = ",".join([f"{name}:{score!r}" for (_, name), score in zip(classes, scores, strict=True)])
            return f'"prediction":{label},"probabilities":{{{probabilities}}}'

        def of_number(scores: Sequence[float]) -> str:
            (number,) = scores
            if not math.isfinite(number):
                raise NeedsReport
            if half_width is None:
                return f'"prediction":{number!r}'
            return f'"prediction":{number!r},"interval":[{number - half_width!r},{number + half_width!r}]'

        return of_two_classes if len(classes) == 2 else of_class if classes else of_number

    def predictions(
        self, scores: Mapping[str, Scores], prediction_id: str, inputs: Sequence[Row] | None, warnings: Sequence[Problem]
    ) -> str:
        """Return the response of a prediction; the first family of `scores` is the main one."""
        families = list(scores)
        rows = list(map(self._predictions[families[0]], scores[families[0]]))
        if len(families) > 1:
            models = [[f"{json.dumps(name)}:{{{self._predictions[name](row)}}}" for row in scores[name]] for name in families]
            rows = [f'{row},"models":{{{",".join(each)}}}' for row, *each in zip(rows, *models, strict=True)]
        if inputs:
            cells = [_compact(sorted_inputs(row, self._signature)) for row in inputs]
            rows = [f'{row},"inputs":{each}' for row, each in zip(rows, cells, strict=True)]
        notes = ",".join([_warning(warning) for warning in warnings])
        body = "},{".join(rows)
        return f'{self._heads[families[0]]}{prediction_id}","predictions":[{{{body}}}],"warnings":[{notes}]}}'

    def labels(self, scores: Scores) -> list[str]:
        """Return the JSON of each predicted class or number."""
        if not all(math.isfinite(score) for row in scores for score in row):
            raise NeedsReport
        if not self._labels:
            return [repr(row[0]) for row in scores]
        return [self._labels[row.index(max(row))] for row in scores]

    def tensors(self, name: str, scores: Scores, identity: str, prediction_id: str) -> str:
        """Return the response of the Open Inference Protocol, with all outputs."""
        columns = [self.labels(scores), *([repr(row[index]) for row in scores] for index in range(len(self._labels)))]
        outputs = ",".join(
            [
                f"{before}[{len(scores)},1]{after}[{','.join(cells)}]}}"
                for (before, after), cells in zip(self._tensors, columns, strict=True)
            ]
        )
        facts: dict[str, object] = {"model_name": name, "model_version": self._version, "id": identity or prediction_id}
        facts |= {"parameters": {"prediction_id": prediction_id}}
        head = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
        return f'{head[:-1]},"outputs":[{outputs}]}}'


def _head(served: ServedModel, family: str) -> str:
    names = {"project": served.project, "version": served.version, "model": family}
    return _compact(names)[:-1] + ',"prediction_id":"'


def _tensor_template(name: str, datatype: str) -> tuple[str, str]:
    """Return the JSON of an output tensor before its shape, and between its shape and its data."""
    tensor = json.dumps(output_tensor(name, datatype), ensure_ascii=False, separators=(",", ":"))
    before, _, after = tensor.rpartition("[-1,1]")
    return before, f'{after[:-1]},"data":'


@functools.lru_cache(1024)
def _warning(warning: Problem) -> str:
    return _compact(warning.as_json())


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
