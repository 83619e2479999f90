"""What an index was asked to be: a string or a memory, kept from build to build."""

from index.codebook.factory import factory_strings
from index.codebook.footprint import human_bytes
from index.faiss_train import num_lists
from index.manifest import AskedPart, Manifest


def asked_now(
    parent: Manifest | None, *, num_live: int, dim: int, factory: str | None, ram: int | None
) -> AskedPart:
    """What a build goes by: what it is given, else what the generation before was asked for.

    A string given before is let go once the table, with as many live rows, has more lists.
    """
    given = AskedPart(factory=factory, ram=ram)
    if parent is None or given != AskedPart():
        return given
    is_outgrown = _lists_for(num_live, dim=dim) > _lists_for(parent.counts.live, dim=dim)
    return parent.asked.model_copy(update={"factory": None}) if is_outgrown else parent.asked


def to_record(parent: Manifest | None, asked: AskedPart) -> AskedPart:
    """What a generation remembers: being asked for the string that is there changes nothing."""
    is_there = parent is not None and asked == AskedPart(factory=parent.factory)
    return parent.asked if parent and is_there else asked


def kept_lines(parent: Manifest | None, asked: AskedPart, *, chosen: str) -> list[str]:
    """What a build that is given nothing says when it goes by what an earlier one was given."""
    before = parent.asked if parent else AskedPart()
    if before == AskedPart():
        return []
    if asked != before:
        return [f"the collection has outgrown --factory {before.factory}: {chosen} is taken"]
    flags = [f"--factory {before.factory}"] if before.factory else []
    flags += [f"--ram {human_bytes(before.ram)}"] if before.ram else []
    return [f"{chosen}, by {' '.join(flags)} of an earlier build; give either anew to change it"]


def _lists_for(num_rows: int, *, dim: int) -> int:
    return num_lists(factory_strings(num_rows=num_rows, dim=dim)[0], dim=dim)
