"""The task graph, from a table on S3 to the champion: `luigi --module luigi_tasks Pipeline --project NAME`."""

from luigi_tasks import progress as progress
from luigi_tasks.acts import PromoteVersion, Rollback
from luigi_tasks.batch import PredictBatch
from luigi_tasks.tasks import Clean, Explore, Features, Ingest, Pipeline, Promote, Publish, Rank, Select, Snapshot, Train

__all__ = [
    "Clean",
    "Explore",
    "Features",
    "Ingest",
    "Pipeline",
    "PredictBatch",
    "Promote",
    "PromoteVersion",
    "Publish",
    "Rank",
    "Rollback",
    "Select",
    "Snapshot",
    "Train",
]
