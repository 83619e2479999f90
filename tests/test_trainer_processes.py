"""Two processes must train like one: the gradients of the same global batch are equal."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from trainer_fixtures import draw_flat

import trainer.margin
from multigrain.cpus import num_cpus
from multigrain.document import plain_document
from multigrain.engine import DeviceError
from multigrain.model import MultiGrain
from multigrain.pooling import GeM
from multigrain.transforms import Preprocessing
from trainer.fit_whitening import whiten_on
from trainer.gather import gather_rows, own_slice
from trainer.labels import PhotoSet
from trainer.negatives import Negatives
from trainer.objective import MarginSettings, Objective
from trainer.processes import Processes, alone, joined_processes

NUM_VIEWS = 12
Gradients = dict[str, Tensor]


class Trunk(nn.Sequential):
    """A trunk without batch statistics, so that a process's batch does not show."""

    num_channels = 5

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU())


def objective() -> Objective:
    torch.manual_seed(0)
    model = MultiGrain(
        backbone=Trunk(),  # type: ignore[arg-type]
        pool=GeM(3.0, learnable=True),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        classifier=nn.Linear(5, 3),
    )
    margin = MarginSettings(
        alpha=0.2,
        beta=0.3,
        negatives=Negatives.DISTANCE,
        effective_dim=8,
        most_negatives=2,
        seed=1,
    )
    return Objective(model, lambda_=0.5, num_views=3, margin=margin).double()


def batch(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    pixels = torch.rand(NUM_VIEWS, 3, 6, 6, dtype=torch.float64, generator=generator) * 255
    photo_ids = torch.arange(NUM_VIEWS) // 3
    return pixels[rows], (photo_ids % 3)[rows], photo_ids[rows]


def gradients_of(module: nn.Module, rows: slice) -> Gradients:
    module(*batch(rows), 9).total.backward()
    return {
        name.removeprefix("module."): parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def in_one_of_two(rank: int, folder: str) -> None:
    """Write rank 0's gradients: as they should be, and with a local count of active pairs."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    half = NUM_VIEWS // 2
    rows = slice(rank * half, (rank + 1) * half)
    right = gradients_of(DistributedDataParallel(objective()), rows)

    def local_count(count: Tensor) -> Tensor:
        return count.detach() * 2

    trainer.margin.sum_over_processes = local_count
    wrong = gradients_of(DistributedDataParallel(objective()), rows)
    gathered = gather_rows(torch.arange(3 * rank + 1))
    said = said_of_whitening(Path(folder, "photos"), rank)
    if rank == 0:
        torch.save((right, wrong, gathered, list(own_slice(7)), said), f"{folder}/found.pt")
    dist.destroy_process_group()


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


Found = tuple[Gradients, Gradients, Tensor, list[int], list[str]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("two-processes")
    photos = draw_flat(folder / "photos", num_photos=9)
    (photos / "unreadable.jpg").write_bytes(b"no photo")
    mp.spawn(in_one_of_two, args=(str(folder),), nprocs=2)
    answer: Found = torch.load(folder / "found.pt")
    return answer


def largest_difference(one: Gradients, other: Gradients) -> dict[str, float]:
    assert one.keys() == other.keys()
    return {name: float((one[name] - other[name]).abs().max()) for name in one}


def test_two_processes_have_the_gradient_of_one(found: Found) -> None:
    """Trunk, beta, p and classifier, in float64 to 1e-12."""
    single = gradients_of(objective(), slice(None))
    differences = largest_difference(single, found[0])
    assert {"beta", "model.pool.p", "model.classifier.weight", "model.backbone.0.weight"} <= set(
        differences
    )
    assert all(float(gradient.abs().max()) > 1e-6 for gradient in single.values())
    assert max(differences.values()) < 1e-12


def test_a_local_count_of_active_pairs_gives_another_gradient(found: Found) -> None:
    """Dividing by each process's own count is wrong, and this batch shows it."""
    single = gradients_of(objective(), slice(None))
    assert max(largest_difference(single, found[1]).values()) > 1e-4


def test_parts_of_unequal_length_are_gathered_without_padding(found: Found) -> None:
    """One row of the first process and four of the second; slices cover everything once."""
    assert found[2].tolist() == [0, 0, 1, 2, 3]
    assert found[3] == [0, 1, 2]


def test_the_first_process_names_what_another_could_not_read(found: Found) -> None:
    """The last photo is the second process's; the whitening counts those of both."""
    skipped, fitted = found[4]
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
