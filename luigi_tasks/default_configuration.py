"""Use the bundled luigi.cfg for options that are not configured otherwise."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import luigi

DEFAULTS = Path(__file__).with_name("luigi.cfg")


def apply_default_configuration() -> None:
    """Set every default option that is missing from Luigi's configuration."""
    configuration = luigi.configuration.get_config()
    defaults = ConfigParser()
    defaults.read(DEFAULTS)
    for section in defaults.sections():
        for option, value in defaults.items(section):
            if not configuration.has_option(section, option):
                configuration.set(section, option, value)
