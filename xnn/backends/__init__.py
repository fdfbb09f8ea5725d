"""Devices: the one place that knows about CPU and GPU."""

from .base import Array, Backend, DeviceError, Replay
from .select import select

__all__ = ["Array", "Backend", "DeviceError", "Replay", "select"]
