"""The bare engine at batch 8, beside torch eager and OpenVINO called directly, interleaved.

    python -m benchmarks.embedding

ResNet-50 at 224 px with random weights, which cost what trained ones cost. Ours is
`Embedder.embed_pixels`, from prepared uint8 pixels to unit vectors. "Direct" is torchvision's
trunk with average pooling, converted and called without any code of ours. Each round runs
every engine once; a ratio is the median over rounds. Exits with 1 when a target is missed.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import openvino
import torch
import torchvision
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

from benchmarks.report import Target, judge, machine_facts
from multigrain.checkpoint import save_checkpoint
from multigrain.cpus import num_cpus
from multigrain.document import plain_document
from multigrain.embedder import Embedder
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing

BATCH_SIZE = 8
SIZE = 224
NUM_ROUNDS = 7
BATCHES_A_ROUND = 3

MIN_OVER_TORCH_BF16 = 3.0
# Within 10 % of the engine called directly.
MIN_OVER_DIRECT = 0.9

Pass = Callable[[], object]


def main() -> int:
    """Measure every engine, print the table, and judge."""
    torch.set_num_threads(num_cpus())
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, SIZE, SIZE, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        embedder = open_embedder(Path(folder))
        passes: dict[str, Pass] = {
            f"ours ({embedder.engine}, {embedder.precision})": lambda: embedder.embed_pixels(
                list(pixels), BATCH_SIZE
            ),
            "OpenVINO called directly": openvino_pass(pixels, embedder.precision),
            "torch bf16 eager, channels last": torch_pass(pixels, torch.bfloat16),
            "torch fp32 eager, channels last": torch_pass(pixels, torch.float32),
        }
        seconds = interleaved(passes)
    print_table(seconds)
    ours, direct, bf16, _ = seconds.values()
    return judge(
        [
            Target("ours / torch bf16 eager", ratio(bf16, ours), ">=", MIN_OVER_TORCH_BF16),
            Target("ours / OpenVINO directly", ratio(direct, ours), ">=", MIN_OVER_DIRECT),
        ]
    )


def open_embedder(folder: Path) -> Embedder:
    """Ours, on the engine it chooses by itself."""
    document = plain_document(
        backbone_name="resnet50", feature_dim=2048, preprocessing=Preprocessing(size=SIZE), p=3.0
    )
    checkpoint = folder / "resnet50.safetensors"
    save_checkpoint(checkpoint, MultiGrain.build(document), document)
    return Embedder.open(checkpoint, device="cpu", cache_dir=folder / "cache")


def bare_trunk() -> torch.nn.Module:
    """Torchvision's ResNet-50 up to its pooled features."""
    model = torchvision.models.resnet50()
    model.fc = torch.nn.Identity()
    return model.eval()


def torch_pass(pixels: np.ndarray, dtype: torch.dtype) -> Pass:
    """An eager forward pass, weights and input of one type, channels last."""
    trunk = bare_trunk().to(dtype).to(memory_format=torch.channels_last)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(dtype).div(255)

    def run() -> object:
        with torch.inference_mode():
            return trunk(batch)

    return run


def openvino_pass(pixels: np.ndarray, precision: str) -> Pass:
    """The bare trunk in OpenVINO, at its fixed shape, with the same precision."""
    example = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's deprecation
        decoder = TorchScriptPythonDecoder(
            bare_trunk(), example_input=(example,), skip_freeze=False
        )
        frontend = FrontEndManager().load_by_framework("pytorch")
        graph = frontend.convert(frontend.load(decoder))
    graph.reshape({0: list(example.shape)})
    hint = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": num_cpus(),
    }
    request = openvino.Core().compile_model(graph, "CPU", hint).create_infer_request()
    batch = example.numpy()
    return lambda: request.infer({0: batch}, share_inputs=True)


def interleaved(passes: dict[str, Pass]) -> dict[str, list[float]]:
    """Seconds a batch of every engine in every round; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for round_number in range(NUM_ROUNDS + 1):
        for name, run in passes.items():
            start = time.perf_counter()
            for _ in range(BATCHES_A_ROUND):
                run()
            if round_number > 0:
                seconds[name].append((time.perf_counter() - start) / BATCHES_A_ROUND)
    return seconds


def ratio(theirs: list[float], ours: list[float]) -> float:
    """How many times faster ours is: the median of the rounds' own ratios."""
    return median(a / b for a, b in zip(theirs, ours, strict=True))


def print_table(seconds: dict[str, list[float]]) -> None:
    """Photos a second: median, and the slowest and fastest round."""
    print("| engine | photos/s, median | slowest | fastest |\n|---|---|---|---|")
    for name, rounds in seconds.items():
        rates = [BATCH_SIZE / value for value in rounds]
        print(f"| {name} | {median(rates):.1f} | {min(rates):.1f} | {max(rates):.1f} |")
    print(
        f"\n{machine_facts()}; {NUM_ROUNDS} rounds of {BATCHES_A_ROUND} batches of {BATCH_SIZE}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
