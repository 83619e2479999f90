"""Photos that are gone all at once: taken away, or on a disk that is not mounted."""

from index.errors import IndexFolderError

# Below this a person may well have taken out more than half by hand.
MANY_PHOTOS = 100


def vanished_text(root: str, num_before: int, num_now: int) -> str | None:
    """A sentence when a collection shows none of its photos, or lost over half of many."""
    lost_most = num_before >= MANY_PHOTOS and 2 * num_now < num_before
    if num_before and (num_now == 0 or lost_most):
        return (
            f"--photos {root}: shows {num_now} photos, the last build found {num_before}: "
            "is a disk not mounted?"
        )
    return None


def require_present(root: str, num_before: int, num_now: int) -> None:
    """Raise IndexFolderError where `vanished_text` has something to say."""
    text = vanished_text(root, num_before, num_now)
    if text:
        raise IndexFolderError(
            f"{text} Nothing was changed; mount it, or give --allow-vanished if they may go"
        )
