"""The protocols by name."""

from collections.abc import Callable, Mapping

from trainer.protocols.by_name import copydays, holidays, ukbench
from trainer.protocols.disc import disc21
from trainer.protocols.landmarks import gldv2, roxford5k, rparis6k
from trainer.protocols.manifests import groups, manifest, verification
from trainer.protocols.products import cars, cub, in_shop, sop
from trainer.protocols.test_set import PairSet, QuerySet, Request

Loader = Callable[[Request], QuerySet | PairSet]

PROTOCOLS: Mapping[str, Loader] = {
    "manifest": manifest,
    "groups": groups,
    "verification": verification,
    "holidays": holidays,
    "ukbench": ukbench,
    "copydays": copydays,
    "roxford5k": roxford5k,
    "rparis6k": rparis6k,
    "gldv2": gldv2,
    "cub": cub,
    "cars": cars,
    "sop": sop,
    "in-shop": in_shop,
    "disc21": disc21,
}
