"""Devices: the one place that knows about CPU and GPU."""

from .base import Array, Backend, DeviceError, Replay
from .discover import gpus
from .select import KINDS, select
from .windows import Window

__all__ = ["KINDS", "Array", "Backend", "DeviceError", "Replay", "Window", "gpus", "select"]
