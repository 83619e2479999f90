"""What can be set about the service, with defaults that fit a laptop."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from index.backend import BackendName, backend_field, milvus_uri_field
from index.catalog_setting import catalog_field
from multigrain.config import Config
from multigrain.locations import Location
from multigrain.photo_limits import FORMATS, PhotoFormat
from service.watching.logs import LogFormat


class Settings(Config):
    """Settings of `python -m service`; each is a flag and an environment variable."""

    index: Location = Field(
        description="index folder, as made by index.build, or the URL it was sent to by index.push"
    )
    catalog: SecretStr | None = catalog_field()
    backend: BackendName | None = backend_field()
    milvus_uri: SecretStr | None = milvus_uri_field()
    checkpoint: Location | None = Field(
        None, description="checkpoint file or its URL; default: the copy in the index folder"
    )
    mapped: bool = Field(
        False, description="read the index's lists from their files as needed, not into memory"
    )
    search_device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda(:[0-9]+)?)$",
        description="where the index's lists are searched: cpu, or cuda or cuda:N with faiss-gpu",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port of its own for /metrics; default: the service's"
    )
    log_format: LogFormat = Field("text", description="form of the log lines")
    telemetry: bool = Field(
        False, description="send OpenTelemetry to where OTEL_EXPORTER_OTLP_ENDPOINT says"
    )
    device: str = Field("auto", description="auto, cpu or cuda")
    cache_dir: Path | None = Field(
        None,
        description="where converted CPU models and the index of a URL are kept; default: the "
        "user's cache folder",
    )
    max_batch: int | None = Field(
        None, ge=1, description="photos in one forward pass; default: 8, on a GPU 32"
    )
    max_wait_ms: float | None = Field(
        None,
        ge=0,
        description="how long a batch waits for requests whose photo is being decoded; default: "
        "4, on a CPU 200: decoding and the model take turns there",
    )
    max_queue: int = Field(128, ge=1, description="requests on their way before others get 429")
    per_client_inflight: int | None = Field(
        None,
        ge=1,
        description="of these, one API key's; default: a quarter; without keys nobody is counted",
    )
    decode_threads: int | None = Field(
        None,
        ge=1,
        description="threads that decode photos; default: one a processor, beside a GPU at most 8",
    )
    max_body_bytes: int = Field(10 * 2**20, ge=1, description="largest request body")
    image_url: bool = Field(
        False, description="fetch photos that searches name by image_url, from public addresses"
    )
    max_pixels: int = Field(50_000_000, ge=1, description="largest photo, width x height")
    max_side: int = Field(20_000, ge=1, description="longest side of a photo in pixels")
    min_side: int = Field(1, ge=1, description="shortest side of a photo in pixels")
    formats: list[PhotoFormat] = Field(
        list(FORMATS),
        min_length=1,
        description="formats of photos that are decoded, of these, HEIF with the extra heif; "
        "repeatable",
    )
    max_inflight_pixels: int = Field(
        200_000_000,
        ge=1,
        description="pixels being decoded at once, which bounds decode_threads; a pixel takes 8 "
        "to 12 bytes of memory, in a TIFF of 32 bits up to 25",
    )
    max_limit: int = Field(100, ge=1, le=1000, description="largest `limit` of a search")
    max_nprobe: int = Field(1024, ge=1, description="largest `nprobe` of a search")
    exact_max_photos: int = Field(
        20_000, ge=0, description="largest collection that `exact` compares whole; 0 never does"
    )
    embedding_cache: int = Field(
        4096, ge=0, description="photos whose embedding is remembered by the hash of their bytes"
    )
    request_timeout_ms: int = Field(
        5000, ge=10, description="time from the complete body to the answer"
    )
    body_timeout_s: float = Field(15.0, gt=0, description="time a body may take to arrive")
    keep_alive_s: int = Field(
        5, ge=1, description="time an idle connection is kept for another request"
    )
    stuck_after_s: float = Field(
        30.0, gt=0, description="time in one forward pass after which the model counts as dead"
    )
    drain_grace_s: float = Field(
        5.0, ge=0, description="time between SIGTERM and closing the port, for a balancer to notice"
    )
    shutdown_timeout_s: int = Field(
        25, ge=1, description="time that requests under way may take after that"
    )
    revision: str | None = Field(
        None, description="commit this was built from, told by GET /version; images set it"
    )
    reload_poll_s: float | None = Field(
        None,
        ge=0,
        description="how often CURRENT is looked at for a new generation; 0: never; default: "
        "never in a folder, every 30 seconds at a URL",
    )
    adds: bool = Field(
        False, description="take adds and deletes: POST /images, DELETE /images/{id}"
    )
    adds_poll_s: float = Field(
        2.0, gt=0, description="how often is looked for what another service added or deleted"
    )
    api_key: list[SecretStr] = Field(
        [], description="key that reading asks for; repeatable; none: reading is open to all"
    )
    admin_key: list[SecretStr] = Field(
        [], description="key that administration asks for; repeatable; none: it is refused to all"
    )
    cors_origins: list[str] = Field(
        [], description="origins whose pages may ask, such as https://example.org; repeatable"
    )

    @field_validator("api_key", "admin_key")
    @classmethod
    def _keys_are_keys(cls, keys: list[SecretStr]) -> list[SecretStr]:
        for key in keys:
            text = key.get_secret_value()
            # --print-config shows stars, and what it prints is a file of settings.
            if not text.strip("*") or text != text.strip():
                raise ValueError("a key is empty, stars alone, or has blanks around it")
        return keys

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_named(cls, origins: list[str]) -> list[str]:
        if "*" in origins:
            raise ValueError("name the origins; '*' would let every page ask")
        return origins
