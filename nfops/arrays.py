"""The array type that signatures name; shapes and units are in the docstrings."""

from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
