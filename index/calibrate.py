"""`python -m index.calibrate`: the probability that two photos show the same thing."""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pydantic import Field, SecretStr

from index.backend import PUBLISHED_FOR, Backend, milvus_uri_field
from index.catalog_setting import catalog_field
from index.collection.reading import PhotoEmbedder
from index.manifest import CalibrationPart, Manifest
from multigrain.config import Config
from multigrain.program import load_config, run_main

PROG = "index.calibrate"
_SHOWN = (0.1, 0.5, 0.9, 0.99)


class CalibrateConfig(Config):
    """What the probabilities are learned from."""

    index: Path = Field(description="index folder")
    catalog: SecretStr | None = catalog_field()
    milvus_uri: SecretStr | None = milvus_uri_field()
    labels: Path | None = Field(
        default=None,
        description="CSV or JSONL list of photos (path, instance) or of pairs (path, other, same: "
        "1 or 0), paths relative to it; without it, edited copies of the index's own photos",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")


def main(argv: Sequence[str] | None = None) -> int:
    """Fit and publish; gives the exit status."""
    config = load_config(
        CalibrateConfig,
        prog=PROG,
        description="Learn what cosines of an index mean, and publish that with it.",
        argv=sys.argv[1:] if argv is None else argv,
        environ=os.environ,
    )
    return run_main(lambda: _calibrate(config), prog=PROG)


def _calibrate(config: CalibrateConfig) -> int:
    # Here, so that --help does not wait for torch.
    from index.current import live_manifest
    from index.layout import Layout
    from multigrain.embedder import Embedder

    layout = Layout(config.index.absolute())
    checkpoint = layout.checkpoint(live_manifest(layout).model.fingerprint)
    embedder = Embedder.open(checkpoint, device=config.device)
    manifest = calibrate(
        config.index,
        embedder,
        labels=config.labels,
        catalog=config.catalog,
        backend=Backend(uri=config.milvus_uri),
    )
    assert manifest.calibration is not None
    print(_answer(manifest.calibration))
    print(f"published generation {manifest.generation} in {config.index}")
    return 0


def calibrate(
    root: Path,
    embedder: PhotoEmbedder,
    *,
    labels: Path | None = None,
    catalog: SecretStr | None = None,
    backend: Backend = PUBLISHED_FOR,
) -> Manifest:
    """Fit the pairs of a labelled list, or of edited copies, and publish a generation with it.

    Raises IndexFolderError, CalibrationError and PhotoListError.
    """
    from index.calibration.fit import fit_pairs
    from index.calibration.labelled import labelled_pairs
    from index.calibration.pairs import copy_pairs
    from index.faiss_module import load_faiss
    from index.searcher import Searcher
    from index.stages import publish_generation, trained_codebook
    from index.workshop import reopen_workshop
    from multigrain.cpus import num_cpus

    load_faiss()
    with closing(Searcher.open_current(root, catalog=catalog)) as searcher:
        searcher.require_model(embedder)
        if labels is None:
            pairs = copy_pairs(searcher, embedder, num_threads=num_cpus())
        else:
            pairs = labelled_pairs(labels, embedder, num_threads=num_cpus())
    part = fit_pairs(pairs, source="labels" if labels else "copies")
    with reopen_workshop(root, catalog=catalog, backend=backend) as shop:
        assert shop.parent is not None
        codebook = trained_codebook(shop, factory=shop.parent.factory)
        return publish_generation(shop, codebook, calibration=part)


def _answer(part: CalibrationPart) -> str:
    source = "labels" if part.source == "labels" else "edited copies"
    pairs = f"fitted to {part.num_same} same and {part.num_other} other pairs of {source}"
    if part.error is not None:
        pairs += f"; off by {part.error:.3f} on pairs held back"
    cosines = (f"{share:g} at {part.curve.cosine_of(share):.3f}" for share in _SHOWN)
    return f"{pairs}\nprobability, at cosine: {', '.join(cosines)}"


if __name__ == "__main__":
    sys.exit(main())
