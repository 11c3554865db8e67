"""Labels that are known by the values of inputs, not by prediction ids."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from podium.prediction_log.label_keys import FoundLabels, find_predictions
from podium.prediction_log.prediction_table import Privacy
from podium.project import Project
from podium.registry.promotion import PromotionContext
from podium.schema.data_errors import BadData
from podium.tables.panel import ACTUAL, DAY, INDEX, LAST
from tests import tables
from tests.conftest import publish_champion
from tests.integration.monitoring.test_daily_report import OPTIONS, Log
from tests.unit.training.test_panel import shops

pytestmark = pytest.mark.slow


@pytest.fixture
def prices(context: PromotionContext) -> Log:
    return Log(context, publish_champion(context, tables.prices(), Project(name="prices", target="price", **OPTIONS)))


def found(log: Log, text: str, days: int = 30) -> FoundLabels:
    return find_predictions(log.context.store, log.manifest.project, log.manifest.signature, text.encode(), days)


def test_labels_find_the_predictions_of_their_inputs(prices: Log) -> None:
    frame = pd.DataFrame({"area": [20.5, 30.0, 30.0, 41.0], "rooms": [1.0, 2.0, 3.0, 4.0]})
    first = prices.write("2026-11-01", frame)[0]
    second = prices.write("2026-11-03", frame.iloc[[1]].reset_index(drop=True))[0]
    result = found(prices, "note,area,rooms,price\na,20.5,1.0,100\nb,30,2,200\nc,41,9,300\nd,41,4,\n")
    assert sorted(result.labels.itertuples(index=False, name=None)) == sorted(
        [(first, 1, "100"), (first, 2, "200"), (second, 1, "200")]
    )
    assert (result.keys, result.unused) == (["area", "rooms"], ["note"])
    assert (result.rows, result.unmatched, result.unlabelled) == (4, [3], 1)
    assert found(prices, "area,price\n30,7\n").labels["prediction_id"].tolist() == [second, first, first]
    assert found(prices, "area,price\n30,7\n", days=1).labels["prediction_id"].tolist() == [second]
    assert found(prices, "area,price\n99,7\n").unmatched == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("area,cost\n1,2\n", '"price" is required'),
        ("street,price\nx,2\n", "at least one input is required"),
        ("area,price\nlarge,2\n", "area"),
    ],
)
def test_a_file_without_label_or_keys_is_refused(prices: Log, text: str, message: str) -> None:
    with pytest.raises(BadData) as error:
        found(prices, text)
    assert message in str(error.value.problems[0])


def test_hashed_and_excluded_inputs_are_no_keys(prices: Log) -> None:
    frame = pd.DataFrame({"area": [20.5], "rooms": [1.0]})
    prices.write("2026-11-01", frame, Privacy(exclude=("area",), hash=("rooms",), key=b"k"))
    assert found(prices, "area,price\n20.5,1\n").unmatched == [1]
    with pytest.raises(BadData, match="only its hash is in the log"):
        found(prices, "rooms,price\n1,1\n")


def test_labels_of_a_panel_find_the_forecasts_of_their_day(context: PromotionContext) -> None:
    fields = {"name": "shops", "target": "sold", "panel": {"entity": "shop", "time": "day", "lags": 2}, **OPTIONS}
    log = Log(context, publish_champion(context, shops(count=4, days=100), Project.model_validate(fields)))
    frame, _ = log.sample()
    rows = len(frame)
    days = np.repeat(pd.Timestamp("2026-11-02").timestamp() / 86400, rows)
    keys = {INDEX: np.arange(rows) * 1.0, DAY: days, ACTUAL: np.full(rows, np.nan), LAST: np.ones(rows)}
    log.write("2026-11-01", frame, keys=keys)
    shop = str(frame["shop"][0])
    result = found(log, f"shop,day,sold,price\n{shop},2026-11-02,5,1\n{shop},2026-11-09,6,1\n")
    assert len(result.labels) == int((frame["shop"] == shop).sum()) and result.unmatched == [2]
    with pytest.raises(BadData, match="both of the key columns"):
        found(log, f"shop,sold\n{shop},5\n")
