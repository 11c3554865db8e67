"""The `podium` command."""

from __future__ import annotations

import click

from podium import __version__
from podium.cli.lazy_group import LazyGroup

COMMANDS = {
    "accept": "podium.local.commands:accept",
    "champions": "podium.cli.champions:champions_",
    "check-store": "podium.cli.check_store:check_store_",
    "config": "podium.cli.serve:config",
    "demo": "podium.local.commands:demo",
    "drill": "podium.local.commands:drill",
    "fsck": "podium.cli.fsck:fsck_",
    "gc": "podium.cli.gc:gc",
    "keys": "podium.cli.keys:keys",
    "labels": "podium.cli.labels:labels_",
    "lineage": "podium.cli.lineage:lineage_",
    "models": "podium.cli.models:models",
    "monitor": "podium.cli.monitor:monitor_",
    "predict": "podium.cli.predict:predict",
    "projects": "podium.cli.projects:projects",
    "retrains": "podium.cli.retrains:retrains",
    "serve": "podium.cli.serve:serve",
    "smoke": "podium.local.commands:smoke",
    "verify": "podium.cli.verify:verify",
}


@click.group(cls=LazyGroup, lazy_commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def podium() -> None:
    """Train models on a table in S3 and serve the best one.

    \b
    podium demo                             try everything on this machine
    luigi --module luigi_tasks Pipeline --project NAME
                                            train, publish and promote
    podium models list NAME                 show the versions
    podium serve                            serve the champions
    podium predict --project NAME rows.csv  predict a file

    S3 is configured by the standard AWS_… variables, everything else by PODIUM_… variables (`podium config show`).

    \b
    Exit codes:
      0  success
      1  invalid configuration, or a failed check
      2  wrong usage
      3  rejected by a gate, an import check or the data validation
      4  the champion has changed in the meantime
      5  not found, object store unavailable, or damaged data
    """


if __name__ == "__main__":
    podium()
