"""Checks of a machine and of a job, before a run costs money: small functions in one table, none of which needs Ray."""

from pipeline.doctor.check import Check, Context, Finding, Level, Place, Result, Survey
from pipeline.doctor.checks import CHECKS, checks_at
from pipeline.doctor.examine import examine

__all__ = ["CHECKS", "Check", "Context", "Finding", "Level", "Place", "Result", "Survey", "checks_at", "examine"]
