"""From what the model says of each frame to what is in view: smoothing, thresholds, presence, events."""

from clipdeploy.runtime.stream.decide.calibrate import calibrate_thresholds, negatives_needed
from clipdeploy.runtime.stream.decide.decider import Decider
from clipdeploy.runtime.stream.decide.presence import Levels
from clipdeploy.runtime.stream.decide.smoothing import Smoothing
from clipdeploy.runtime.stream.decide.thresholds import Thresholds

__all__ = ["Decider", "Levels", "Smoothing", "Thresholds", "calibrate_thresholds", "negatives_needed"]
