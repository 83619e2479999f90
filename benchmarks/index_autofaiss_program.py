"""Builds an index with autofaiss and searches it on request; run by its own interpreter.

    python index_autofaiss_program.py ROWS.npy K

The first line on standard output is JSON; then, for each line with a number of queries on
standard input, followed by their fp32 values, the fp32 scores of the neighbours.
"""

import json
import logging
import os
import sys
import time

import autofaiss
import faiss
import numpy as np

FLOAT_BYTES = 4


def main() -> None:
    """Build, then answer until the input ends."""
    rows, num_neighbours = np.load(sys.argv[1]), int(sys.argv[2])
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # autofaiss prints
        start = time.perf_counter()
        index, found = autofaiss.build_index(
            rows, save_on_disk=False, metric_type="ip", verbose=logging.ERROR
        )
        seconds = time.perf_counter() - start
        choice = f"{found['index_key']}, {found['index_param']}"
        answers.write(json.dumps({"seconds": seconds, "choice": choice}).encode() + b"\n")
        answers.flush()
        faiss.omp_set_num_threads(1)
        while line := sys.stdin.buffer.readline():
            data = sys.stdin.buffer.read(int(line) * rows.shape[1] * FLOAT_BYTES)
            queries = np.frombuffer(data, np.float32).reshape(int(line), -1)
            scores, _ = index.search(queries, num_neighbours)
            answers.write(scores.tobytes())
            answers.flush()


if __name__ == "__main__":
    main()
