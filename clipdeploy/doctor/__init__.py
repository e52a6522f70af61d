"""What this machine has, what is wrong with it, and what to install on it."""

from __future__ import annotations

from clipdeploy.doctor.diagnosis import diagnose
from clipdeploy.doctor.records import Advice, Diagnosis, Fact, Problem
from clipdeploy.machine.jetson import Jetson
from clipdeploy.machine.probes import Imported, Probes, this_machine

__all__ = ["Advice", "Diagnosis", "Fact", "Imported", "Jetson", "Probes", "Problem", "diagnose", "this_machine"]
