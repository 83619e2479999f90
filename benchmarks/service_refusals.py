"""How long a refusal takes while far more clients come than the queue has places for."""

import time

from benchmarks.report import Target
from benchmarks.service_bench import Bench
from benchmarks.service_loads import LOAD_STARTS_SECONDS
from benchmarks.service_outcome import percentile_ms

NUM_CLIENTS = 300
WAVE_SECONDS, SECONDS = 3.0, 8.0
# Of one more client, whose process does nothing else: that of the 300 sends so many photos that it
# is itself late to read the answers.
RATE = 20.0


def measure_refusals(bench: Bench) -> list[Target]:
    """One more client's refusals, behind the first wave of all clients at once."""
    crowd = bench.begin_load(seconds=WAVE_SECONDS + SECONDS, num_clients=NUM_CLIENTS)
    time.sleep(LOAD_STARTS_SECONDS + WAVE_SECONDS)
    one = bench.load(seconds=SECONDS - 2 * LOAD_STARTS_SECONDS, rate=RATE)
    many = crowd.outcome()
    print(f"\n{NUM_CLIENTS} clients: {many.row()} (answers/s, refused/s, p50, p95, p99 ms, batch)")
    for name, refused in (("all, with the first wave", many.refused), ("one more", one.refused)):
        times = ", ".join(f"{percentile_ms(refused, each):.0f}" for each in (50, 95, 99))
        print(f"refusals of {name}: {len(refused)}; p50, p95, p99 ms: {times}")
    print(f"the one more was itself late, p99 ms: {percentile_ms(one.late, 99):.0f}")
    slowest = percentile_ms(one.refused, 99)
    return [Target("ms of a refusal, p99, saturated", slowest, "<=", 100.0)]
