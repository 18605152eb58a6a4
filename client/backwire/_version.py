"""The version of this client, which servers are told, too."""

from importlib import metadata

try:
    __version__ = metadata.version("backwire")
except metadata.PackageNotFoundError:  # used from the source tree
    __version__ = "0+source"
