"""The modules of Nielsen's *Neural Networks and Deep Learning*, over `xnn.Network`.

``from xnn.book import network, mnist_loader`` in the place of ``import network, mnist_loader``, and
what was written for the book runs as before: the same names, arguments, random numbers and printed
lines. ``device`` and ``dtype`` (float64 unless something else is said) are all that is new.
"""

from . import mnist_loader, network, network2, network3

__all__ = ["mnist_loader", "network", "network2", "network3"]
