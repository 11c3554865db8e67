"""Days of a schedule, and deadlines."""

from __future__ import annotations

from datetime import date, datetime, time
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

SCHEDULES = {"daily": "0 0 * * *", "weekly": "0 0 * * 0", "monthly": "0 0 1 * *"}
END_OF_DAY = time(23, 59)


def days_of(schedule: str, after: date, until: date) -> list[date]:
    """Return the days after `after`, up to `until`, of a name in SCHEDULES or a cron expression. Raises CronSimError."""
    moments = CronSim(SCHEDULES.get(schedule, schedule), datetime.combine(after, END_OF_DAY))
    return list(dict.fromkeys(takewhile(lambda day: day <= until, (moment.date() for moment in moments))))


def deadline_of(deadline: str, day: date) -> datetime:
    """Return the moment of a time such as `16:15 America/New_York` on a day. Raises ValueError, ZoneInfoNotFoundError."""
    clock, _, zone = deadline.partition(" ")
    return datetime.combine(day, time.fromisoformat(clock), ZoneInfo(zone or "UTC"))
