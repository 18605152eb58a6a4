"""The server's log: JSON objects, one a line, on standard error. It holds no tensor, no token, no whole session id."""

import json
import logging
import sys
import time
from typing import Any


def configure(level: str, *, access_log: bool) -> None:
    """Sends what the server and its libraries log to standard error, from this level on, with every call if wanted."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("backwire.access").disabled = not access_log


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object; what was passed as `extra={"data": {...}}` becomes members of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, without its end."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "data", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
