"""Devices: the one place that knows about CPU and GPU."""

from .base import Array, Backend, DeviceError, Replay
from .compiler import command as compiler_command
from .discover import gpus
from .select import KINDS, select
from .windows import Window

__all__ = [
    "KINDS",
    "Array",
    "Backend",
    "DeviceError",
    "Replay",
    "Window",
    "compiler_command",
    "gpus",
    "select",
]
