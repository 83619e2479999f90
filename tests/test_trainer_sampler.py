"""Which photos each process sees at each step: repeated augmentation, and P classes x K."""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.inputs.sampler import BatchPlan, Draw, SamplerError
from trainer.inputs.sampler_pk import PkPlan

# Time is no property of a plan, and a busy machine is slow.
few = settings(max_examples=30, deadline=None)

sizes = st.fixed_dictionaries(
    {
        "num_photos": st.integers(1, 40),
        "num_views": st.integers(1, 4),
        "photos_per_process": st.integers(1, 7),
        "num_processes": st.integers(1, 4),
        "seed": st.integers(0, 1000),
    }
)


def plan_of(size: dict[str, int], num_processes: int | None = None) -> BatchPlan:
    photos_per_step = size["photos_per_process"] * size["num_processes"]
    return BatchPlan(
        num_photos=size["num_photos"],
        batch_size=photos_per_step * size["num_views"],
        num_views=size["num_views"],
        num_processes=num_processes or size["num_processes"],
        seed=size["seed"],
    )


def whole_step(plan: BatchPlan, step: int, num_processes: int) -> list[Draw]:
    return [draw for rank in range(num_processes) for draw in plan.photos_of(step, rank)]


@few
@given(sizes)
def test_each_pass_holds_every_photo_once(size: dict[str, int]) -> None:
    """Nothing is padded or lost, wherever a pass begins and ends."""
    plan = plan_of(size)
    num_steps = -(-3 * size["num_photos"] // plan.photos_per_step)
    draws = [d for step in range(num_steps) for d in whole_step(plan, step, size["num_processes"])]
    for epoch in range(3):
        seen = sorted(draw.photo_id for draw in draws if draw.epoch == epoch)
        assert seen == list(range(size["num_photos"]))


@few
@given(sizes)
def test_no_photo_occurs_more_often_than_said(size: dict[str, int]) -> None:
    """`most_occurrences` bounds every step, also where passes meet, and is reached or nearly."""
    plan = plan_of(size)
    for step in range(12):
        draws = whole_step(plan, step, size["num_processes"])
        counts = Counter(draw.photo_id for draw in draws)
        assert max(counts.values()) <= plan.most_occurrences
        classes = Counter(draw.photo_id % 3 for draw in draws)
        assert max(classes.values()) <= plan.most_of_a_class(largest=-(-size["num_photos"] // 3))


def test_two_passes_have_different_orders() -> None:
    """The second pass is another permutation."""
    plan = BatchPlan(num_photos=50, batch_size=50, num_views=1, num_processes=1, seed=3)
    assert plan.photos_of(0, 0) != [draw._replace(epoch=0) for draw in plan.photos_of(1, 0)]


@pytest.mark.parametrize(
    ("batch_size", "num_views", "num_processes", "advice"),
    [(512, 3, 1, "513"), (6, 3, 4, "12"), (9, 3, 2, "12")],
)
def test_a_batch_that_views_do_not_divide_is_refused(
    batch_size: int, num_views: int, num_processes: int, advice: str
) -> None:
    """The message names the nearest batch size that works."""
    with pytest.raises(SamplerError, match=f"take {advice}"):
        BatchPlan(
            num_photos=9,
            batch_size=batch_size,
            num_views=num_views,
            num_processes=num_processes,
            seed=0,
        )


labels_of_classes = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(
    lambda counts: [label for label, count in enumerate(counts) for _ in range(count)]
)
pk_sizes = st.fixed_dictionaries(
    {
        "labels": labels_of_classes.flatmap(st.permutations),
        "photos_per_class": st.integers(2, 5),
        "num_views": st.integers(1, 3),
        "groups_per_process": st.integers(1, 4),
        "num_processes": st.integers(1, 3),
        "seed": st.integers(0, 1000),
    }
)


def pk_plan_of(size: dict[str, Any], num_processes: int | None = None) -> PkPlan:
    photos_per_step = size["photos_per_class"] * size["groups_per_process"] * size["num_processes"]
    return PkPlan(
        labels=size["labels"],
        photos_per_class=size["photos_per_class"],
        batch_size=photos_per_step * size["num_views"],
        num_views=size["num_views"],
        num_processes=num_processes or size["num_processes"],
        seed=size["seed"],
    )


def groups_of(plan: PkPlan, num_groups: int) -> list[list[Draw]]:
    """The first groups of a plan of one process."""
    draws: list[Draw] = []
    for step in range(-(-num_groups * plan.photos_per_class // plan.photos_per_step)):
        draws += plan.photos_of(step, 0)
    size = plan.photos_per_class
    return [draws[place * size : (place + 1) * size] for place in range(num_groups)]


@few
@given(pk_sizes)
def test_a_group_is_k_photos_of_one_class_on_one_process(size: dict[str, Any]) -> None:
    """Different ones unless the class has fewer, which then repeat as evenly as they can."""
    plan, num_of = pk_plan_of(size), Counter(size["labels"])
    k = size["photos_per_class"]
    for step in range(3):
        for rank in range(size["num_processes"]):
            draws = plan.photos_of(step, rank)
            assert len(draws) == k * size["groups_per_process"]
            for first in range(0, len(draws), k):
                ids = [draw.photo_id for draw in draws[first : first + k]]
                (label,) = {size["labels"][photo_id] for photo_id in ids}
                assert max(Counter(ids).values()) == -(-k // num_of[label])
                assert len(set(ids)) == min(k, num_of[label])


@few
@given(pk_sizes)
def test_each_round_holds_every_class_once_and_no_photo_is_lost(size: dict[str, Any]) -> None:
    """A class goes through all its photos in ceil(photos / K) rounds, then again; no padding."""
    plan, num_of = pk_plan_of(size, num_processes=1), Counter(size["labels"])
    num_rounds = 2 * max(-(-count // size["photos_per_class"]) for count in num_of.values())
    groups = groups_of(plan, num_rounds * len(num_of))
    by_class = defaultdict(list)
    for first in range(0, len(groups), len(num_of)):
        labels = [size["labels"][group[0].photo_id] for group in groups[first:][: len(num_of)]]
        assert sorted(labels) == sorted(num_of)
    for group in groups:
        by_class[size["labels"][group[0].photo_id]].append(group)
    for label, rounds in by_class.items():
        cycle = -(-num_of[label] // size["photos_per_class"])
        for first in range(0, len(rounds) - cycle + 1, cycle):
            seen = {draw.photo_id for group in rounds[first : first + cycle] for draw in group}
            assert len(seen) == num_of[label]


@few
@given(pk_sizes)
def test_no_two_draws_of_a_run_are_equal(size: dict[str, Any]) -> None:
    """A photo that repeats has another epoch, so its views differ."""
    plan = pk_plan_of(size)
    draws = [
        draw
        for step in range(12)
        for rank in range(size["num_processes"])
        for draw in plan.photos_of(step, rank)
    ]
    assert len(set(draws)) == len(draws)


# Both samplers: what makes the plan, and sizes for it.
either_plan = st.one_of(
    st.tuples(st.just(plan_of), sizes), st.tuples(st.just(pk_plan_of), pk_sizes)
)


@few
@given(either_plan)
def test_one_process_sees_the_batches_of_several(planned: tuple[Any, dict[str, Any]]) -> None:
    """The global batch does not depend on how many processes share it."""
    make, size = planned
    several, single = make(size), make(size, num_processes=1)
    for step in range(4):
        assert whole_step(several, step, size["num_processes"]) == whole_step(single, step, 1)


@few
@given(either_plan, st.integers(0, 9))
def test_a_resumed_plan_goes_on_exactly(planned: tuple[Any, dict[str, Any]], start: int) -> None:
    """Steps from the middle equal those of a run from the beginning, whatever is remembered."""
    make, size = planned
    whole = list(make(size).steps(0, start=0, stop=12))
    plan = make(size)
    assert list(plan.steps(0, start=start, stop=12)) == whole[start:]
    assert plan.photos_of(0, 0) == whole[0]


@few
@given(pk_sizes)
def test_no_photo_or_class_occurs_more_often_than_said(size: dict[str, Any]) -> None:
    """Both bounds hold at every step, also where rounds meet."""
    plan = pk_plan_of(size)
    for step in range(12):
        draws = whole_step(plan, step, size["num_processes"])
        assert max(Counter(d.photo_id for d in draws).values()) <= plan.most_occurrences
        classes = Counter(size["labels"][draw.photo_id] for draw in draws)
        assert max(classes.values()) <= plan.most_of_a_class(largest=9)


def test_photos_of_a_class_are_shuffled_evenly() -> None:
    """Over many permutations every photo of a class comes first equally often (chi-square)."""
    plan = PkPlan(
        labels=[0] * 6, photos_per_class=2, batch_size=18_000, num_views=1, num_processes=1, seed=1
    )
    photos = [draw.photo_id for draw in plan.photos_of(0, 0)]
    steps = [photos[first : first + 6] for first in range(0, len(photos), 6)]
    assert all(sorted(step) == list(range(6)) for step in steps)
    for place in range(6):
        counts = Counter(step[place] for step in steps)
        assert sum((counts[photo] - 500) ** 2 / 500 for photo in range(6)) < 20.5  # 0.1 %
    follows = Counter(pair for step in steps for pair in pairwise(step))
    assert sum((count - 500) ** 2 / 500 for count in follows.values()) < 59.7  # 0.1 %, 30


def test_a_pass_is_as_many_draws_as_there_are_photos() -> None:
    """For both plans, and it need not be whole steps."""
    sizes = {"batch_size": 24, "num_views": 2, "num_processes": 1, "seed": 0}
    plans = (
        BatchPlan(num_photos=30, **sizes),
        PkPlan(labels=[0, 1, 2] * 10, photos_per_class=4, **sizes),
    )
    assert [plan.steps_per_epoch for plan in plans] == [2.5, 2.5]
    assert [plan.description for plan in plans] == [
        "repeated augmentation, 12 photos x 2 views",
        "3 classes (of 3) x 4 photos x 2 views",
    ]


def test_a_batch_that_groups_do_not_divide_is_refused() -> None:
    """The message names K and the nearest batch size that works."""
    with pytest.raises(SamplerError, match="4 photos of a class x 2 processes: take 504"):
        PkPlan(
            labels=[0, 1],
            photos_per_class=4,
            batch_size=500,
            num_views=3,
            num_processes=2,
            seed=0,
        )


def test_a_batch_that_micro_batches_do_not_divide_is_refused() -> None:
    """The K photos of a class would be cut apart."""
    with pytest.raises(SamplerError, match="1 processes x 4 micro-batches: take 48"):
        PkPlan(
            labels=[0, 1],
            photos_per_class=4,
            batch_size=36,
            num_views=3,
            num_processes=1,
            seed=0,
            num_parts=4,
        )
