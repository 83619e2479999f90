"""Pair losses beside the margin loss: pytorch-metric-learning's, over the global batch.

B rows of one process, G = global rows, D embedding, K classes.
"""

from collections.abc import Callable

from torch import Tensor, nn

from multigrain.errors import MultiGrainError
from trainer.losses.gather import gather_batch
from trainer.losses.margin import NO_INSTANCE

# Losses whose pairs are of a view and a class: they take labels whatever the positives are.
OF_CLASSES = frozenset(("proxy-anchor", "proxy-nca"))


class PairLossError(MultiGrainError):
    """A pair loss that cannot be built."""


class PairLoss(nn.Module):
    """One of pytorch-metric-learning's losses, with its miner, on the global batch.

    Every process has the whole batch, so the same loss. The gradient that reaches a row is the
    sum over processes, which DDP's mean over processes turns into that of one process with the
    whole batch; that of the loss's own parameters is the same on every process.

    These losses choose their pairs by the values of tensors, so a GPU's host waits for them.
    """

    def __init__(self, loss: nn.Module, *, miner: nn.Module | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.miner = miner

    def forward(self, embedding: Tensor, groups: Tensor) -> Tensor:
        """Unit embeddings [B, D] and groups [B] -> the loss; rows of NO_INSTANCE are left out."""
        everything, all_groups = gather_batch(embedding), gather_batch(groups)
        kept = all_groups != NO_INSTANCE
        rows, row_groups = everything[kept], all_groups[kept]
        # No pair may be left; DDP still waits for a gradient of every parameter.
        zero: Tensor = 0 * everything.sum() + sum(0 * p.sum() for p in self.parameters())
        if not len(rows):
            return zero
        mined = self.miner(rows, row_groups) if self.miner is not None else None
        found: Tensor = self.loss(rows, row_groups, mined)
        return found + zero


def build_pair_loss(name: str, *, num_dims: int, num_classes: int) -> PairLoss:
    """Build a loss by its name, with the constants of its paper.

    Raises PairLossError without the library, or for proxies without classes.
    """
    if name in OF_CLASSES and not num_classes:
        raise PairLossError(f"pair loss {name} needs classes: give sub-folders, or another loss")
    try:
        from pytorch_metric_learning import losses, miners
    except ImportError as error:
        raise PairLossError(
            f"pair loss {name} is pytorch-metric-learning's, which is not installed: "
            f"pip install 'multigrain-retrieval[metric]'"
        ) from error
    build: dict[str, Callable[[], PairLoss]] = {
        # Hermans et al. 2017, "In defense of the triplet loss": the hardest positive and
        # negative of each anchor (section 2, batch hard); its margin for unit vectors is 0.2.
        "triplet": lambda: PairLoss(
            losses.TripletMarginLoss(margin=0.2), miner=miners.BatchHardMiner()
        ),
        # The same with a softplus instead of the margin.
        "triplet-soft": lambda: PairLoss(
            losses.TripletMarginLoss(margin=0.0, smooth_loss=True), miner=miners.BatchHardMiner()
        ),
        # Hadsell et al. 2006, section 2.1: positives at 0, negatives beyond 1.
        "contrastive": lambda: PairLoss(losses.ContrastiveLoss(pos_margin=0.0, neg_margin=1.0)),
        # Sun et al. 2020, section 4.4 (fine-grained retrieval): m 0.4, gamma 80.
        "circle": lambda: PairLoss(losses.CircleLoss(m=0.4, gamma=80)),
        # Wang et al. 2019, section 4.1: alpha 2, beta 50, lambda 1, epsilon 0.1; the library's
        # base 0.5 does better on unit vectors than the paper's 1.
        "multi-similarity": lambda: PairLoss(
            losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
            miner=miners.MultiSimilarityMiner(epsilon=0.1),
        ),
        # Khosla et al. 2020, section 4.4: temperature 0.1.
        "supcon": lambda: PairLoss(losses.SupConLoss(temperature=0.1)),
        # Chen et al. 2020 (SimCLR), section 5.1.
        "nt-xent": lambda: PairLoss(losses.NTXentLoss(temperature=0.1)),
        # Kim et al. 2020, section 4.2: alpha 32, delta 0.1.
        "proxy-anchor": lambda: PairLoss(
            losses.ProxyAnchorLoss(num_classes, num_dims, margin=0.1, alpha=32)
        ),
        # Movshovitz-Attias et al. 2017, section 3; on unit vectors with the scale of Teh et al.
        # 2020 (ProxyNCA++), whose temperature is 1/9.
        "proxy-nca": lambda: PairLoss(losses.ProxyNCALoss(num_classes, num_dims, softmax_scale=9)),
    }
    return build[name]()
