"""What the commands of `python -m service.client` take, each a flag and an environment variable."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr

from index.searching.alike import Dedup
from multigrain.config import Config, ConfigError
from service.client.client import DEFAULT_URL, Client, SearchParameters


def json_object(text: str) -> dict[str, Any]:
    """An object that a flag spells out; raises ConfigError."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{text!r} is no JSON object")
    return value


class _Connection(Config):
    """What every command takes."""

    url: str = Field(DEFAULT_URL, description="address of the service")
    api_key: SecretStr | None = Field(
        None, description="key; better in the environment, where other users cannot see it"
    )
    output: Literal["text", "json"] = Field(
        "text", description="form of the answer; --json is short for --output json"
    )

    def connect(self) -> Client:
        """A client with this address and key."""
        key = None if self.api_key is None else self.api_key.get_secret_value()
        return Client(self.url, api_key=key)


class _Search(_Connection):
    """What every search is asked."""

    limit: int = Field(10, ge=1, description="neighbours to print")
    min_score: float | None = Field(None, ge=-1, le=1, description="smallest cosine to print")
    recall: float | None = Field(
        None, gt=0, le=1, description="recall@10 to search with instead of the tuned one"
    )
    min_probability: float | None = Field(
        None, ge=0, le=1, description="leave out neighbours that show the same thing with less"
    )
    rerank: Literal["none", "aqe", "kreciprocal"] = Field(
        "none", description="another order than that of the cosines"
    )
    dedup: Dedup = Field(
        default=False,
        description="collapse near-duplicates: true, or the cosine from which two photos are some",
    )
    filter: str | None = Field(
        None,
        description="conditions that the photos found must meet, as JSON: "
        '{"must": [{"field": "label", "eq": "cat"}]}',
    )

    def parameters(self) -> SearchParameters:
        """What was given, as the client takes it; raises ConfigError."""
        # Of the later ones only what was asked for: an older service knows none of them.
        parameters: SearchParameters = {"limit": self.limit}
        if self.rerank != "none":
            parameters["rerank"] = self.rerank
        if self.dedup is not False:
            parameters["dedup"] = self.dedup
        if self.min_score is not None:
            parameters["min_score"] = self.min_score
        if self.min_probability is not None:
            parameters["min_probability"] = self.min_probability
        if self.recall is not None:
            parameters["recall"] = self.recall
        if self.filter is not None:
            parameters["filter"] = json_object(self.filter)
        return parameters


class SearchCommand(_Search):
    """A search with a photo."""

    photo: Path = Field(description="photo to search with; may be given without the flag")
    augment: Literal["none", "flip", "multiscale", "flip_multiscale"] = Field(
        "none", description="what else to search with at once: mirror image, other sizes, or both"
    )

    def parameters(self) -> SearchParameters:
        """What was given, as the client takes it; raises ConfigError."""
        parameters = super().parameters()
        if self.augment != "none":
            parameters["augment"] = self.augment
        return parameters


class SimilarCommand(_Search):
    """A search with a photo of the index."""

    id: str = Field(description="id of a hit; may be given without the flag")


class EmbedCommand(_Connection):
    """What is to be embedded."""

    photo: Path = Field(description="photo to embed; may be given without the flag")


class AddCommand(_Connection):
    """What is to be added."""

    photo: Path = Field(description="photo to add; may be given without the flag")
    metadata: str = Field("{}", description="attributes of the photo, as a JSON object")


class DeleteCommand(_Connection):
    """What is to be deleted."""

    id: str = Field(description="id of the photo; may be given without the flag")


class HealthCommand(_Connection):
    """What is asked of the health."""

    wait: float = Field(0.0, ge=0, description="seconds to wait until searches are answered")
