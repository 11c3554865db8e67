"""Render predictions as JSON, with templates compiled for a version."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from podium.inference.explanations import Explanation
from podium.inference.panel import Scores as FamilyScores
from podium.inference.panel import forecast_rows
from podium.inference.parsed_rows import ParsedRows
from podium.inference.plain_records import Row
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
    """The templates of one version. Numbers that are not finite become null, because JSON cannot represent them."""

    def __init__(self, served: ServedModel) -> None:
        target = served.signature.target
        self._version, self._target = served.version, target
        self._classes = [(json.dumps(label), json.dumps(str(label))) for label in target.classes]
        self._heads = {family: _head(served, family) for family in served.models}
        self._predictions = {family: self._template(served.half_width(family)) for family in served.models}
        self._tensors = [_tensor_template(name, kind) for name, kind in output_types(served.signature).items()]
        used = [(index, column) for index, column in enumerate(served.signature.inputs) if column.used]
        self._columns = sorted(used, key=lambda pair: pair[1].name)
        self._names = {column.name: json.dumps(column.name) for column in served.signature.inputs}
        self._labels = [json.dumps(label, ensure_ascii=False) for label in target.classes]

    def _template(self, half_width: float | None) -> Callable[[Sequence[float]], str]:
        """Return the function that renders the fields of one prediction; numbers that are not finite become null."""
        classes, labels = self._classes, [label for label, _ in self._classes]
        predicted, decision = self._target.predicted_index, self._target.decision
        if len(classes) == 2:
            (_, first_name), (_, second_name) = classes
            two_labels = [f'"prediction":{label},"probabilities":{{{first_name}:' for label in labels]

        def of_two_classes(scores: Sequence[float]) -> str:
            first, second = scores
            if not math.isfinite(first + second):
                return of_classes(scores)
            chosen = second > first if decision is None else predicted(scores)
            return f"{two_labels[chosen]}{first!r},{second_name}:{second!r}}}"

        def of_classes(scores: Sequence[float]) -> str:
            label = labels[predicted(scores)]
            probabilities = ",".join([f"{name}:{_number(score)}" for (_, name), score in zip(classes, scores, strict=True)])
            return f'"prediction":{label},"probabilities":{{{probabilities}}}'

        def of_number(scores: Sequence[float]) -> str:
            (number,) = scores
            if half_width is None:
                return f'"prediction":{_number(number)}'
            return f'"prediction":{_number(number)},"interval":[{_number(number - half_width)},{_number(number + half_width)}]'

        return of_two_classes if len(classes) == 2 else of_classes if classes else of_number

    def rows(
        self, scores: Mapping[str, Scores], inputs: Sequence[Row] | None = None, explanations: Sequence[Explanation] = ()
    ) -> list[str]:
        """Return the JSON object of each row; the first family of `scores` is the main one, which is explained."""
        families = list(scores)
        rows = list(map(self._predictions[families[0]], scores[families[0]]))
        if len(families) > 1:
            models = [[f"{json.dumps(name)}:{{{self._predictions[name](row)}}}" for row in scores[name]] for name in families]
            rows = [f'{row},"models":{{{",".join(each)}}}' for row, *each in zip(rows, *models, strict=True)]
        if inputs:
            cells = [_compact(sorted_inputs(row, self._columns)) for row in inputs]
            rows = [f'{row},"inputs":{each}' for row, each in zip(rows, cells, strict=True)]
        if explanations:
            rows = [f"{row},{self._explanation(each)}" for row, each in zip(rows, explanations, strict=True)]
        return [f"{{{row}}}" for row in rows]

    def _explanation(self, explanation: Explanation) -> str:
        contributions = ",".join([f"{self._names[name]}:{_number(number)}" for name, number in explanation.strongest])
        label = "" if explanation.label is None else f'"class":{json.dumps(explanation.label)},'
        sums = f'"base":{_number(explanation.base)},"contributions":{{{contributions}}},"others":{_number(explanation.others)}'
        return f'"explanation":{{"scale":"{explanation.scale}",{label}{sums}}}'

    def response(self, family: str, rows: Sequence[str], prediction_id: str, warnings: Sequence[Problem]) -> str:
        """Return the response with these rows; `family` is the main one."""
        notes = ",".join([_warning(warning) for warning in warnings])
        return f'{self._heads[family]}{prediction_id}","predictions":[{",".join(rows)}],"warnings":[{notes}]}}'

    def labels(self, scores: Scores) -> list[str]:
        """Return the JSON of each predicted class or number."""
        if not self._labels:
            return [_number(row[0]) for row in scores]
        return [self._labels[self._target.predicted_index(row)] for row in scores]

    def tensors(self, name: str, scores: Scores, identity: str, prediction_id: str) -> str:
        """Return the response of the Open Inference Protocol, with all outputs."""
        columns = [self.labels(scores), *([_number(row[index]) for row in scores] for index in range(len(self._labels)))]
        outputs = ",".join(
            [
                f"{before}[{len(scores)},1]{after}[{','.join(cells)}]}}"
                for (before, after), cells in zip(self._tensors, columns, strict=True)
            ]
        )
        head = (
            f'{{"model_name":{json.dumps(name)},"model_version":"{self._version}","id":{json.dumps(identity or prediction_id)}'
        )
        return f'{head},"parameters":{{"prediction_id":"{prediction_id}"}},"outputs":[{outputs}]}}'


def prediction_rows(
    served: ServedModel,
    scores: FamilyScores,
    rows: ParsedRows,
    with_inputs: bool = False,
    explanations: Sequence[Explanation] = (),
) -> list[str]:
    """Return the JSON object of each row, or of each forecast of a panel; an invalid row gets its errors."""
    if served.signature.panel:
        return list(map(_compact, forecast_rows(served.signature.panel, rows, scores)))
    lists = {family: np.asarray(matrix, dtype=float).tolist() for family, matrix in scores.items()}
    valid = renderer_for(served).rows(lists, rows.as_rows() if with_inputs else None, explanations)
    if not rows.invalid_rows:
        return valid
    remaining, invalid = iter(valid), rows.invalid_rows
    return [
        _compact({"errors": [problem.as_json() for problem in invalid[index]]}) if index in invalid else next(remaining)
        for index in range(rows.total)
    ]


def _number(number: float) -> str:
    return repr(number) if math.isfinite(number) else "null"


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
    return msgspec.json.encode(value).decode()
