"""What the device does to views, beside plain formulas and torchvision, and what it depends on."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torchvision.transforms import AutoAugmentPolicy, v2
from torchvision.transforms import InterpolationMode as Mode
from torchvision.transforms.v2 import functional as tv

from multigrain.errors import MultiGrainError
from trainer.engine.processes import alone
from trainer.inputs.augment_colour import ColourMap, apply_colours, jittered, light
from trainer.inputs.augment_device import DevicePart, edits_of
from trainer.inputs.augment_draws import normals, stream, uniforms
from trainer.inputs.augment_erasing import edit_erasing
from trainer.inputs.augment_operations import OPERATIONS
from trainer.inputs.augment_policies import (
    _IMAGENET,
    plan_autoaugment,
    plan_randaugment,
    plan_trivial,
)
from trainer.inputs.augment_strong import _jpeg, edit_strong
from trainer.inputs.data import build_device_part, read_data
from trainer.inputs.loading import Batch
from trainer.inputs.mix import MixSettings, mix
from trainer.scenes import draw_photo
from trainer.settings import TrainConfig

LUMA = np.array([0.299, 0.587, 0.114])


def photos(num: int, *, size: int = 48) -> Tensor:
    """Drawn photos, uint8 [num, 3, size, size], channels last."""
    drawn = [draw_photo(0, n, 0, size=2 * size, seed=0).resize((size, size)) for n in range(num)]
    return torch.from_numpy(np.stack([np.asarray(image) for image in drawn])).permute(0, 3, 1, 2)


def fresh(pixels: Tensor) -> Tensor:
    """A copy of the same memory layout, for what is edited in place."""
    return pixels.clone(memory_format=torch.preserve_format)


def test_numbers_drawn_by_counting_are_uniform_and_normal() -> None:
    """Moments and correlations as they should be, over seeds and over counters."""
    drawn = uniforms(np.arange(20_000), "a", 4)
    assert np.allclose(drawn.mean(0), 0.5, atol=0.01)
    assert np.allclose(drawn.var(0), 1 / 12, atol=0.005)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.03
    assert drawn.min() >= 0
    assert drawn.max() < 1
    bell = normals(np.arange(20_000), "b", 2)
    assert np.allclose(bell.mean(0), 0, atol=0.03)
    assert np.allclose(bell.var(0), 1, atol=0.04)
    assert not np.array_equal(uniforms([1], "a", 3), uniforms([1], "b", 3))
    assert np.array_equal(uniforms([1, 2], "a", 3)[1:], uniforms([2], "a", 5)[:, :3])
    for seed in (0, 1, 2**63 - 1):
        assert list(itertools.islice(stream(seed, "a"), 5)) == uniforms([seed], "a", 5)[0].tolist()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("size", [48, 45, 37])
def test_one_map_of_colours_equals_the_changes_one_by_one(
    order: tuple[int, int, int], size: int
) -> None:
    """Brightness, contrast, saturation and light in any order, of any size, to a rounding."""
    pixels = photos(2, size=size)
    factors = np.array([[0.7, 1.3], [1.25, 0.8], [0.75, 1.2]])
    shift = np.array([[3.0, -2.0, 5.0], [0.0, 9.0, -4.0]])
    colours = ColourMap.identity(2)
    for kind in order:
        change = (colours.brightness, colours.contrast, colours.saturation)[kind]
        colours = change(factors[kind])
    mapped = fresh(pixels)
    apply_colours(mapped, colours.plus(shift))
    for view in range(2):
        wanted = pixels[view].permute(1, 2, 0).numpy().astype(float)
        for kind in order:
            wanted = one_change(wanted, kind, factors[kind][view])
        wanted = (wanted + shift[view]).clip(0, 255)
        got = mapped[view].permute(1, 2, 0).numpy()
        assert np.abs(got - wanted).max() <= 0.51


def one_change(
    pixels: npt.NDArray[np.float64], kind: int, factor: float
) -> npt.NDArray[np.float64]:
    """Brightness, contrast or saturation of one view, by the book."""
    grey = (pixels @ LUMA)[..., None]
    match kind:
        case 0:
            return pixels * factor
        case 1:
            return grey.mean() + (pixels - grey.mean()) * factor
        case _:
            return grey + (pixels - grey) * factor


def test_jitter_takes_every_order_and_stays_within_its_strength() -> None:
    """The brightness of a grey photo changes by at most the strength."""
    colours = jittered(np.arange(600), 0.3)
    grey = (colours.matrix + colours.from_mean) @ np.ones(3)
    assert 0.7 <= grey.min() < 0.72
    assert 1.28 < grey.max() <= 1.3
    assert np.allclose(grey, grey[:, :1])
    assert np.std(light(np.arange(2000), 0.1), axis=0).max() < 10


@pytest.mark.parametrize(
    "augment", ["torch", "full", "autoaugment", "randaugment", "trivial", "strong"]
)
@pytest.mark.parametrize("size", [48, 45])
def test_an_edited_view_does_not_depend_on_its_batch(augment: str, size: int) -> None:
    """Alone, in another order and beside others it comes out the same to the bit."""
    pixels, seeds = photos(12, size=size), np.arange(12) * 7 + 1

    def edit(pixels: Tensor, seeds: npt.NDArray[np.int64]) -> Tensor:
        for edit in edits_of(augment, erasing=0.5):
            pixels = edit(fresh(pixels), seeds)
        return pixels

    together = edit(pixels, seeds)
    assert torch.equal(together, edit(pixels.flip(0), seeds[::-1].copy()).flip(0))
    for view in range(12):
        own = slice(view, view + 1)
        assert torch.equal(edit(pixels[own], seeds[own]), together[own])
    assert together.dtype == torch.uint8
    assert together.is_contiguous(memory_format=torch.channels_last)
    changed = (together != pixels).flatten(1).any(1).float().mean()
    assert 0.3 < changed < 0.8 if augment == "torch" else changed > 0.6
    assert not torch.equal(together, edit(pixels, seeds + 1))


def _affine(image: Tensor, **changes: object) -> Tensor:
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    moved: Tensor = tv.affine(image, **still | changes, interpolation=Mode.NEAREST)
    return moved


def _degrees(value: float) -> float:
    return float(np.degrees(np.arctan(value)))


# The same operations of torchvision, as its reference augmentations call them.
REFERENCES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "shear_x": lambda x, v: _affine(x, shear=[_degrees(v), 0.0], center=[0, 0]),
    "shear_y": lambda x, v: _affine(x, shear=[0.0, _degrees(v)], center=[0, 0]),
    "translate_x": lambda x, v: _affine(x, translate=[int(v), 0]),
    "translate_y": lambda x, v: _affine(x, translate=[0, int(v)]),
    "rotate": lambda x, v: tv.rotate(x, v, interpolation=Mode.NEAREST),
    "brightness": lambda x, v: tv.adjust_brightness(x, 1 + v),
    "colour": lambda x, v: tv.adjust_saturation(x, 1 + v),
    "contrast": lambda x, v: tv.adjust_contrast(x, 1 + v),
    "sharpness": lambda x, v: tv.adjust_sharpness(x, 1 + v),
    "posterize": lambda x, v: tv.posterize(x, int(v)),
    "solarize": lambda x, v: tv.solarize(x, 255 * v),
    "autocontrast": lambda x, _: tv.autocontrast(x),
    "equalize": lambda x, _: tv.equalize(x),
    "invert": lambda x, _: tv.invert(x),
}
VALUES = {
    "shear_x": (-0.3, 0.8), "shear_y": (-0.3, 0.8), "translate_x": (-9.7, 13.2),
    "translate_y": (-9.7, 13.2), "rotate": (-20.0, 77.0), "posterize": (2, 5),
    "solarize": (0.3, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_operations_are_those_of_torchvision(name: str) -> None:
    """To a level or two; moved pixels on a border between two may be the other's."""
    pixels = photos(2)
    values = np.array(VALUES.get(name, (-0.6, 0.7)), float)
    found = OPERATIONS[name](fresh(pixels), values)
    for view in range(2):
        wanted = REFERENCES[name](pixels[view].contiguous(), float(values[view]))
        off = (found[view].int() - wanted.int()).abs().amax(0)
        assert (off > 2).float().mean() < 0.02


def test_one_flat_colour_survives_every_operation() -> None:
    """A histogram of one level has no range to stretch, nor a step."""
    pixels = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    for name in ("autocontrast", "equalize", "contrast", "sharpness"):
        assert torch.equal(OPERATIONS[name](fresh(pixels), np.zeros(1)), pixels)


def test_policies_draw_what_the_papers_say() -> None:
    """The table of AutoAugment, two operations of one strength, one of any strength."""
    names = {"Color": "colour", "AutoContrast": "autocontrast"}
    reference = [
        tuple((names.get(op, op).lower(), p, level or 0) for op, p, level in pair)
        for pair in v2.AutoAugment(AutoAugmentPolicy.IMAGENET)._policies
    ]
    own = [tuple((row[n], row[n + 1], row[n + 2]) for n in (0, 3)) for row in _IMAGENET]
    assert [
        tuple((op.replace("_", ""), p, level) for op, p, level in pair) for pair in own
    ] == reference
    seeds = np.arange(6000)
    auto, rand, (trivial,) = (
        plan(seeds, 224) for plan in (plan_autoaugment, plan_randaugment, plan_trivial)
    )
    assert len(auto) == len(rand) == 2
    both = np.mean([slot.names != "" for slot in auto])
    assert both == pytest.approx(np.mean([p for pair in own for _, p, _ in pair]), abs=0.02)
    for slot in (*rand, trivial):
        found, counts = np.unique(slot.names, return_counts=True)
        assert len(found) == 14
        assert counts.min() > 6000 / 14 * 0.8
    turns = rand[0].values[rand[0].names == "rotate"]
    assert set(turns) == {-9.0, 9.0}
    assert len(np.unique(trivial.values[trivial.names == "rotate"])) > 50
    assert set(trivial.values[trivial.names == "posterize"]) == set(range(2, 9))


def test_strong_edits_keep_the_photo_recognisable_and_jpeg_costs_what_it_should() -> None:
    """A low quality is further from the photo than a high one, and neither is far."""
    pixels = photos(8, size=64)
    edited = edit_strong(fresh(pixels), np.arange(8))
    off = (edited.float() - pixels.float()).abs().flatten(1).mean(1)
    assert off.min() > 1
    assert off.max() < 110
    seeds = np.arange(40)
    quality = uniforms(seeds, "jpeg", 1)[:, 0]
    worst, best = seeds[[quality.argmin()]], seeds[[quality.argmax()]]
    view = pixels[:1].float()
    low, high = (float((_jpeg(view, s) - view).abs().mean()) for s in (worst, best))
    assert 1 < high < low < 30
    flat = torch.full((1, 3, 20, 20), 100.0)
    assert torch.allclose(_jpeg(flat, best), flat, atol=3)


def test_erasing_paints_a_rectangle_of_a_part_of_the_views() -> None:
    """About so many views as asked, and of each no less and no more than the bounds."""
    pixels = torch.full((400, 3, 40, 40), 9, dtype=torch.uint8)
    erased = edit_erasing(pixels, np.arange(400), chance=0.25) != 9
    assert torch.equal(erased[:, 0], erased[:, 2])
    area = erased[:, 0].flatten(1).float().mean(1)
    assert 0.18 < (area > 0).float().mean() < 0.32
    assert area[area > 0].min() > 0.01
    assert area.max() < 0.36
    box = erased[:, 0].any(1).sum(1) * erased[:, 0].any(2).sum(1)
    assert torch.equal(box, erased[:, 0].flatten(1).sum(1))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_a_mixed_view_holds_the_share_it_says_of_itself(mixup: float, cutmix: float) -> None:
    """Views of one colour each: the mean tells the share, and the label whose it is."""
    num = 200
    shades = torch.arange(num, dtype=torch.uint8)
    pixels = shades[:, None, None, None].expand(num, 3, 20, 20)
    settings = MixSettings(mixup, cutmix, 0.5, 3)
    out, mixed = mix(pixels, torch.arange(num), settings, step=5, rank=0)
    again, same = mix(pixels, torch.arange(num), settings, step=5, rank=0)
    assert torch.equal(out, again)
    assert torch.equal(mixed.share, same.share)
    assert not torch.equal(mix(pixels, torch.arange(num), settings, step=6, rank=0)[0], out)
    assert 0.35 < mixed.mixed.float().mean() < 0.65
    own, other = torch.arange(num), mixed.partner_labels
    assert bool((own[mixed.mixed] != other[mixed.mixed]).all())
    assert bool((mixed.share[~mixed.mixed] == 1).all())
    assert torch.equal(out[~mixed.mixed], pixels[~mixed.mixed].float())
    wanted = mixed.share * own + (1 - mixed.share) * other
    assert torch.allclose(out.mean((1, 2, 3)), wanted, atol=1e-3)
    pure = torch.isin(out, shades.float()).flatten(1).all(1) & mixed.mixed
    expected = {(0.4, 0.0): 0.0, (0.0, 1.0): 1.0, (0.4, 1.0): 0.5}[mixup, cutmix]
    assert pure[mixed.mixed].float().mean() == pytest.approx(expected, abs=0.2)


def test_a_view_alone_in_its_batch_is_not_mixed() -> None:
    """There is no partner."""
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    _, mixed = mix(pixels, torch.tensor([1]), MixSettings(1, 1, 1, 0), step=0, rank=0)
    assert not mixed.mixed.any()


def test_settings_reach_the_device_part(tmp_path: Path) -> None:
    """`--augment`, `--erasing`, `--mixup`, `--cutmix` and `--mix-share`, each seen in a batch."""

    def prepared(**settings: object) -> tuple[Tensor, object]:
        config = TrainConfig.model_validate({"data": ["x"], "out": tmp_path} | settings)
        part = build_device_part(config, alone())
        assert isinstance(part, DevicePart)
        pixels = fresh(photos(6))
        ids = torch.arange(6)
        found = part(Batch(pixels, ids, ids, ids + 5, ()), 0)
        return found.pixels, found.mix

    plain, no_mix = prepared(augment="torch")
    assert torch.equal(plain, photos(6))
    assert no_mix is None
    seen = [plain]
    for settings in (
        {"augment": "full"},
        {"erasing": 1.0, "augment": "torch"},
        {"mixup": 0.4},
        {"cutmix": 0.4},
        {"cutmix": 0.4, "mix_share": 1.0},
    ):
        pixels, _ = prepared(**settings)
        assert not any(torch.equal(pixels.float(), other.float()) for other in seen)
        seen.append(pixels)
    _, all_mixed = prepared(mixup=0.4, mix_share=1.0)
    assert all_mixed is not None
    assert all_mixed.mixed.all()  # type: ignore[attr-defined]


def test_mixing_without_classes_is_refused(tmp_path: Path) -> None:
    """There would be nothing to mix."""
    draw_photo(0, 0, 0, size=16, seed=0).save(tmp_path / "a.jpg")
    draw_photo(0, 1, 0, size=16, seed=0).save(tmp_path / "b.jpg")
    config = TrainConfig(data=(tmp_path,), out=tmp_path / "run", mixup=0.2)
    with pytest.raises(MultiGrainError, match=r"--mixup 0\.2 --cutmix 0\.0 mix classes"):
        read_data(config, say=lambda _: None)
