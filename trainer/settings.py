"""The flags of the training program, put together."""

from pydantic import ConfigDict

from trainer.settings_data import LARGEST_SIDE, SMALLEST_SIDE, DataSettings
from trainer.settings_engine import EngineSettings
from trainer.settings_finish import WHITEN_POWER, FinishSettings
from trainer.settings_loss import LossSettings
from trainer.settings_model import ModelSettings
from trainer.settings_run import RunSettings

__all__ = ["FREE_ON_RESUME", "LARGEST_SIDE", "SMALLEST_SIDE", "WHITEN_POWER", "TrainConfig"]


# pydantic lists the fields of the last base first.
class TrainConfig(
    FinishSettings, EngineSettings, LossSettings, ModelSettings, DataSettings, RunSettings
):
    """Train a MultiGrain embedding; the defaults are the paper's recipe with a cosine."""

    model_config = ConfigDict(allow_inf_nan=False)


# What may differ between a run and its continuation without changing what it computes.
FREE_ON_RESUME = frozenset(
    (
        "data", "out", "val", "device", "num_workers", "num_threads", "log_every_steps",
        "checkpoint_every_minutes", "checkpoint_every", "keep_last", "keep_every", "resume",
        "resume_anyway", "dry_run", "tensorboard", "best_by", "best_mode",
        "validate_every", "validate_first", "report", "max_bad_share", "weights_licence",
        "whiten_dim", "whiten_photos", "whiten_power", "whiten_floor", "exponents",
        "more_test_sizes",
    )
)  # fmt: skip
