"""The live page: picture, bars, events, and a box for labels; served by the standard library alone."""

from clipdeploy.watch.web.address import WebAddress, web_address
from clipdeploy.watch.web.server import WebServer

__all__ = ["WebAddress", "WebServer", "web_address"]
