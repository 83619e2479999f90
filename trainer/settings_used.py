"""Which part of the training program reads a setting, and what is idle without that part."""

from collections.abc import Callable
from typing import Any, NamedTuple

# The settings put together; their module imports this one.
Settings = Any

ENDING_SCHEDULES = ("cosine", "linear", "polynomial")
_HEAD = ("head", "head_scale", "head_margin", "label_smoothing")
_PAIRS = (
    "pair_losses", "positives", "alpha", "beta", "margin_divisor", "negatives", "effective_dim",
    "beta_rate_factor",
)  # fmt: skip
_WHITENING = ("whiten_photos", "whiten_power", "whiten_floor")


class Use(NamedTuple):
    """A setting, the choices of which one must be made for it, and whether one is."""

    setting: str
    choices: str
    is_made: Callable[[Settings], bool]


# A shipped recipe that one flag changes must stay valid: what such a flag makes idle is only
# said (`idle_settings`). `lambda` unset depends on the photos, and is not judged here.
USES = (
    Use("rate_power", "--schedule polynomial", lambda c: c.schedule == "polynomial"),
    Use(
        "final_rate",
        "--schedule cosine, linear or polynomial",
        lambda c: c.schedule in ENDING_SCHEDULES,
    ),
    Use(
        "rate_factor",
        "--schedule steps or exponential",
        lambda c: c.schedule in {"steps", "exponential"},
    ),
    Use("adam_beta2", "--optimiser adam, adamw or rmsprop", lambda c: c.optimiser != "sgd"),
    Use("mix_share", "--mixup or --cutmix", lambda c: c.mixup > 0 or c.cutmix > 0),
    Use("photos_per_class", "--sampler pk", lambda c: c.sampler == "pk"),
    Use("freeze_until", "--freeze", lambda c: bool(c.freeze)),
    Use("label_smoothing", "a --lambda above 0", lambda c: c.lambda_ != 0),
    Use("p", "--pooling gem", lambda c: c.pooling == "gem"),
    Use("exponents", "--pooling gem", lambda c: c.pooling == "gem" or not c.exponents),
    Use("val_fraction", "no --val", lambda c: not c.val or c.val_fraction == 0),
)


def unused_setting(config: Settings) -> str | None:
    """Return what to do about the first setting that would do nothing, None when all do."""
    for setting, choices, is_made in USES:
        if _is_changed(config, setting) and not is_made(config):
            flag = _flag(setting)
            default = type(config).model_fields[setting].default
            usual = "its default" if isinstance(default, tuple) else f"{flag} {default}"
            return (
                f"{flag} {getattr(config, setting)} does nothing here: it goes with {choices}; "
                f"give that, or leave {flag} out ({usual})"
            )
    return None


def idle_settings(config: Settings, *, lambda_: float) -> list[str]:
    """Name the changed settings that lambda, as decided, or --whiten-dim 0 makes idle."""
    idle = {
        f"lambda {lambda_:g}": (_HEAD if lambda_ == 0 else ()) + (_PAIRS if lambda_ == 1 else ()),
        "--whiten-dim 0": _WHITENING if config.whiten_dim == 0 else (),
    }
    changed = {
        reason: [_flag(name) for name in names if _is_changed(config, name)]
        for reason, names in idle.items()
    }
    return [
        f"with {reason} nothing uses {', '.join(flags)}"
        for reason, flags in changed.items()
        if flags
    ]


def _is_changed(config: Settings, name: str) -> bool:
    return bool(getattr(config, name) != type(config).model_fields[name].default)


def _flag(name: str) -> str:
    return f"--{name.removesuffix('_').replace('_', '-')}"
