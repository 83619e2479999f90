"""Who may ask for what: one table of the routes."""

from collections.abc import Mapping
from enum import Enum


class Access(Enum):
    """What a request needs: nothing, a key where keys are set, or an admin key in any case."""

    OPEN = "open"
    READ = "read"
    ADMIN = "admin"


# Paths as the routes name them. What is not here is no route, and asks for a key like a search.
ACCESS: Mapping[tuple[str, str], Access] = {
    ("GET", "/"): Access.OPEN,
    ("GET", "/page/{path:path}"): Access.OPEN,
    ("GET", "/docs"): Access.OPEN,
    ("GET", "/openapi.json"): Access.OPEN,
    ("GET", "/health"): Access.OPEN,
    ("GET", "/livez"): Access.OPEN,
    ("GET", "/readyz"): Access.OPEN,
    ("GET", "/metrics"): Access.OPEN,
    ("GET", "/version"): Access.OPEN,
    ("POST", "/search"): Access.READ,
    ("POST", "/search/batch"): Access.READ,
    ("POST", "/embed"): Access.READ,
    ("GET", "/images"): Access.READ,
    ("POST", "/images"): Access.ADMIN,
    ("GET", "/images/{image_id}"): Access.READ,
    ("DELETE", "/images/{image_id}"): Access.ADMIN,
    ("GET", "/images/{image_id}/similar"): Access.READ,
    ("GET", "/images/{image_id}/thumbnail"): Access.READ,
    ("GET", "/index"): Access.READ,
    ("POST", "/admin/reload"): Access.ADMIN,
    ("GET", "/admin/reload/{job_id}"): Access.ADMIN,
}
