"""What a build says at its end: a table of what it found, did and took."""

from collections.abc import Iterator

from index.build_report import BuildReport
from index.codebook.footprint import human_bytes
from index.layout import Layout

_WIDTH = 16


def summary(report: BuildReport, layout: Layout, *, until: str) -> str:
    """A line for each thing; stages that were not run have none."""
    lines = [f"{name:{_WIDTH}}{value}" for name, value in _table(report, layout)]
    if report.search and report.search.nprobe is not None:
        search = report.search
        depth = f"nprobe {search.nprobe}, rerank {search.rerank}"
        recall = f"recall@10 {search.recall:.4f}, at least {search.recall_lower:.4f}"
        lines.append(f"tuned to {depth}: {recall}")
    if report.memory and report.memory.is_outside:
        taken, expected = (human_bytes(part) for part in reversed(report.memory))
        lines.append(f"memory: {taken} taken by this process, {expected} expected")
    if report.is_new_generation:
        lines.append(f"published generation {report.generation} in {layout.root}")
    elif until != "publish":
        lines.append(f"stopped behind stage {until}: nothing is published")
    else:
        lines.append(f"nothing changed: generation {report.generation} stays")
    return "\n".join(lines)


def _table(report: BuildReport, layout: Layout) -> Iterator[tuple[str, str]]:
    yield "photos", f"{report.num_photos}"
    if report.scanned:
        scanned, renamed = report.scanned, report.num_renamed
        yield "  found", f"{scanned.found}"
        yield "  unchanged", f"{scanned.found - scanned.changed}"
        yield "  renamed", f"{renamed}"
        yield "  vanished", f"{max(scanned.gone - renamed, 0)}"
    if report.embedded:
        yield "  new", f"{report.embedded.num_new}"
        yield "  known", f"{max(report.embedded.num_known - report.num_renamed, 0)}"
    yield "  bad", _bad(report, layout)
    factory = f", factory {report.factory}" if report.factory else ""
    yield "rows", f"{report.num_rows} ({report.num_live} live){factory}"
    if report.generation:
        yield "calibration", _calibration(report)
    times = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report.seconds.items())
    yield "seconds", f"{sum(report.seconds.values()):.1f}: {times}"
    if report.embedded and report.embedded.num_photos:
        yield "photos/s", f"{report.embedded.rate:.1f} ({report.embedded.limit} limits)"
        yield "bytes read", human_bytes(report.embedded.num_bytes)
    yield "bytes of index", human_bytes(report.num_bytes)


def _calibration(report: BuildReport) -> str:
    """What it was fitted to: a build keeps an older one, and an index begins without."""
    part = report.calibration
    if part is None:
        return "none, so no same_probability: python -m index.calibrate learns it"
    if part.generation is None:
        return f"of an earlier generation, fitted to {part.source}"
    if part.generation == report.generation:
        return f"of this generation, fitted to {part.source}"
    return (
        f"kept from generation {part.generation}, fitted to {part.source} when {part.live} photos "
        f"were live; {report.num_live} are now"
    )


def _bad(report: BuildReport, layout: Layout) -> str:
    if not report.num_bad:
        return "0"
    codes = report.embedded.bad if report.embedded else {}
    parts = [str(report.num_bad), *(f"{code} {num}" for code, num in codes.items())]
    return f"{', '.join(parts)}; listed in {layout.quarantine}"
