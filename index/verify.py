"""`python -m index.verify`: whether every file of an index folder is as it was written."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, SecretStr

from index.backend import milvus_uri_field
from index.catalog_setting import catalog_field
from multigrain.config import Config
from multigrain.locations import Location
from multigrain.program import load_config, run_main

if TYPE_CHECKING:
    from index.layout import Layout
    from index.upkeep.check import Found
    from index.upkeep.repair_adds import Repair

PROG = "index.verify"
EXIT_DAMAGED = 1
# A repaired SHARD.json lets the files beside it be checked.
_MAX_PASSES = 3


class VerifyConfig(Config):
    """What is to be checked."""

    index: Location = Field(description="index folder, or its URL, such as s3://bucket/photos")
    cache_dir: Path | None = Field(
        default=None, description="where an index of a URL is kept; none: the user's cache"
    )
    deep: bool = Field(
        default=False, description="read every byte, row and id; else sizes, headers, counts"
    )
    repair: bool = Field(
        default=False,
        description="make damaged files again from the others, remove those a build makes again; "
        "of a URL: fetch them again",
    )
    catalog: SecretStr | None = catalog_field()
    milvus_uri: SecretStr | None = milvus_uri_field()
    output: Literal["text", "json"] = Field(default="text", description="form of the answer")


def main(argv: Sequence[str] | None = None) -> int:
    """Name every damaged file; gives 1 when one is damaged, 0 when all are whole."""
    config = load_config(
        VerifyConfig,
        prog=PROG,
        description="Compare an index folder with its checksums.",
        argv=sys.argv[1:] if argv is None else argv,
        environ=os.environ,
    )
    return run_main(lambda: _verify(config), prog=PROG)


def _verify(config: VerifyConfig) -> int:
    # Here, so that --help does not wait for faiss.
    from index.current import current_manifest
    from index.faiss_module import load_faiss
    from index.layout import Layout
    from index.replica.source import IndexSource
    from index.upkeep.check import check_folder
    from index.upkeep.check_elsewhere import check_elsewhere

    load_faiss()
    source = IndexSource(config.index, cache_dir=config.cache_dir)
    if source.is_remote and config.repair:
        source.update(deep=True)
    layout = Layout(source.ready().absolute())
    found = check_folder(layout, deep=config.deep)
    repairs = list["Repair"]()
    if config.repair and found.faults and not source.is_remote:
        repairs, found = _repaired(layout, found, deep=config.deep)
    if live := current_manifest(layout):
        elsewhere = check_elsewhere(
            layout, live, deep=config.deep, catalog=config.catalog, milvus_uri=config.milvus_uri
        )
        found = found._replace(faults=[*found.faults, *elsewhere])
    print(_answer(config, layout, found, repairs))
    return EXIT_DAMAGED if found.faults else 0


def _repaired(layout: "Layout", found: "Found", *, deep: bool) -> tuple[list["Repair"], "Found"]:
    from index.lock import builder_lock
    from index.upkeep.check import check_folder
    from index.upkeep.repair import repair

    done = dict[Path, "Repair"]()
    with builder_lock(layout.lock):
        for _ in range(_MAX_PASSES):
            fresh = [fault for fault in found.faults if fault.file not in done]
            if not fresh:
                break
            done |= {one.file: one for one in repair(layout, fresh)}
            found = check_folder(layout, deep=deep)
    return list(done.values()), found


def _answer(config: VerifyConfig, layout: "Layout", found: "Found", repairs: list["Repair"]) -> str:
    faults = [
        {
            "file": fault.file.relative_to(layout.root).as_posix(),
            "what": fault.what,
            "blocks": list(fault.blocks),
        }
        for fault in found.faults
    ]
    done = [
        {
            "file": one.file.relative_to(layout.root).as_posix(),
            "what": one.what,
            "is_whole": one.is_whole,
        }
        for one in repairs
    ]
    if config.output == "json":
        answer = {"files": found.num_files, "deep": config.deep, "faults": faults}
        return json.dumps(answer | {"repairs": done}, indent=2)
    lines = [f"{one['file']}: {one['what']}" for one in done]
    lines += [f"{one['file']}: {one['what']}{_blocks(one['blocks'])}" for one in faults]
    lines.append(f"{found.num_files} files, {len(faults)} faults")
    return "\n".join(lines)


def _blocks(blocks: object) -> str:
    assert isinstance(blocks, list)
    return f" in block {', '.join(map(str, blocks))} of 64 MiB" if blocks else ""


if __name__ == "__main__":
    sys.exit(main())
