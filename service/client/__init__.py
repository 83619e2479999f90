"""A typed client of the service: `Client`, and `python -m service.client` on the command line."""

from service.client.client import Added, Client, Searched
from service.client.errors import ServiceError
from service.client.retries import Retries

__all__ = ["Added", "Client", "Retries", "Searched", "ServiceError"]
