"""The task graph, from a table on S3 to the champion: `luigi --module luigi_tasks Pipeline --project NAME`."""

from luigi_tasks import open_lineage as open_lineage
from luigi_tasks import progress as progress
from luigi_tasks.batch import CheckDeadline, PredictBatch
from luigi_tasks.default_configuration import apply_default_configuration
from luigi_tasks.monitor import Monitor
from luigi_tasks.parts import PartsWorker, PredictParts
from luigi_tasks.promotion_tasks import PromoteVersion, Rollback
from luigi_tasks.retrain import RangeWeekly, Retrain, RetrainDue
from luigi_tasks.stage import Ingest, SnapshotInput
from luigi_tasks.tasks import (
    Clean,
    Compare,
    Ensemble,
    Explore,
    Features,
    Pipeline,
    Promote,
    Publish,
    Rank,
    Select,
    Train,
)

apply_default_configuration()

__all__ = [
    "CheckDeadline",
    "Clean",
    "Compare",
    "Ensemble",
    "Explore",
    "Features",
    "Ingest",
    "Monitor",
    "PartsWorker",
    "Pipeline",
    "PredictBatch",
    "PredictParts",
    "Promote",
    "PromoteVersion",
    "Publish",
    "RangeWeekly",
    "Rank",
    "Retrain",
    "RetrainDue",
    "Rollback",
    "Select",
    "SnapshotInput",
    "Train",
]
