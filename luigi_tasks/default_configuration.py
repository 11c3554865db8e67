"""The options of luigi.cfg for runs in a folder without that file."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import luigi

DEFAULTS = Path(__file__).with_name("luigi.cfg")


def apply_default_configuration() -> None:
    """Set each option that the configuration Luigi has read does not have."""
    configuration = luigi.configuration.get_config()
    defaults = ConfigParser()
    defaults.read(DEFAULTS)
    for section in defaults.sections():
        for option, value in defaults.items(section):
            if not configuration.has_option(section, option):
                configuration.set(section, option, value)
