"""The modules of Nielsen's *Neural Networks and Deep Learning*, over `xnn.Network`.

With ``from xnn.book import network, mnist_loader`` instead of ``import network, mnist_loader``,
programs written for the book run as before: with the same names, arguments, random numbers and
printed lines. Only ``device`` and ``dtype`` (by default float64) are new.
"""

from . import mnist_loader, network, network2, network3

__all__ = ["mnist_loader", "network", "network2", "network3"]
