"""Log lines for people, or one JSON object each for whatever collects them."""

import json
import logging
import time
from typing import Literal

LogFormat = Literal["text", "json"]

# What every record has; the rest was given as `extra` and belongs to the line.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """Time in UTC, level, logger, message and whatever was given beside it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON; a traceback is one text in it."""
        fields: dict[str, object] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def set_up_logging(form: LogFormat) -> None:
    """Write our lines and the server's to standard error."""
    handler = logging.StreamHandler()
    if form == "json":
        formatter: logging.Formatter = JsonFormatter()
        formatter.converter = time.gmtime
    else:
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler])
    for ours in ("service", "index", "multigrain"):
        logging.getLogger(ours).setLevel(logging.INFO)
