"""The daily report of a project: drift, errors and alarms."""
