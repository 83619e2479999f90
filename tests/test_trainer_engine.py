"""The engine's parts: rates, optimisers, averages, precision, freezing, compiling, guards."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trainer_fixtures import draw_small
from trainer_parts import parts_of

from multigrain.config import ConfigError
from trainer.engine.batchnorm import Momenta
from trainer.engine.best import Best, BestError
from trainer.engine.compiling import Trial, choose
from trainer.engine.course import build_course
from trainer.engine.freezing import FreezingError, freeze
from trainer.engine.guard import DivergedError, Guard
from trainer.engine.loop import Loop
from trainer.engine.numerics import (
    Numerics,
    NumericsError,
    cpu_has_bf16,
    make_deterministic,
    numerics_of,
)
from trainer.engine.optimiser import (
    OptimiserError,
    OptimiserSettings,
    Rates,
    build_optimiser,
    stages_of,
)
from trainer.engine.processes import alone
from trainer.engine.schedule import RateCourse, rate_at
from trainer.engine.stopwatch import WallStopwatch, bottleneck
from trainer.inputs.data import read_data
from trainer.inputs.loading import Batch
from trainer.inputs.sampler import BatchPlan
from trainer.losses.build_objective import build_plan
from trainer.settings import TrainConfig

CPU = torch.device("cpu")
FP32 = Numerics(CPU, torch.float32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_small(tmp_path_factory.mktemp("photos") / "drawn")


def settings(data: Path, out: Path, **changes: Any) -> TrainConfig:
    usual: dict[str, Any] = {
        "backbone": "shufflenet_v2_x0_5",
        "size": 32,
        "batch_size": 6,
        "duration": "4step",
        "learning_rate": 0.01,
        "num_workers": 0,
        "num_threads": 1,
        "log_every_steps": 1,
        "validate_every": "50ep",
        "tensorboard": False,
    }
    return TrainConfig(data=data, out=out, **(usual | changes))


def test_rates_follow_their_schedules() -> None:
    """Share of the peak at fractions of training, worked out by hand."""
    steps = RateCourse("steps", drops=(0.25, 0.5), factor=0.1)
    table = [
        (RateCourse("cosine"), [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, 0.0]),
        (RateCourse("cosine", final=0.2), [1.0, 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2, 0.6, 0.2]),
        (RateCourse("linear"), [1.0, 0.75, 0.5, 0.0]),
        (RateCourse("linear", warmup=0.5), [0.0, 0.5, 1.0, 0.0]),
        (RateCourse("polynomial", power=2.0, final=0.1), [1.0, 0.1 + 0.9 * 0.5625, 0.325, 0.1]),
        (RateCourse("exponential", factor=0.01), [1.0, 0.01**0.25, 0.1, 0.01]),
        (RateCourse("constant", warmup=0.5, final=0.3), [0.0, 0.5, 1.0, 1.0]),
        (steps, [1.0, 0.1, 0.01, 0.01]),
    ]
    for course, expected in table:
        found = [rate_at(fraction, course) for fraction in (0.0, 0.25, 0.5, 1.0)]
        assert found == pytest.approx(expected), course


def test_durations_become_steps(tmp_path: Path) -> None:
    """Passes, views, steps and shares; late steps come one pass later; a rate is scaled."""
    plan = BatchPlan(num_photos=100, batch_size=30, num_views=3, num_processes=1, seed=0)
    config = settings(
        tmp_path, tmp_path, batch_size=30, duration="12ep", schedule="steps", warmup="600img",
        rate_steps=("3ep", "50%"), late_steps=True, reference_batch=60, learning_rate=0.2,
        validate_every="2ep", checkpoint_every="7step", validate_first=True,
    )  # fmt: skip
    course = build_course(config, plan)
    assert (course.num_steps, course.rates.warmup) == (120, pytest.approx(20 / 120))
    assert course.rates.drops == pytest.approx((40 / 120, 70 / 120))
    assert course.learning_rate == pytest.approx(0.1)
    assert [step for step in range(121) if course.validates_after(step)] == [0, *range(20, 121, 20)]
    assert [step for step in range(22) if course.saves_after(step)] == [7, 14, 20, 21]
    rates = [rate_at(course.fraction_at(step), course.rates) for step in (39, 40, 69, 70)]
    assert rates == pytest.approx([1.0, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "steps"}, "--rate-steps go together"),
        ({"rate_steps": "1ep"}, "--rate-steps go together"),
        ({"late_steps": True}, "--late-steps is for"),
        ({"optimiser": "adamw", "nesterov": True}, "are for sgd, not adamw"),
        ({"optimiser": "lion"}, "timm:NAME"),
        ({"nesterov": True, "momentum": 0.0}, "--nesterov needs"),
        ({"resume_anyway": True}, "needs --resume auto"),
        ({"precision": "fp16", "device": "cpu"}, "fp16 needs a GPU"),
        ({"ema_half_life": "0ep"}, "above 0"),
        (
            {"batch_size": 6, "accumulate": 4},
            "not a multiple of 3 views x 4 micro-batches: take 12",
        ),
        ({"lambda": 0, "num_views": 1}, "trains nothing"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    """Before anything is read, with what to do."""
    usual = {"data": tmp_path, "out": tmp_path, "batch_size": 6}
    with pytest.raises(ConfigError, match=expected):
        TrainConfig.from_values(usual | changes)


class Tiny(nn.Module):
    """Names as the objective has them: a trunk in stages, a head, an exponent, beta."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Module()
        stage1 = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.model.backbone = nn.ModuleDict(
            {"stem": nn.Conv2d(3, 3, 3), "layer1": stage1, "layer2": nn.Conv2d(4, 4, 1)}
        )
        self.model.classifier = nn.Linear(4, 2)
        self.model.pool = nn.Module()
        self.model.pool.p = nn.Parameter(torch.tensor(3.0))
        self.beta = nn.Parameter(torch.tensor(1.2))
        self.to(memory_format=torch.channels_last)

    def fill_gradients(self, seed: int = 0) -> None:
        """Give every parameter a gradient of its own layout."""
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.empty_like(parameter).copy_(noise)


def optimiser_settings(name: str, **changes: Any) -> OptimiserSettings:
    usual: dict[str, Any] = {
        "learning_rate": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "dampening": 0.0,
        "beta2": 0.99,
        "weight_decay": 0.01,
    }
    return OptimiserSettings(name, **(usual | changes))


def factors_of(tiny: Tiny, rates: Rates, *, decay_norms: bool) -> dict[str, tuple[float, float]]:
    optimiser = build_optimiser(
        tiny, optimiser_settings("sgd"), decay_norms=decay_norms, rates=rates
    )
    names = {id(parameter): name for name, parameter in tiny.named_parameters()}
    return {
        names[id(parameter)]: (group["rate_factor"], group["weight_decay"])
        for group in optimiser.param_groups
        for parameter in group["params"]
    }


def test_every_parameter_has_its_share_of_the_rate_and_of_the_decay() -> None:
    """Stages count from the head down; beta and p never decay; norms and biases if asked."""
    tiny = Tiny()
    assert set(stages_of(tiny).values()) == {0, 1}  # the stem belongs to the first
    found = factors_of(
        tiny, Rates(head=10.0, bias=2.0, beta=0.1, layer_decay=0.5), decay_norms=False
    )
    expected = {
        "model.backbone.stem.weight": (0.25, 0.01),
        "model.backbone.stem.bias": (0.5, 0.0),
        "model.backbone.layer1.1.weight": (0.25, 0.0),
        "model.backbone.layer2.weight": (0.5, 0.01),
        "model.classifier.weight": (10.0, 0.01),
        "model.classifier.bias": (20.0, 0.0),
        "model.pool.p": (1.0, 0.0),
        "beta": (0.1, 0.0),
    }
    assert {name: found[name] for name in expected} == expected
    decayed = factors_of(tiny, Rates(), decay_norms=True)
    assert {name for name, (_, decay) in decayed.items() if not decay} == {"beta", "model.pool.p"}


def test_fused_steps_equal_plain_ones_on_channels_last_weights() -> None:
    """Three steps of SGD with momentum and of AdamW against torch's plain loops."""
    for name, plain in (("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)):
        fused, loop = Tiny(), Tiny()
        ours = build_optimiser(fused, optimiser_settings(name), decay_norms=True, rates=Rates())
        changes = {"momentum": 0.9} if name == "sgd" else {"betas": (0.9, 0.99)}
        groups = [
            {
                "params": [
                    p for n, p in loop.named_parameters() if n not in {"beta", "model.pool.p"}
                ]
            },
            {"params": [loop.beta, loop.model.pool.p], "weight_decay": 0.0},
        ]
        theirs = plain(groups, lr=0.1, weight_decay=0.01, foreach=False, **changes)
        for seed in range(3):
            for tiny, optimiser in ((fused, ours), (loop, theirs)):
                tiny.fill_gradients(seed)
                optimiser.step()
        for one, other in zip(fused.parameters(), loop.parameters(), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["rmsprop", "timm:lamb", "adam"])
def test_other_optimisers_learn(name: str) -> None:
    """By name, timm's too."""
    tiny = Tiny()
    optimiser = build_optimiser(tiny, optimiser_settings(name), decay_norms=False, rates=Rates())
    before = tiny.model.classifier.weight.detach().clone()
    tiny.fill_gradients()
    optimiser.step()
    assert not torch.equal(tiny.model.classifier.weight, before)


def test_an_optimiser_that_timm_lacks_is_named() -> None:
    """The message says where the names are listed."""
    with pytest.raises(OptimiserError, match="no optimiser 'lamp'"):
        build_optimiser(Tiny(), optimiser_settings("timm:lamp"), decay_norms=True, rates=Rates())


def snapshot(loop: Loop) -> dict[str, Tensor]:
    """Everything that a skipped step must leave alone."""
    found = {name: value.clone() for name, value in loop.objective.state_dict().items()}
    for number, state in loop.stepper.optimiser.state_dict()["state"].items():
        found |= {f"{number}.{key}": value.clone() for key, value in state.items()}
    return {name: value for name, value in found.items() if "num_batches" not in name}


def poisoned(batches: Iterator[Batch], *, steps: set[int]) -> Iterator[Batch]:
    """Make the pixels of some steps no numbers."""
    for number, batch in enumerate(batches):
        if number in steps:
            batch = batch._replace(pixels=batch.pixels.float() * float("nan"))  # noqa: PLW2901
        yield batch


def as_it_is(batch: Batch, _step: int) -> Any:
    return type("Inputs", (), {**batch._asdict(), "mix": None})()


@pytest.mark.parametrize("optimiser", ["sgd", "adamw", "rmsprop"])
def test_a_step_that_is_no_number_leaves_no_trace(
    photos: Path, tmp_path: Path, optimiser: str
) -> None:
    """Weights, momentum, batch-norm statistics; as the first step and between others."""
    loop, batches = parts_of(settings(photos, tmp_path / "run", optimiser=optimiser))
    loop.stepper.device_part = as_it_is
    for step, batch in enumerate(poisoned(batches, steps={0, 2})):
        before = snapshot(loop)
        loop.step(step, batch)
        after = snapshot(loop)
        same = all(torch.equal(after[name], before[name]) for name in before)
        assert same == (step in {0, 2}), step
        assert all(value.isfinite().all() for value in after.values())


def test_skipped_steps_are_logged_and_some_in_a_row_stop_the_run(
    photos: Path, tmp_path: Path
) -> None:
    """Means leave them out; the message names the steps and the photos of both ends."""
    config = settings(photos, tmp_path / "run", duration="9step", log_every_steps=3)
    loop, batches = parts_of(config)
    loop.stepper.device_part = as_it_is
    with pytest.raises(
        DivergedError, match="of 3 steps in a row are no numbers, steps 5 to 7"
    ) as e:
        loop.train(poisoned(batches, steps={1, 4, 5, 6}), start=0)
    data = read_data(config, say=lambda _line: None)
    plan = build_plan(config, data, alone())
    draws = [draw for step in (6, 4) for draw in plan.photos_of(step, 0)]
    names = dict.fromkeys(data.training.names[draw.photo_id] for draw in draws)
    assert str(e.value).endswith(f"photos of these steps: {', '.join(names)}")
    line = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0]
    assert '"skipped_steps": 1.0' in line
    assert "null" not in line


def momenta_from(start: int) -> list[list[float | None]]:
    """Momenta of the steps up to the hundred and third, in a process that begins at `start`."""
    norms = [nn.BatchNorm2d(2, momentum=own) for own in (0.1, 0.01, 0.0003, None)]
    momenta = Momenta(nn.Sequential(*norms))
    assert [step for step in range(103) if momenta.is_early(step)] == list(range(100))
    found = []
    for step in range(start, 103):
        momenta.set(step)
        found.append([norm.momentum for norm in norms])
    return found


def test_batch_norms_average_the_first_steps_and_go_on_with_their_own_momentum() -> None:
    """The same for a run resumed at any step; compiled trunks wait until nothing changes."""
    whole = momenta_from(0)
    for step in (1, 9, 10, 11, 12, 99, 100):
        assert momenta_from(step) == whole[step:]
    assert whole[0] == [1.0, 1.0, 1.0, None]
    assert whole[4] == [0.2, 0.2, 0.2, None]
    assert whole[20] == [0.1, 1 / 21, 1 / 21, None]
    assert whole[100] == whole[102] == [0.1, 0.01, 0.0003, None]


def test_a_guard_counts_rows_only() -> None:
    """A good step in between begins the count anew."""
    guard = Guard(most_in_row=2, device=CPU)
    one, zero = torch.ones(()), torch.zeros(())
    for step, skipped in enumerate((one, zero, one, zero)):
        guard.note(skipped, step=step)
    guard.check(int(guard.reached), lambda _step: [])
    other = Guard(most_in_row=2, device=CPU)
    guard.note(one, step=4)
    other.restore(guard.state())
    other.note(one, step=5)
    with pytest.raises(DivergedError, match=r"steps 5 to 6: .* a5, b5, a4, b4"):
        other.check(int(other.reached), lambda step: [f"a{step}", f"b{step}"])


def test_a_state_saved_after_the_guard_tripped_can_be_gone_on_from(
    photos: Path, tmp_path: Path
) -> None:
    """Where records are late it may be saved; the next step that is no number stops the run."""
    config = settings(photos, tmp_path / "run", resume="auto", max_nonfinite_steps=2)
    loop, batches = parts_of(config)
    loop.journal.late = True
    loop.stepper.device_part = as_it_is
    for step, batch in enumerate(poisoned(batches, steps={0, 1})):
        losses = loop.step(step, batch)
        loop.journal.note(losses, step=step + 1, skipped=loop.stepper.skipped)
        if step == 1:
            loop.save(2)
            loop.writer.wait()
            break
    assert int(loop.stepper.guard.reached) == 1
    again, batches = parts_of(config)
    assert again.train(batches, start=2)


def test_micro_batches_average_to_the_gradient_of_the_whole(photos: Path, tmp_path: Path) -> None:
    """With classes alone and no batch norm, where a step is a mean over views."""
    norms = []
    for accumulate in (1, 2):
        loop, batches = parts_of(
            settings(
                photos,
                tmp_path / str(accumulate),
                accumulate=accumulate,
                lambda_=1.0,
                backbone="squeezenet1_1",
            )
        )
        losses = loop.step(0, next(batches))
        norms.append((losses.parts["gradient_norm"].item(), losses.parts["loss"].item()))
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_a_clipped_gradient_moves_the_weights_less(photos: Path, tmp_path: Path) -> None:
    """The norm logged is that before clipping; the step is as long as the norm allows."""
    config = settings(
        photos, tmp_path / "run", clip_norm=0.01, momentum=0.0, weight_decay=0.0, warmup="0step",
        schedule="constant", beta_rate_factor=1.0,
    )  # fmt: skip
    loop, batches = parts_of(config)
    before = torch.cat([p.detach().clone().flatten() for p in loop.objective.parameters()])
    losses = loop.step(0, next(batches))
    after = torch.cat([p.detach().flatten() for p in loop.objective.parameters()])
    assert losses.parts["gradient_norm"] > 0.02
    assert float((after - before).norm()) == pytest.approx(0.01 * 0.01, rel=1e-3)


def test_the_average_follows_the_weights_with_its_half_life(photos: Path, tmp_path: Path) -> None:
    """The plain recursion, short at first; it is what is validated and published."""
    loop, batches = parts_of(settings(photos, tmp_path / "run", ema_half_life="1step"))
    average = loop.stepper.average
    assert average is not None
    assert loop.model is average.model
    name = "backbone.conv1.0.weight"
    expected = loop.objective.model.state_dict()[name].clone()
    for step, batch in enumerate(batches):
        loop.step(step, batch)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * loop.objective.model.state_dict()[name]
    torch.testing.assert_close(average.model.state_dict()[name], expected)
    counted = average.model.state_dict()["backbone.conv1.1.num_batches_tracked"]
    assert int(counted) == 4


def test_frozen_parameters_learn_from_their_step_on(photos: Path, tmp_path: Path) -> None:
    """Until then weights, statistics and momentum stay; what is frozen is said."""
    config = settings(photos, tmp_path / "run", freeze=("backbone.conv1.*",), freeze_until="2step")
    loop, batches = parts_of(config)

    def frozen() -> list[Tensor]:
        state = loop.objective.model.backbone.state_dict()
        return [value.clone() for name, value in state.items() if name.startswith("conv1.")]

    seen = [frozen()]
    for step, batch in enumerate(batches):
        loop.step(step, batch)
        seen.append(frozen())
    moved = [
        not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        for one, other in pairwise(seen)
    ]
    assert moved == [False, False, True, True]


def test_freezing_says_what_it_froze_or_that_it_froze_nothing() -> None:
    """For good, the parameters leave training before DDP sees them."""
    model, said = Tiny().model, list[str]()
    patterns = ("backbone.layer1.*", "backbone.stem.bias")
    assert freeze(model, patterns, until=9, num_steps=9, say=said.append)
    assert "for the whole training: 5 of 11 parameters" in said[0]
    assert "1 batch norms" in said[0]
    assert not model.backbone.layer1[0].weight.requires_grad
    with pytest.raises(FreezingError, match=r"layer9\.\* matches no parameter"):
        freeze(model, ("layer9.*",), until=9, num_steps=9, say=said.append)
    with pytest.raises(FreezingError, match="leaves nothing"):
        freeze(model, ("*",), until=9, num_steps=9, say=said.append)
    assert freeze(model, ("*",), until=0, num_steps=9, say=said.append) is None


def test_precision_follows_the_hardware() -> None:
    """bf16 where a CPU multiplies it, else fp32; fp16 has no place on a CPU."""
    amx, avx, old = "flags\t: sse amx_bf16 amx_tile", "flags : avx512_bf16", "flags : avx512f"
    assert [cpu_has_bf16(text) for text in (amx, avx, old, "")] == [True, True, False, False]
    assert numerics_of("auto", CPU, cpuinfo=amx).dtype == torch.bfloat16
    assert numerics_of("auto", CPU, cpuinfo=old).dtype == torch.float32
    assert numerics_of("bf16", CPU, cpuinfo=old).dtype == torch.bfloat16
    with pytest.raises(NumericsError, match="fp16 needs a GPU"):
        numerics_of("fp16", CPU)


def test_half_precision_trains_with_a_loss_scale(photos: Path, tmp_path: Path) -> None:
    """The scale is lowered after an overflow, which is skipped and no fault; it is saved."""
    loop, batches = parts_of(settings(photos, tmp_path / "run", backbone="squeezenet1_1"))
    loop.stepper.numerics = Numerics(CPU, torch.float16)
    loop.stepper.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    skipped = []
    for step, batch in enumerate(repeat(next(batches), 14)):
        loop.step(step % 4, batch)
        skipped.append(bool(loop.stepper.skipped))
    assert skipped[0]
    assert not skipped[-1]
    assert int(loop.stepper.guard.reached) == -1
    assert loop.state(1)["scaler"]["scale"] < 2.0**24


def slow(seconds: float) -> Callable[[nn.Module], Callable[[Tensor], Tensor]]:
    """A compiler whose product takes that much longer."""

    def compile_(module: nn.Module) -> Callable[[Tensor], Tensor]:
        def run(pixels: Tensor) -> Tensor:
            torch.zeros(1).add_(sum(range(int(seconds * 1e7))))
            found: Tensor = module(pixels)
            return found

        return run

    return compile_


def fails(_module: nn.Module) -> Any:
    raise RuntimeError("no C++ compiler\nin many lines")


def test_compiling_is_chosen_by_time_and_a_failing_compiler_means_no() -> None:
    """The choice is said with its reason, and the trunk itself is left as it was."""
    trunk, said = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), list[str]()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}

    def chosen(setting: str, compiler: Any) -> bool:
        return choose(
            setting, trunk, Trial(2, 16), numerics=FP32, processes=alone(), say=said.append,
            compiler=compiler,
        )  # fmt: skip

    assert not chosen("no", fails)
    assert said == []
    assert not chosen("yes", fails)
    assert (
        said.pop() == "the trunk is not compiled, the compiler fails: RuntimeError: no C++ compiler"
    )
    assert not chosen("auto", slow(0.05))
    assert "eager it is" in said.pop()
    assert chosen("yes", lambda module: module)
    for name, value in trunk.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_resumed_run_keeps_the_choice(photos: Path, tmp_path: Path) -> None:
    """It is in the state, and nothing is timed again."""
    config = settings(photos, tmp_path / "run", duration="1step", resume="auto")
    loop, batches = parts_of(config)
    loop.choose_compile = lambda: False
    assert loop.train(batches, start=0)
    again, _ = parts_of(config)
    again.choose_compile = lambda: pytest.fail("timed again")
    assert again.compiled is False
    assert again.train(iter(()), start=1)


def test_the_best_is_the_highest_score_or_the_lowest_loss() -> None:
    """By a score's name, its mode or the mean of all; kept over a resume."""
    said: list[str] = []

    def new(by: str, mode: Any = "auto") -> Best:
        return Best(by=by, mode=mode, known=("top1", "val_loss"), say=said.append)

    best = new("mean")
    for step, top1 in enumerate((0.9, 0.1, 0.5, 0.5, 0.3)):
        best.note(step, {"top1": top1, "recall": 0.0})
    assert (best.step, best.value) == (2, 0.25)
    assert "before the first step" in said[0]
    again = new("mean")
    again.restore(best.state())
    again.note(9, {"top1": 0.4, "recall": 0.0})
    assert again.step == 2
    for by, mode in (("val_loss", "auto"), ("top1", "min")):
        lowest = new(by, mode)
        lowest.restore(best.state())
        for step, value in enumerate((0.3, 0.2, 0.4), start=1):
            lowest.note(step, {by: value})
        assert lowest.step == 2
    with pytest.raises(BestError, match="--best-by map is no score: take mean or one of top1"):
        new("map")
    absent = new("top1")
    absent.note(1, {"recall": 0.0})
    assert absent.step is None
    assert "allow no top1, only recall" in said[-1]


def test_a_stopwatch_splits_a_step_and_the_bottleneck_is_named() -> None:
    """Times add up by part; a wait counts only where the device idles."""
    now = iter([0.0, 1.0, 3.0, 6.0, 6.5, 10.0, 11.0])
    watch = WallStopwatch(clock=lambda: next(now))
    watch.start()
    for part in ("forward", "backward", "optimiser"):
        watch.mark(part)
    watch.start()
    watch.mark("forward")
    assert watch.take()() == {"forward": 3.0, "backward": 3.0, "optimiser": 0.5}
    table = [(1.0, 0.5, 0.5, "data"), (1.0, 0.5, 0.98, "device"), (1.0, 0.01, 0.2, "device")]
    for step, wait, device, expected in table:
        found = bottleneck(step_seconds=step, wait_seconds=wait, device_seconds=device)
        assert found == expected


def test_deterministic_mode_is_torch_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And said, with the variable that cuBLAS reads."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    said: list[str] = []
    try:
        make_deterministic(said.append)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert "CUBLAS_WORKSPACE_CONFIG=:4096:8" in said[0]
