"""`python -m service.healthcheck`: exit code 0 when the service answers searches.

For the HEALTHCHECK of a container; the standard library alone, so that it starts at once.
"""

import argparse
import os
import sys
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

TIMEOUT_SECONDS = 3.0


def check(url: str) -> str | None:
    """Ask for the health of the service at `url`; None when it is well, else what is wrong."""
    opener = build_opener(ProxyHandler({}))  # a container's proxy does not lead back to itself
    try:
        with opener.open(f"{url.rstrip('/')}/health", timeout=TIMEOUT_SECONDS):
            return None
    except HTTPError as error:
        with error:
            return f"{url} answers {error.code}: {error.read(200).decode(errors='replace')}"
    except (OSError, HTTPException, ValueError) as error:
        return f"{url} does not answer: {error}"


def main() -> int:
    """Print what is wrong, if anything."""
    parser = argparse.ArgumentParser(
        prog="python -m service.healthcheck", description="Ask a running service for its health."
    )
    port = os.environ.get("MULTIGRAIN_PORT", "8000")  # the service's own, in its container
    parser.add_argument(
        "--url", default=f"http://127.0.0.1:{port}", help="address of the service (%(default)s)"
    )
    fault = check(parser.parse_args().url)
    if fault is not None:
        print(fault, file=sys.stderr)
    return 0 if fault is None else 1


if __name__ == "__main__":
    sys.exit(main())
