"""Places: which frames lie at one position, and in which order the images of a position follow each other in time."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.io.dicom.frames import NO_NUMBER, Frame

SAME_PLACE_PIXELS = 0.05
BESIDE_PIXELS = 0.5

SamePixels = Callable[[Frame, Frame], bool]
"""Whether two frames hold the same image; asked only where two are at one place."""


def find_places(frames: Sequence[Frame]) -> list[list[Frame]]:
    """The frames of each position along the normal; positions from the lowest on."""
    normal, tolerance = frames[0].normal, SAME_PLACE_PIXELS * min(frames[0].spacing_mm or (1.0,))
    heights = np.array([frame.position_mm for frame in frames]) @ normal
    places: list[list[Frame]] = []
    start = -np.inf
    for n in np.argsort(heights, kind="stable"):
        if heights[n] - start > tolerance:
            places.append([])
            start = heights[n]
        places[-1].append(frames[n])
    return places


def without_copies(where: object, frames: Sequence[Frame], same_pixels: SamePixels) -> list[Frame]:
    """Of frames that say that they are the same one image, one; they must be the same."""
    seen: dict[tuple[object, ...], Frame] = {}
    for frame in frames:
        name = (frame.instance or frame.path, frame.index, frame.tile, frame.position_mm, frame.order, frame.clues)
        other = seen.setdefault(name, frame)
        if other is not frame and not same_pixels(other, frame):
            what = f"{other.path.name} and {frame.path.name} claim to be the same image and are not"
            raise InputError(where, what, "remove one")
    return list(seen.values())


def once_each(where: object, place: list[Frame], same_pixels: SamePixels) -> list[Frame]:
    """The frames of a position that something tells apart; of copies under another UID one.

    Raises:
        InputError: two different images that nothing tells apart (C24).
    """
    seen: dict[tuple[object, ...], Frame] = {}
    for frame in place:
        other = seen.setdefault((frame.order, frame.clues), frame)
        if other is not frame and not same_pixels(other, frame):
            names = f"{other.path.name} and {frame.path.name}"
            what = f"two different images at the position {_written(frame)}, {names}, and nothing says which is first"
            raise InputError(where, what, "remove one")
    return list(seen.values())


def evened(where: object, places: list[list[Frame]], same_pixels: SamePixels) -> list[list[Frame]]:
    """The same number of images at each place, copies under another UID left out; InputError where that fails."""
    usual = Counter(len(place) for place in places).most_common(1)[0][0]
    even = [_distinct(place, same_pixels) if len(place) > usual else place for place in places]
    for place in even:
        if len(place) != usual:
            what = f"{len(place)} images at the position {_written(place[0])}, {usual} at most others"
            hint = "remove the duplicates" if len(place) > usual else "a volume lacks slices: copy it again"
            raise InputError(where, what, hint)
    return even


def _distinct(place: list[Frame], same_pixels: SamePixels) -> list[Frame]:
    distinct: list[Frame] = []
    for frame in place:
        if not any(same_pixels(other, frame) for other in distinct):
            distinct.append(frame)
    return distinct


def in_time_order(places: list[list[Frame]]) -> list[list[Frame]]:
    """Every place's frames in the same order of volumes, that of the instance numbers.

    A clue (time, acquisition...) overrules them only if it has one value for each volume, the same ones at every
    place, and the instance numbers mix these up: a clue that differs from slice to slice says nothing of volumes.
    """
    ordered = [sorted(place, key=lambda frame: (frame.order, frame.clues)) for place in places]
    for n in range(len(ordered[0][0].clues)):
        found = [[frame.clues[n] for frame in place] for place in ordered]
        volumes = sorted(set(found[0]))
        if len(volumes) == len(found[0]) > 1 and all(sorted(values) == volumes for values in found):
            if all(values == found[0] for values in found):
                return ordered
            return [sorted(place, key=lambda frame: frame.clues[n]) for place in ordered]
    return ordered


def by_echo(frames: list[Frame]) -> list[list[Frame]]:
    """The frames of each echo, if each has an echo and each echo as many images at every place; else all in one."""
    if any(frame.echo_ms == NO_NUMBER for frame in frames):
        return [frames]
    parts = sorted(_parts(frames, lambda frame: frame.echo_ms), key=lambda part: part[0].echo_ms)
    echoes = [find_places(part) for part in parts]
    count = len(find_places(frames))
    is_regular = all(len(places) == count and len({len(place) for place in places}) == 1 for places in echoes)
    return parts if is_regular else [frames]


def by_acquisition(frames: list[Frame]) -> list[list[Frame]]:
    """Frames told apart by time or acquisition, if each part has one image at each of its places; else all in one.

    Parts that cover the same places are volumes of one image, of which another lacks slices.
    """
    parts = _parts(frames, lambda frame: (frame.echo_ms, *frame.clues[:2]))
    if any(len(part) == 1 or len(find_places(part)) < len(part) for part in parts):
        return [frames]
    spans = {(len(part), round(_lowest(part), 1)) for part in parts}
    return parts if len(spans) == len(parts) else [frames]


def _lowest(frames: list[Frame]) -> float:
    return min(float(np.dot(frame.position_mm or (), frame.normal)) for frame in frames)


def side_by_side(frames: list[Frame]) -> list[list[Frame]]:
    """Frames of stacks that lie beside each other at the same heights: the stations of a moving table.

    All in one list where the frames of every place lie on top of each other.
    """
    if not any(_is_beside(place[0], frame) for place in find_places(frames) for frame in place[1:]):
        return [frames]
    lines: list[list[Frame]] = []
    for frame in frames:
        line = next((line for line in lines if not _is_beside(line[0], frame)), None)
        if line is None:
            lines.append([frame])
        else:
            line.append(frame)
    return lines


def _is_beside(one: Frame, other: Frame) -> bool:
    moved = np.array(other.position_mm) - np.array(one.position_mm)
    shift: Array = np.array([moved @ np.array(one.row_direction), moved @ np.array(one.column_direction)])
    return bool((np.abs(shift) / (one.spacing_mm or (1.0, 1.0))[::-1]).max() > BESIDE_PIXELS)


def _parts(frames: list[Frame], name: Callable[[Frame], object]) -> list[list[Frame]]:
    groups: dict[object, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[name(frame)].append(frame)
    return list(groups.values())


def _written(frame: Frame) -> str:
    x, y, z = frame.position_mm or (0.0, 0.0, 0.0)
    return f"({x:.2f}, {y:.2f}, {z:.2f})"
