"""`python -m index.duplicates`: groups of near-duplicate photos in an index."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SecretStr

from index.catalog_setting import catalog_field
from index.errors import IndexFolderError
from index.searching.alike import DUPLICATE_PROBABILITY
from multigrain.config import Config
from multigrain.files import write_via_temporary
from multigrain.locations import Location
from multigrain.program import load_config, run_main

if TYPE_CHECKING:
    from index.grouping.groups import Group
    from index.searcher import Searcher

PROG = "index.duplicates"
_MOST_PRINTED = 20


class DuplicatesConfig(Config):
    """What counts as near, and where the groups are written."""

    index: Location = Field(description="index folder, or its URL, such as s3://bucket/photos")
    cache_dir: Path | None = Field(
        default=None, description="where an index of a URL is kept; none: the user's cache"
    )
    catalog: SecretStr | None = catalog_field()
    threshold: float | None = Field(
        default=None, ge=-1, le=1, description="cosine from which two photos are near-duplicates"
    )
    probability: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description=f"the same, as a probability of the index's calibration; "
        f"{DUPLICATE_PROBABILITY} where neither is given",
    )
    method: Literal["auto", "exact", "lists"] = Field(
        default="auto",
        description="exact compares every two photos, lists searches with each; auto: exact up "
        "to 200,000 photos",
    )
    json_: Path | None = Field(default=None, description="JSON file to write, with every group")
    html: Path | None = Field(
        default=None, description="HTML file to write, with thumbnails of the largest groups"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print groups of near-duplicates and write them to files; gives the exit status."""
    config = load_config(
        DuplicatesConfig,
        prog=PROG,
        description="Group the near-duplicate photos of an index.",
        argv=sys.argv[1:] if argv is None else argv,
        environ=os.environ,
    )
    return run_main(lambda: _report(config), prog=PROG)


def _report(config: DuplicatesConfig) -> int:
    # Here, so that --help does not wait for faiss.
    from index.grouping.groups import Method, find_groups
    from index.grouping.page import groups_page
    from index.replica.source import IndexSource
    from index.searcher import Searcher

    source = IndexSource(config.index, cache_dir=config.cache_dir)
    with closing(source.open(partial(Searcher.open, catalog=config.catalog))) as searcher:
        threshold = _threshold(config, searcher)
        groups = find_groups(searcher, threshold=threshold, method=Method(config.method))
        title = _title(groups, threshold=threshold, num_live=searcher.num_live)
        print("\n".join([title, *_lines(groups)]))
        if config.json_:
            document = _document(groups, searcher.generation, threshold)
            with write_via_temporary(config.json_) as temporary:
                temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False))
        if config.html:
            parts = groups_page(groups, title=title, read_photo=searcher.read_photo)
            with write_via_temporary(config.html) as temporary, temporary.open("w") as file:
                file.writelines(parts)
    return 0


def _threshold(config: DuplicatesConfig, searcher: "Searcher") -> float:
    if config.threshold is not None and config.probability is not None:
        raise IndexFolderError("--threshold and --probability say the same: give one of them")
    if config.threshold is not None:
        return config.threshold
    calibration = searcher.calibration
    if calibration is None:
        raise IndexFolderError(
            f"{config.index}: not calibrated, so give --threshold, a cosine like 0.95, or run "
            "python -m index.calibrate"
        )
    probability = config.probability or DUPLICATE_PROBABILITY
    threshold = calibration.cosine_of(probability)
    if threshold > 1:
        raise IndexFolderError(
            f"--probability {probability:g}: not even equal photos reach it by the calibration of "
            f"{config.index}; give a smaller one, or --threshold"
        )
    return max(-1.0, threshold)


def _title(groups: "Sequence[Group]", *, threshold: float, num_live: int) -> str:
    num_photos = sum(len(group) for group in groups)
    return (
        f"{len(groups):,} groups of {num_photos:,} photos among {num_live:,}, joined by cosines "
        f"of at least {threshold:.4f}"
    )


def _lines(groups: "Sequence[Group]") -> list[str]:
    lines = []
    for number, group in enumerate(groups[:_MOST_PRINTED], start=1):
        uris = ", ".join(member.uri for member in group[:4])
        more = f" and {len(group) - 4:,} more" if len(group) > 4 else ""  # noqa: PLR2004 - on a line
        lines.append(f"{number:4d}  {len(group)} photos: {uris}{more}")
    if len(groups) > _MOST_PRINTED:
        lines.append(
            f"and {len(groups) - _MOST_PRINTED:,} more groups: --json and --html list them"
        )
    return lines


def _document(groups: "Sequence[Group]", generation: str, threshold: float) -> dict[str, Any]:
    return {
        "generation": generation,
        "threshold": threshold,
        "groups": [
            [member._asdict() | {"id": str(member.id)} for member in group] for group in groups
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
