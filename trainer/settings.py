"""The flags of the training program, put together."""

from typing import Self

from pydantic import ConfigDict, model_validator

from trainer.settings_data import LARGEST_SIDE, SMALLEST_SIDE, DataSettings
from trainer.settings_engine import EngineSettings
from trainer.settings_finish import WHITEN_POWER, FinishSettings
from trainer.settings_loss import PROXY_LOSSES, LossSettings, weighted_loss
from trainer.settings_model import ModelSettings
from trainer.settings_run import RunSettings
from trainer.settings_used import unused_setting

__all__ = ["FREE_ON_RESUME", "LARGEST_SIDE", "SMALLEST_SIDE", "WHITEN_POWER", "TrainConfig"]


# pydantic lists the fields of the last base first.
class TrainConfig(
    FinishSettings, EngineSettings, LossSettings, ModelSettings, DataSettings, RunSettings
):
    """Train a MultiGrain embedding; the defaults are the paper's recipe with a cosine."""

    model_config = ConfigDict(allow_inf_nan=False)

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        """Refuse what no part sees alone."""
        views = self.num_views * self.accumulate
        if self.batch_size % views:
            nearest = max(1, round(self.batch_size / views)) * views
            raise ValueError(
                f"--batch-size {self.batch_size} is not a multiple of {self.num_views} views x "
                f"{self.accumulate} micro-batches: take {nearest}"
            )
        of_classes = self.positives == "class" or any(
            weighted_loss(text).name in PROXY_LOSSES for text in self.pair_losses
        )
        if self.lambda_ == 0 and self.num_views == 1 and not of_classes:
            raise ValueError("--lambda 0 with one view a photo trains nothing: give --num-views 2")
        unused = unused_setting(self)
        if unused:
            raise ValueError(unused)
        return self


# What may differ between a run and its continuation without changing what it computes.
FREE_ON_RESUME = frozenset(
    (
        "data", "out", "val", "device", "num_workers", "num_threads", "log_every_steps",
        "checkpoint_every_minutes", "checkpoint_every", "keep_last", "keep_every", "resume",
        "resume_anyway", "dry_run", "tensorboard", "best_by", "best_mode",
        "validate_every", "validate_first", "report", "max_bad_share", "weights_licence",
        "whiten_dim", "whiten_photos", "whiten_power", "whiten_floor", "exponents",
        "more_test_sizes", "expect",
    )
)  # fmt: skip
