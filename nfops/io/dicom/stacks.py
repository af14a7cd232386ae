"""Stacks: which frames make one volume, in which order, on which grid; and what is wrong where they make none."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.grid import Grid
from nfops.io.dicom.frames import Frame

SAME_DIRECTION = 1e-4
SAME_PLACE_MM = 0.01
UNEVEN = 0.01
UNEVEN_MM = 0.01
GAP = 1.5
TILT_PIXELS = 0.5
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
REGRID = "--resample-uniform puts them on even slices"


@dataclass(frozen=True, eq=False)
class Stack:
    """frames: frames[t][k] is slice k of volume t. steps: (K-1, 3) from each slice to the next, LPS mm.

    is_oriented: the file says where the slices are. `affine` is that of even slices from the first to the last.
    """

    frames: tuple[tuple[Frame, ...], ...]
    is_oriented: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(I, J, K): columns, rows, slices."""
        first = self.frames[0][0]
        return first.columns, first.rows, len(self.frames[0])

    @property
    def sizes(self) -> tuple[int, ...]:
        """(I, J, K), and T where there are several volumes."""
        return (*self.shape, len(self.frames)) if len(self.frames) > 1 else self.shape

    @property
    def positions_mm(self) -> Array:
        """(K, 3) centre of the first pixel of each slice, LPS."""
        return np.array([frame.position_mm or (0.0, 0.0, float(k)) for k, frame in enumerate(self.frames[0])])

    @property
    def heights_mm(self) -> Array:
        """(K,) of the slices along their normal."""
        return np.asarray(self.positions_mm @ self.frames[0][0].normal)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the stack comes from, each once."""
        return tuple(dict.fromkeys(frame.path for volume in self.frames for frame in volume))

    def grid(self) -> Grid:
        """The grid of the voxels, world RAS+; the third axis goes from the first slice to the last."""
        first = self.frames[0][0]
        between_rows, between_columns = first.spacing_mm or (1.0, 1.0)
        affine = np.eye(4)
        affine[:3, 0] = np.array(first.row_direction) * between_columns
        affine[:3, 1] = np.array(first.column_direction) * between_rows
        affine[:3, 2] = self._step()
        affine[:3, 3] = self.positions_mm[0]
        return Grid(self.shape, LPS_TO_RAS @ affine)

    def _step(self) -> Array:
        positions = self.positions_mm
        if len(positions) > 1:
            return np.asarray((positions[-1] - positions[0]) / (len(positions) - 1))
        first = self.frames[0][0]
        return first.normal * (first.thickness_mm or 1.0)


SamePixels = Callable[[Frame, Frame], bool]
"""Whether two frames hold the same image; asked only where two are at one place."""


def find_stacks(where: object, frames: Sequence[Frame], same_pixels: SamePixels) -> tuple[list[Stack], list[str]]:
    """The volumes that the frames of one series make, and what there is to say about them.

    Frames that differ in size, orientation, spacing or kind are volumes of their own; those that differ only in time,
    echo, b-value or acquisition are the fourth axis of one. Copies of an image count once (B34).

    Raises:
        InputError: two different images at one place, or a place that lacks an image.
    """
    single = _without_copies(where, frames, same_pixels)
    notes = [f"{len(frames) - len(single)} copies of images were left out"] if len(single) < len(frames) else []
    kinds: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
    for frame in single:
        kinds[_kind(frame, kinds)].append(frame)
    return [stack for group in kinds.values() for stack in _volumes(where, group, same_pixels)], notes


def _without_copies(where: object, frames: Sequence[Frame], same_pixels: SamePixels) -> list[Frame]:
    """Of frames with the same instance UID, one; they must be the same."""
    seen: dict[tuple[object, ...], Frame] = {}
    for frame in frames:
        other = seen.setdefault((frame.instance or frame.path, frame.index, frame.tile), frame)
        if other is not frame and not (other.position_mm == frame.position_mm and same_pixels(other, frame)):
            what = f"{other.path.name} and {frame.path.name} claim to be the same image and are not"
            raise InputError(where, what, "remove one")
    return list(seen.values())


def _kind(frame: Frame, known: dict[tuple[object, ...], list[Frame]]) -> tuple[object, ...]:
    """What is equal within a volume; directions are compared with those seen before, within a tolerance."""
    turn = np.array([*frame.row_direction, *frame.column_direction])
    exact = (frame.rows, frame.columns, frame.kind, frame.position_mm is None, frame.tile is None)
    for key, group in known.items():
        first = group[0]
        seen = np.array([*first.row_direction, *first.column_direction])
        is_near = np.abs(seen - turn).max() < SAME_DIRECTION and np.allclose(
            first.spacing_mm or 0, frame.spacing_mm or 0, rtol=1e-4, atol=0
        )
        if key[:5] == exact and is_near:
            return key
    return (*exact, len(known))


def _volumes(where: object, frames: list[Frame], same_pixels: SamePixels) -> list[Stack]:
    if frames[0].position_mm is None:
        return [_unplaced(file_frames) for file_frames in _by_file(frames)]
    places = _places(frames)
    if len({len(place) for place in places}) > 1:
        parts = _parts(frames)
        if parts:
            return [Stack((tuple(place[0] for place in _places(part)),), is_oriented=True) for part in parts]
        places = _evened(where, places, same_pixels)
    volumes = tuple(tuple(place[t] for place in places) for t in range(len(places[0])))
    return [Stack(volumes, is_oriented=True)]


def _evened(where: object, places: list[list[Frame]], same_pixels: SamePixels) -> list[list[Frame]]:
    """The same number of images at each place, copies under another UID left out; InputError where that fails."""
    usual = Counter(len(place) for place in places).most_common(1)[0][0]
    evened = [_distinct(place, same_pixels) if len(place) > usual else place for place in places]
    for place in evened:
        if len(place) != usual:
            what = f"{len(place)} images at the position {_place(place[0])}, {usual} at most others"
            hint = "remove the duplicates" if len(place) > usual else "a volume lacks slices: copy it again"
            raise InputError(where, what, hint)
    return evened


def _distinct(place: list[Frame], same_pixels: SamePixels) -> list[Frame]:
    distinct: list[Frame] = []
    for frame in place:
        if not any(same_pixels(other, frame) for other in distinct):
            distinct.append(frame)
    return distinct


def _by_file(frames: list[Frame]) -> list[list[Frame]]:
    """Images without a place: the frames of a file follow each other in time, and each file stands alone."""
    files: dict[Path, list[Frame]] = defaultdict(list)
    for frame in frames:
        files[frame.path].append(frame)
    return list(files.values())


def _unplaced(frames: list[Frame]) -> Stack:
    return Stack(tuple((frame,) for frame in sorted(frames, key=lambda f: f.index)), is_oriented=False)


def _places(frames: list[Frame]) -> list[list[Frame]]:
    """The frames of each position along the normal, in `order`; positions from the lowest on."""
    normal = frames[0].normal
    ordered = sorted(frames, key=lambda frame: float(np.dot(frame.position_mm or (), normal)))
    places: list[list[Frame]] = []
    height = -np.inf
    for frame in ordered:
        above = float(np.dot(frame.position_mm or (), normal))
        if above - height > SAME_PLACE_MM:
            places.append([])
            height = above
        places[-1].append(frame)
    return [sorted(place, key=lambda frame: (*frame.order, frame.index)) for place in places]


def _parts(frames: list[Frame]) -> list[list[Frame]]:
    """Frames told apart by time, echo or acquisition, if each such part has one image per position; else []."""
    groups: dict[tuple[float, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.order[:3]].append(frame)
    parts = list(groups.values())
    is_regular = len(parts) > 1 and all(len(part) > 1 and len(_places(part)) == len(part) for part in parts)
    return parts if is_regular else []


def _place(frame: Frame) -> str:
    x, y, z = frame.position_mm or (0.0, 0.0, 0.0)
    return f"({x:.2f}, {y:.2f}, {z:.2f})"


# --- whether the slices of a stack are those of a rectangular grid ---------------------------------------------------


@dataclass(frozen=True)
class Flaw:
    """Why a stack is no rectangular grid. is_tilted: the slices are shifted against each other, a gantry tilt."""

    what: str
    hint: str
    is_tilted: bool = False
    is_uneven: bool = False


def find_flaws(stack: Stack) -> list[Flaw]:
    """Slices that are missing, uneven or shifted against each other (B33, B35, B36); [] for a proper volume."""
    if not stack.is_oriented or stack.shape[2] == 1:
        return []
    return [*_uneven(stack), *_tilted(stack), *_wandering(stack)]


def _uneven(stack: Stack) -> list[Flaw]:
    heights = stack.heights_mm
    steps = np.diff(heights)
    if len(steps) < 2:
        return []
    usual = float(np.median(steps))
    if steps.max() > GAP * usual:
        k = int(np.argmax(steps))
        gap = f"{steps[k]:.4g} mm from {heights[k]:.4g} to {heights[k + 1]:.4g} mm along the normal"
        return [Flaw(f"a slice is missing: {gap}, {usual:.4g} mm elsewhere", REGRID, is_uneven=True)]
    if np.abs(steps - usual).max() > max(UNEVEN * usual, UNEVEN_MM):
        what = f"slices at uneven distances, from {steps.min():.4g} to {steps.max():.4g} mm"
        return [Flaw(what, REGRID, is_uneven=True)]
    return []


def _in_plane_mm(stack: Stack) -> Array:
    """(K, 2) how far each slice is shifted against the first, along columns and rows, mm."""
    first = stack.frames[0][0]
    moved = stack.positions_mm - stack.positions_mm[0]
    return np.stack([moved @ np.array(first.row_direction), moved @ np.array(first.column_direction)], axis=1)


def _tilted(stack: Stack) -> list[Flaw]:
    shift = _in_plane_mm(stack)
    spacing = (stack.frames[0][0].spacing_mm or (1.0, 1.0))[::-1]
    if (np.abs(shift[-1]) / spacing).max() <= TILT_PIXELS:
        return []
    height = stack.heights_mm[-1] - stack.heights_mm[0]
    angle = float(np.degrees(np.arctan2(np.linalg.norm(shift[-1]), height)))
    what = f"a tilted acquisition: its slices are shifted against each other, by {angle:.1f} degrees"
    return [Flaw(what, "--untilt puts them on a rectangular grid", is_tilted=True)]


def _wandering(stack: Stack) -> list[Flaw]:
    """Slices whose in-plane shift does not grow evenly with their height lie on no grid at all."""
    shift, heights = _in_plane_mm(stack), stack.heights_mm
    even = shift[-1] * ((heights - heights[0]) / (heights[-1] - heights[0]))[:, None]
    spacing = (stack.frames[0][0].spacing_mm or (1.0, 1.0))[::-1]
    k, axis = np.unravel_index(int(np.argmax(np.abs(shift - even) / spacing)), shift.shape)
    if abs(shift - even)[k, axis] / spacing[axis] <= TILT_PIXELS:
        return []
    return [Flaw(f"slice {k + 1} is shifted by {np.linalg.norm((shift - even)[k]):.3g} mm against its neighbours", "")]
