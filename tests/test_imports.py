"""The packages' borders, read off the code: who may import whom, and what only some may."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("multigrain", "trainer", "index", "service")
MAY_IMPORT = {
    "multigrain": set(),
    "trainer": {"multigrain"},
    "index": {"multigrain"},
    "service": {"multigrain", "index"},
}
# Third parties with a room of their own: the beginnings of the files that may import them.
ONLY_IN = {
    "faiss": ("index/faiss_",),
    "sqlalchemy": ("index/catalog", "index/migrations/"),
    "alembic": ("index/catalog", "index/migrations/"),
    "psycopg": ("index/catalog",),
    "sqlite3": ("index/catalog",),
    "fastapi": ("service/",),
    "starlette": ("service/",),
    "uvicorn": ("service/",),
    "httpx2": ("service/client/", "service/receiving/fetcher.py"),
    "openvino": ("multigrain/engine_openvino.py",),
    "onnxruntime": ("multigrain/", "trainer/"),
    "pytorch_metric_learning": ("trainer/losses/pair_losses",),
    "pyarrow": ("multigrain/photo_list", "trainer/", "index/export_rows"),
    "ray": ("index/embedding/ray_",),
    "tensorboard": ("trainer/engine/logbook",),
    "timm": ("multigrain/backbone", "trainer/"),
    "torchvision": ("multigrain/backbone", "trainer/"),
    "PIL": ("multigrain/", "trainer/"),
    "fsspec": ("multigrain/object_store.py",),
    "pymilvus": ("index/milvus_",),
    "grpc": ("index/milvus_",),
}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    """Full names of the modules a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_file_imports_only_what_its_package_may(path: Path) -> None:
    """Imports run trainer -> multigrain <- index <- service, and each third party in its room."""
    name = str(path.relative_to(ROOT))
    package = path.relative_to(ROOT).parts[0]
    for module in imported_modules(path):
        top = module.split(".")[0]
        if top in PACKAGES and top != package:
            assert top in MAY_IMPORT[package], f"{name} imports {module}"
        if top in ONLY_IN:
            assert name.startswith(ONLY_IN[top]), f"{name} imports {module}"
        assert top not in ("tests", "benchmarks"), f"{name} imports {module}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """The graph of our own modules can be sorted."""
    ours = {module_name(path): path for path in FILES}
    graph = {
        name: {module for module in imported_modules(path) if module in ours and module != name}
        for name, path in ours.items()
    }
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_module_shadows_the_standard_library(path: Path) -> None:
    """`torchrun trainer/train.py` puts trainer/ first on the path: a logging.py there would win."""
    assert path.stem in {"__init__", "__main__"} or path.stem not in sys.stdlib_module_names
