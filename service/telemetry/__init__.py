"""Telemetry: logs, and the metrics of one process or of several in one scrape."""

from service.telemetry.access_entry import Entry
from service.telemetry.access_log import AccessLog
from service.telemetry.gauges import Gauges
from service.telemetry.lag import watch_lag
from service.telemetry.logs import Level, level_of, set_level, set_up_logs
from service.telemetry.metrics import CONTENT_TYPE, Phase, Stage, Telemetry
from service.telemetry.shared_values import SharedValues, directory
from service.telemetry.statistics import Statistics

__all__ = [
    "CONTENT_TYPE",
    "AccessLog",
    "Entry",
    "Gauges",
    "Level",
    "Phase",
    "SharedValues",
    "Stage",
    "Statistics",
    "Telemetry",
    "directory",
    "level_of",
    "set_level",
    "set_up_logs",
    "watch_lag",
]
