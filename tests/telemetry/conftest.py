"""Servers as processes of their own, for what only real sockets show."""

from tests.e2e import conftest

start_server = conftest.start_server
