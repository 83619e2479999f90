"""The service beside the bare pipeline, in turns: one client, and many."""

from statistics import median
from typing import NamedTuple

from benchmarks.report import Target
from benchmarks.service_bench import Bare, Bench
from benchmarks.service_outcome import Outcome

NUM_CLIENTS = 32
NUM_ROUNDS = 3


class Round(NamedTuple):
    """The bare pipeline, ours with one client and with many, one after the other."""

    bare: Bare
    lone: Outcome
    many: Outcome

    def row(self) -> str:
        """Cells of a table: both rates, both processor times, both lone times in ms."""
        lone = 1000 * median(self.lone.answered)
        return (
            f"{self.bare.rate:.1f} | {self.many.rate:.1f} | {self.bare.cpu_seconds:.4f} | "
            f"{self.many.cpu_per_answer:.4f} | {1000 * self.bare.lone_seconds:.0f} | {lone:.0f}"
        )


def compare_with_bare(bench: Bench) -> list[Target]:
    """Ours against the bare pipeline of the same round."""
    rounds = list[Round]()
    print("\n| bare, photos/s | ours | bare, s of processor | ours | bare, lone ms | ours |")
    print("|---|---|---|---|---|---|")
    for _ in range(NUM_ROUNDS):
        bare = bench.bare(seconds=4)
        lone = bench.load(seconds=4, num_clients=1)
        rounds.append(Round(bare, lone, bench.load(seconds=8, num_clients=NUM_CLIENTS)))
        print(f"| {rounds[-1].row()} |")
    cpu = median(each.many.cpu_per_answer / each.bare.cpu_seconds for each in rounds)
    rate = median(each.many.rate / each.bare.rate for each in rounds)
    lone_ratio = median(median(each.lone.answered) / each.bare.lone_seconds for each in rounds)
    return [
        Target(f"processor time an answer / bare, {NUM_CLIENTS} clients", cpu, "<=", 1.15),
        Target(f"answers/s / bare, {NUM_CLIENTS} clients", rate, ">=", 0.75),
        Target("a lone request / a bare photo, p50", lone_ratio, "<=", 1.25),
    ]
