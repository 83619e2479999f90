"""What a build found and did."""

from typing import NamedTuple

from index.catalog_scan import ScanCounts
from index.codebook.footprint import MemoryCheck
from index.codebook.train import Codebook
from index.embed import EmbedReport
from index.encode import row_ranges
from index.manifest import CalibrationPart, Manifest, SearchPart
from index.store import bytes_below
from index.workshop import Workshop


class BuildReport(NamedTuple):
    """What a build found and did; `generation` is the live one, new or not, None before any.

    `num_photos`, `num_rows`, `num_live`, `num_bad`, `num_bytes` and `calibration` are the index's;
    `scanned`, `num_renamed`, `embedded`, `seconds` of each stage and `memory` this build's.
    """

    generation: str | None
    is_new_generation: bool
    num_photos: int
    num_rows: int
    num_live: int
    num_bad: int
    factory: str | None
    search: SearchPart | None
    seconds: dict[str, float]
    num_bytes: int
    scanned: ScanCounts | None = None
    num_renamed: int = 0
    embedded: EmbedReport | None = None
    memory: MemoryCheck | None = None
    calibration: CalibrationPart | None = None

    @property
    def num_new(self) -> int:
        """Contents that were embedded."""
        return self.embedded.num_new if self.embedded else 0


def report_of(
    shop: Workshop,
    manifest: Manifest | None,
    codebook: Codebook | None,
    *,
    seconds: dict[str, float],
) -> BuildReport:
    """What there is behind a build; what it scanned and embedded is left to be said."""
    live, photos = manifest or shop.parent, shop.journal.counts()
    parent = shop.parent.generation if shop.parent else None
    return BuildReport(
        generation=live.generation if live else None,
        is_new_generation=manifest is not None and manifest.generation != parent,
        num_photos=photos.photos,
        num_rows=sum(part.n for part in row_ranges(shop.layout, shop.journal)),
        num_live=len(shop.journal.live_ids()),
        num_bad=photos.quarantined,
        factory=codebook.factory if codebook else None,
        search=live.search if live else None,
        seconds=seconds,
        num_bytes=bytes_below(shop.layout.folders),
        calibration=live.calibration if live else None,
    )
