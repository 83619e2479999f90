"""Groups as one HTML file that needs nothing else: thumbnails inside, every text escaped."""

import base64
from collections.abc import Callable, Iterator, Sequence
from html import escape

from index.grouping.groups import Group, Member
from multigrain.photo import PhotoError
from multigrain.thumbnail import jpeg_thumbnail

# A file a browser still opens at once; the JSON holds every group.
MOST_GROUPS = 300
MOST_PHOTOS = 12
_SIDE = 160
_JPEG_QUALITY = 75

ReadPhoto = Callable[[int], bytes | None]

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>Near-duplicates</title>
<style>
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; }
body { margin: 1rem auto; max-width: 80rem; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: .5rem 0; }
ul { display: flex; flex-wrap: wrap; gap: .75rem; list-style: none; padding: 0; }
li { width: 160px; overflow-wrap: anywhere; font-size: .8rem; }
img, .none { width: 160px; height: 160px; object-fit: contain; background: #8882; }
.none { display: grid; place-items: center; }
</style></head><body>
"""


def groups_page(groups: Sequence[Group], *, title: str, read_photo: ReadPhoto) -> Iterator[str]:
    """The page's parts in order; `read_photo` gives a photo's bytes, None where they are gone."""
    yield f"{_HEAD}<h1>{escape(title)}</h1>\n"
    for number, group in enumerate(groups[:MOST_GROUPS], start=1):
        yield f"<section><h2>{number}: {len(group)} photos</h2><ul>\n"
        for member in group[:MOST_PHOTOS]:
            yield _item(member, read_photo(member.id))
        yield "</ul>" + _more(len(group) - MOST_PHOTOS, "photos") + "</section>\n"
    yield _more(len(groups) - MOST_GROUPS, "groups") + "</body></html>\n"


def _item(member: Member, photo: bytes | None) -> str:
    paths = "<br>".join(map(escape, member.paths))
    facts = f"{member.width} x {member.height}, {member.bytes:,} bytes, cosine {member.cosine:.4f}"
    return f"<li>{_picture(member, photo)}<div>{paths}</div><div>{facts}</div></li>\n"


def _picture(member: Member, photo: bytes | None) -> str:
    try:
        jpeg = None if photo is None else jpeg_thumbnail(photo, size=_SIDE, quality=_JPEG_QUALITY)
    except PhotoError:
        jpeg = None
    if jpeg is None:
        return '<div class="none">gone</div>'
    data = base64.b64encode(jpeg).decode()
    return f'<img alt="{escape(member.uri)}" src="data:image/jpeg;base64,{data}">'


def _more(num_left: int, what: str) -> str:
    return f"<p>and {num_left:,} more {what}</p>\n" if num_left > 0 else ""
