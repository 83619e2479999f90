"""What the device decides where no setting does: photos in a batch, threads that decode."""

from typing import NamedTuple

from service.settings import Settings

# OpenVINO is full at 8 photos; a GPU takes 32 in hardly more time than 8.
_MAX_BATCH_ON_CPU, _MAX_BATCH_ON_GPU = 8, 32
# More decoders than this fill no batch sooner, and take the cores that search.
_MAX_DECODERS_ON_GPU = 8


class DeviceSizes(NamedTuple):
    """Photos in one forward pass, and threads that decode."""

    max_batch: int
    decode_threads: int


def device_sizes(settings: Settings, *, device: str, num_cpus: int) -> DeviceSizes:
    """The settings' sizes, or the device's where they are left to it.

    A decoding thread holds at most one photo of max_pixels: there are no more of them than
    max_inflight_pixels allows.
    """
    on_cpu = device == "cpu"
    max_batch = settings.max_batch or (_MAX_BATCH_ON_CPU if on_cpu else _MAX_BATCH_ON_GPU)
    wanted = settings.decode_threads or (
        num_cpus if on_cpu else min(num_cpus, _MAX_DECODERS_ON_GPU)
    )
    affordable = max(1, settings.max_inflight_pixels // settings.max_pixels)
    return DeviceSizes(max_batch, min(wanted, affordable))
