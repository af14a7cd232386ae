"""Stacks: which frames make one volume, in which order, on which grid."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nfops.arrays import Array
from nfops.grid import Grid
from nfops.io.dicom.frames import Frame
from nfops.io.dicom.places import (
    SamePixels,
    by_acquisition,
    by_echo,
    evened,
    find_places,
    in_time_order,
    once_each,
    side_by_side,
    without_copies,
)

SAME_DIRECTION = 1e-4
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Stack:
    """frames: frames[t][k] is slice k of volume t. steps: (K-1, 3) from each slice to the next, LPS mm.

    is_oriented: the file says where the slices are. label: what tells it from the other stacks of its series, if that
    is neither its shape nor its kind. `grid` is that of even slices from the first to the last.
    """

    frames: tuple[tuple[Frame, ...], ...]
    is_oriented: bool
    label: str = ""

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


def find_stacks(where: object, frames: Sequence[Frame], same_pixels: SamePixels) -> tuple[list[Stack], list[str]]:
    """The volumes that the frames of one series make, and what there is to say about them.

    Frames that differ in size, orientation, spacing or kind are volumes of their own; those that differ only in time,
    echo, b-value or acquisition are the fourth axis of one, echo after echo. Copies of an image count once (B34).

    Raises:
        InputError: two different images at one place, or a place that lacks an image.
    """
    single = without_copies(where, frames, same_pixels)
    kinds: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
    for frame in sorted(single, key=lambda frame: (frame.order, frame.clues, frame.path)):
        kinds[_kind(frame, kinds)].append(frame)
    stacks = _told_apart([stack for group in kinds.values() for stack in _stacks(where, group, same_pixels)])
    left_out = len(frames) - sum(len(volume) for stack in stacks for volume in stack.frames)
    return stacks, [f"{left_out} copies of images were left out"] if left_out else []


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


def _stacks(where: object, frames: list[Frame], same_pixels: SamePixels) -> list[Stack]:
    """The volumes of frames of one kind: side by side, or one, 4-D perhaps."""
    if frames[0].position_mm is None:
        return [_unplaced(file_frames) for file_frames in _by_file(frames)]
    lines = side_by_side(frames)
    if len(lines) > 1:
        return [stack for line in lines for stack in _stacks(where, line, same_pixels)]
    parts = by_echo(frames)
    if len(parts) > 1:
        return [_joined([_stacks(where, part, same_pixels)[0] for part in parts])]
    places = [once_each(where, place, same_pixels) for place in find_places(frames)]
    if len({len(place) for place in places}) > 1:
        parts = by_acquisition(frames)
        if len(parts) > 1:
            return [stack for part in parts for stack in _stacks(where, part, same_pixels)]
        places = evened(where, places, same_pixels)
    places = in_time_order(places)
    return [Stack(tuple(zip(*places, strict=True)), is_oriented=True)]


def _told_apart(stacks: list[Stack]) -> list[Stack]:
    """Stacks of one kind and size say in their labels where they begin."""
    names = [(stack.sizes, stack.frames[0][0].kind, stack.label) for stack in stacks]
    return [
        replace(stack, label=f"{stack.label} {_beginning(stack)}".strip())
        if stack.is_oriented and names.count(name) > 1
        else stack
        for stack, name in zip(stacks, names, strict=True)
    ]


def _beginning(stack: Stack) -> str:
    x, y, z = stack.grid().affine[:3, 3]
    return f"{stack.grid().orientation} from ({x:.4g}, {y:.4g}, {z:.4g}) mm"


def _joined(echoes: list[Stack]) -> Stack:
    """Stacks of the same slices as one with an echo after the other."""
    times = ", ".join(f"{stack.frames[0][0].echo_ms:g}" for stack in echoes)
    frames = tuple(volume for stack in echoes for volume in stack.frames)
    return replace(echoes[0], frames=frames, label=f"TE {times} ms")


def _by_file(frames: list[Frame]) -> list[list[Frame]]:
    """Images without a place: the frames of a file follow each other in time, and each file stands alone."""
    files: dict[Path, list[Frame]] = defaultdict(list)
    for frame in frames:
        files[frame.path].append(frame)
    return list(files.values())


def _unplaced(frames: list[Frame]) -> Stack:
    return Stack(tuple((frame,) for frame in sorted(frames, key=lambda f: f.index)), is_oriented=False)
