"""What mixup and CutMix leave to the loss: the second class of a view, and its share."""

from typing import NamedTuple

from torch import Tensor


class Mix(NamedTuple):
    """Of each view [B]: its partner's label, the share of its own, and whether it is mixed.

    The classes' target is `share * CE(label) + (1 - share) * CE(partner_label)`. A mixed view
    shows no one instance, so no pair may hold it. Views left alone have share 1.
    """

    partner_labels: Tensor  # int64 [B]
    share: Tensor  # float32 [B], in [0, 1]
    mixed: Tensor  # bool [B]
