"""Several processes must train like one: equal gradients of the same global batch."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from trainer_fixtures import draw_flat

import trainer.losses.margin
from multigrain.classifier import CosineClassifier
from multigrain.cpus import num_cpus
from multigrain.document import plain_document
from multigrain.engine import DeviceError
from multigrain.model import MultiGrain
from multigrain.pooling import GeM
from multigrain.transforms import Preprocessing
from trainer.engine.processes import Processes, alone, joined_processes
from trainer.finishing.fit_whitening import whiten_on
from trainer.inputs.labels import PhotoSet
from trainer.inputs.mix import Mix
from trainer.losses.build_objective import _distributed
from trainer.losses.gather import gather_rows, own_slice
from trainer.losses.heads import Constants, HeadLoss
from trainer.losses.margin import Divisor
from trainer.losses.negatives import Negatives
from trainer.losses.objective import MARGIN_ALONE, MarginSettings, Objective, PairTerm
from trainer.losses.pair_losses import OF_CLASSES, build_pair_loss
from trainer.settings_loss import PAIR_LOSSES

NUM_VIEWS = 12
WORLDS = (3, 2)
PRELOADED = [
    "trainer.losses.build_objective",
    "trainer.finishing.fit_whitening",
    "pytorch_metric_learning.losses",
]
Gradients = dict[str, Tensor]

# Loss settings that several processes must share out like one.
CASES: dict[str, dict[str, Any]] = {
    **{negatives.value: {"negatives": negatives} for negatives in Negatives},
    "either": {"divisor": Divisor.EITHER, "mixed": True},
    "class positives": {
        "positives_of_class": True,
        "most_negatives": 11,
        "mixed": True,
        "alpha": 0.2,
        "beta": 0.3,
    },
    **{kind: {"head": kind} for kind in ("arcface", "cosface", "circle")},
    "curricularface": {"head": "curricularface", "mixed": True},
    **{name: {"pair": name} for name in PAIR_LOSSES if name != "margin"},
    "all but the margin": {"pair": "triplet", "other": "proxy-anchor", "mixed": True},
}
# All of them on two processes; three show that a photo's views may lie on two processes.
AMONG_THREE = ("distance", "curricularface", "all but the margin")
SHARED = [(2, name) for name in CASES] + [(3, name) for name in AMONG_THREE]


class Trunk(nn.Sequential):
    """A trunk without batch statistics, so that a process's batch does not show."""

    num_channels = 5

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU())


def objective(
    *,
    head: Any = "linear",
    pair: str | None = None,
    other: str | None = None,
    positives_of_class: bool = False,
    mixed: bool = False,  # noqa: ARG001 - the batch's
    **margin: Any,
) -> Objective:
    torch.manual_seed(0)
    constants = None if head == "linear" else Constants(8.0, 0.3)
    model = MultiGrain(
        backbone=Trunk(),  # type: ignore[arg-type]
        pool=GeM(3.0, learnable=True),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        classifier=(
            nn.Linear(5, 3) if constants is None else CosineClassifier(5, 3, scale=constants.scale)
        ),
    )
    settings: dict[str, Any] = {
        "alpha": 0.03,
        "beta": 0.2,
        "negatives": Negatives.DISTANCE,
        "effective_dim": 8,
        "most_negatives": 2,
        "seed": 1,
    }
    names = [name for name in (pair, other) if name is not None]
    terms = {
        name: PairTerm(0.7 + place, build_pair_loss(name, num_dims=5, num_classes=3))
        for place, name in enumerate(names)
    }
    return Objective(
        model,
        lambda_=0.5,
        num_views=3,
        margin=MarginSettings(**(settings | margin)),
        head=HeadLoss(head, constants=constants, label_smoothing=0.1),
        pair_terms=terms or MARGIN_ALONE,
        positives_of_class=positives_of_class,
    ).double()


def batch(rows: slice, *, mixed: bool = False) -> tuple[Tensor, Tensor, Tensor, int, Mix | None]:
    generator = torch.Generator().manual_seed(4)
    pixels = torch.rand(NUM_VIEWS, 3, 6, 6, dtype=torch.float64, generator=generator) * 255
    photo_ids = torch.arange(NUM_VIEWS) // 3
    labels = photo_ids % 3
    which = torch.arange(NUM_VIEWS) % 5 == 1  # not as many on each process
    mix = Mix(labels.flip(0)[rows], torch.full((NUM_VIEWS,), 0.6)[rows], which[rows])
    return pixels[rows], labels[rows], photo_ids[rows], 9, mix if mixed else None


def gradients_of(
    module: nn.Module, rows: slice, *, mixed: bool = False, num_steps: int = 1
) -> Gradients:
    """Gradients of the last of some equal steps, and the buffers they leave."""
    for _ in range(num_steps):
        module.zero_grad()
        module(*batch(rows, mixed=mixed)).total.backward()
    found = {
        name: parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    found |= {name: buffer.clone() for name, buffer in module.named_buffers() if buffer.ndim == 0}
    return {name.removeprefix("module."): value for name, value in found.items()}


def one_of_several(rank: int, folder: str) -> None:
    """Among three processes, then among two of them, write what the first one finds."""
    torch.set_num_threads(1)
    for world in WORLDS:
        if rank < world:
            one_of(rank, world, folder)


def one_of(rank: int, world: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet-{world}", rank=rank, world_size=world
    )
    share = NUM_VIEWS // world
    rows = slice(rank * share, (rank + 1) * share)
    right = {
        name: gradients_of(
            # As training wraps it; a static graph shows itself from the second step on.
            _distributed(objective(**case), is_static=True),
            rows,
            mixed=case.get("mixed", False),
            num_steps=2,
        )
        for name, case in CASES.items()
        if (world, name) in SHARED
    }

    def local_count(count: Tensor) -> Tensor:
        return count.detach() * world

    counted = trainer.losses.margin.sum_over_processes
    trainer.losses.margin.sum_over_processes = local_count
    wrong = gradients_of(DistributedDataParallel(objective()), rows)
    trainer.losses.margin.sum_over_processes = counted
    gathered = gather_rows(torch.arange(3 * rank + 1))
    said = said_of_whitening(Path(folder, "photos"), rank) if world == 2 else []
    if rank == 0:
        found = Found(right, wrong, gathered, list(own_slice(7)), said)
        torch.save(tuple(found), f"{folder}/found-{world}.pt")
    dist.destroy_process_group()


class Found(NamedTuple):
    """What the first of several processes wrote."""

    right: dict[str, Gradients]
    wrong: Gradients
    gathered: Tensor
    slice: list[int]
    said: list[str]


def said_of_whitening(photos: Path, rank: int) -> list[str]:
    document = plain_document(
        backbone_name="squeezenet1_1",
        feature_dim=512,
        preprocessing=Preprocessing(size=32, rule="crop"),
        p=3.0,
    )
    torch.manual_seed(0)
    said: list[str] = []
    whiten_on(
        MultiGrain.build(document),
        document,
        PhotoSet.of_paths(sorted(photos.iterdir())),
        dim=2,
        power=0.5,
        floor=1e-3,
        processes=Processes(rank, 2, torch.device("cpu"), dist.group.WORLD),
        say=said.append,
    )
    return said


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Found]:
    folder = tmp_path_factory.mktemp("processes")
    photos = draw_flat(folder / "photos", num_photos=9)
    (photos / "unreadable.jpg").write_bytes(b"no photo")
    # A server imports torch once and forks; spawned processes would import it three times.
    mp.get_context("forkserver").set_forkserver_preload(PRELOADED)
    mp.start_processes(
        one_of_several, args=(str(folder),), nprocs=max(WORLDS), start_method="forkserver"
    )
    return {world: Found(*torch.load(folder / f"found-{world}.pt")) for world in WORLDS}


def largest_difference(one: Gradients, other: Gradients) -> dict[str, float]:
    assert one.keys() == other.keys()
    return {name: float((one[name] - other[name]).abs().max()) for name in one}


@pytest.mark.parametrize(("world", "name"), SHARED)
def test_several_processes_have_the_gradient_of_one(
    found: dict[int, Found], world: int, name: str
) -> None:
    """Trunk, p, classifier, and beta, proxies or CurricularFace's t, in float64 to 1e-12."""
    case = CASES[name]
    single = gradients_of(
        objective(**case), slice(None), mixed=case.get("mixed", False), num_steps=2
    )
    differences = largest_difference(single, found[world].right[name])
    expected = {"model.pool.p", "model.classifier.weight", "model.backbone.0.weight"}
    expected |= set() if "pair" in case else {"beta"}
    expected |= {"head.curriculum"} if name == "curricularface" else set()
    expected |= {
        f"pair_losses.{proxies}.loss.proxies"
        for proxies in OF_CLASSES & {case.get("pair"), case.get("other")}
    }
    assert expected <= set(differences)
    assert all(float(value.abs().max()) > 1e-6 for value in single.values())
    assert max(differences.values()) < 1e-12


@pytest.mark.parametrize("world", WORLDS)
def test_a_local_count_of_active_pairs_gives_another_gradient(
    found: dict[int, Found], world: int
) -> None:
    """Dividing by each process's own count is wrong, and this batch shows it."""
    single = gradients_of(objective(), slice(None))
    assert max(largest_difference(single, found[world].wrong).values()) > 1e-4


def test_parts_of_unequal_length_are_gathered_without_padding(found: dict[int, Found]) -> None:
    """One row of the first process and four of the second; slices cover everything once."""
    assert found[2].gathered.tolist() == [0, 0, 1, 2, 3]
    assert found[2].slice == [0, 1, 2]


def test_the_first_process_names_what_another_could_not_read(found: dict[int, Found]) -> None:
    """The last photo is the second process's; the whitening counts those of both."""
    skipped, fitted = found[2].said
    assert skipped.startswith("skipped ")
    assert "unreadable.jpg: image_undecodable" in skipped
    assert fitted == "whitening: 512 -> 2 dimensions, fitted on 9 photos"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_the_error_of_every_program() -> None:
    """The trainer and the engine raise the same class."""
    with pytest.raises(DeviceError, match="no CUDA device"):
        alone("cuda")
    assert alone("auto").device.type == "cpu"


def test_cores_are_shared_out_where_affinity_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS; every process of this machine has at least one."""
    monkeypatch.delattr(os, "sched_getaffinity")
    before = torch.get_num_threads()
    try:
        with joined_processes({}, device="cpu", num_threads=None):
            assert torch.get_num_threads() == num_cpus()
        with joined_processes({"LOCAL_WORLD_SIZE": "999"}, device="cpu", num_threads=None):
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
