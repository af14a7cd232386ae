"""The sections of a recipe: every key with its type, its range, its default and a sentence for nfops-recipe(5)."""

from dataclasses import dataclass
from dataclasses import field as setting
from typing import Literal, TypeAlias

from nfops.annotations import about
from nfops.intensity import IntensitySettings
from nfops.recipe_geometry import Direction, require_different_axes
from nfops.schema import Section

Metric: TypeAlias = Literal["psnr", "ssim", "nrmse", "dice", "iou"]


@dataclass(frozen=True, kw_only=True)
class Intensity(IntensitySettings):
    """`source.intensity`, `target.intensity`: which two values become 0 and 1."""

    map: Literal["percentile", "range", "none"] = setting(
        default="percentile",
        metadata=about("What low and high are: percentiles of a scan, values in its own units, or not used."),
    )
    low: float = setting(default=0.1, metadata=about("What becomes 0."))
    high: float = setting(default=99.9, metadata=about("What becomes 1."))
    over: Literal["scan", "slice"] = setting(
        default="scan", metadata=about("Percentiles of the whole scan, or of each slice of a 2-D recipe.")
    )
    strict: bool = setting(
        default=False, metadata=about("map: range: refuse scans in other units, which else are warned about.")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.map == "range" and (self.low, self.high) == (0.1, 99.9):  # the defaults, which are percentiles
            raise ValueError("map: range needs low and high, in the scan's own units")


@dataclass(frozen=True, kw_only=True)
class Side:
    """What `source` and `target` have in common."""

    intensity: Intensity = setting(default_factory=Intensity, metadata=about("From a scan's units to 0..1."))
    head: Literal["identity", "sigmoid", "softmax"] = setting(
        default="identity",
        metadata=about("identity: intensities; sigmoid: labels one by one; softmax: one of several."),
    )
    labels: tuple[int, ...] | None = setting(
        default=None,
        metadata=about(
            "Values of the label image. softmax: a channel each; sigmoid: those inside (by default all above 0)."
        ),
    )
    field: Section = setting(
        metadata=about(
            "The neural field: its backbone and what that one takes, see nfops plugins.", selector="backbone"
        )
    )

    def __post_init__(self) -> None:
        if self.labels is None:
            return
        if self.head == "identity":
            raise ValueError("labels: only with head: sigmoid or softmax")
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: expected different integers, at least one")


@dataclass(frozen=True, kw_only=True)
class SourceSide(Side):
    """`source`: what the operator starts from."""

    nan: Literal["error", "zero", "keep"] = setting(
        default="error", metadata=about("Voxels that are no number: refuse the scan, read 0, or leave them out.")
    )
    constant: Literal["error", "pass"] = setting(
        default="error", metadata=about("A scan without contrast: refuse it, or let it through.")
    )


@dataclass(frozen=True, kw_only=True)
class TargetSide(Side):
    """`target`: what the operator makes."""

    output_range: Literal["training-median", "unit"] | tuple[float, float] = setting(
        default="training-median",
        metadata=about("Units of a predicted image: the median range of the training scans, 0..1, or [low, high]."),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.output_range, str) and not self.output_range[0] < self.output_range[1]:
            raise ValueError(f"output_range: low {self.output_range[0]:g} must be below high {self.output_range[1]:g}")


@dataclass(frozen=True, kw_only=True)
class Encode:
    """`encode`: how a scan becomes a latent."""

    solver: Literal["gauss-newton", "sgd"] = setting(
        default="gauss-newton",
        metadata=about(
            "How the latent is found: damped Gauss-Newton from the mean of the training latents, or the papers' plain "
            "gradient steps from zero. Fields linear in the latent are solved exactly by one step of the first."
        ),
    )
    steps: int = setting(default=4, metadata=about("Steps of the solver.", low=1))
    points: int = setting(
        default=4096,
        metadata=about(
            "Points of the scan that a step looks at, drawn evenly; a scan with fewer, or a linear field, uses all. "
            "gauss-newton: in the last step, never fewer than 2 for each entry of the latent; those before it look at "
            "fewer. sgd: drawn anew for each step.",
            low=1,
        ),
    )
    prior: float = setting(
        default=1e-6,
        metadata=about(
            "Weight of the distribution of training latents beside the mean loss of a scan's points. More draws scans "
            "to the cohort's mean: at 1e-3 a siren loses several dB.",
            low=0,
        ),
    )
    learning_rate: float = setting(
        default=1e-2, metadata=about("sgd: length of a step, in gradients of the mean squared error.", above=0)
    )


@dataclass(frozen=True, kw_only=True)
class Fit:
    """`fit`: how a field that has no fit of its own is meta-learned; encode.solver is its inner loop."""

    iterations: int = setting(default=5000, metadata=about("Batches to learn from.", low=1))
    minutes: float | None = setting(
        default=None, metadata=about("Learn for so long at most; the schedule of the learning rate knows.", above=0)
    )
    batch: int = setting(default=16, metadata=about("Scans of a batch.", low=1))
    points: int | None = setting(
        default=None, metadata=about("Points of a scan that the outer loss looks at; without it, all.", low=1)
    )
    learning_rate: float = setting(default=1e-3, metadata=about("Of the shared weights (AdamW).", above=0))
    schedule: Literal["cosine", "constant"] = setting(
        default="cosine", metadata=about("The learning rate after its rise: half a cosine down to 0, or constant.")
    )
    warm_up: int = setting(default=100, metadata=about("Iterations in which the learning rate rises.", low=0))
    weight_decay: float = setting(default=0.0, metadata=about("Of the shared weights.", low=0))
    decayed: Literal["weights", "all"] = setting(
        default="weights", metadata=about("What decays: matrices of the layers, or modulations and biases too.")
    )
    clip_norm: float | None = setting(
        default=1.0, metadata=about("Longest gradient; longer ones are shortened.", above=0)
    )
    inner_steps: int = setting(
        default=3, metadata=about("sgd: steps on each scan of a batch; gauss-newton takes one.", low=1)
    )
    context: float = setting(
        default=0.25,
        metadata=about(
            "Part of a scan's points that an inner step looks at, drawn anew (gamma); gauss-newton: never fewer than "
            "16 for each entry of the latent.",
            above=0,
            high=1,
        ),
    )
    learned_rates: bool = setting(
        default=False, metadata=about("sgd: learn one inner learning rate for each entry of the latent (meta-SGD).")
    )
    damping: float = setting(
        default=0.01,
        metadata=about("gauss-newton: weight of the latent's square, in units of the mean curvature.", above=0),
    )
    keep_graphs: bool = setting(
        default=False,
        metadata=about("sgd: keep the graphs of all inner steps in memory; a quarter quicker, several times larger."),
    )
    validate_every: int = setting(
        default=200, metadata=about("Iterations between two looks at the validation scans and two checkpoints.", low=1)
    )
    patience: int = setting(
        default=0, metadata=about("Stop after so many looks without a better one; 0: never.", low=0)
    )


@dataclass(frozen=True, kw_only=True)
class Affine:
    """`augment.affine`: the largest random turn, scale and shift."""

    rotate_deg: float = setting(default=0.0, metadata=about("Largest angle, in degrees.", low=0, high=180))
    scale: float = setting(default=0.0, metadata=about("Largest |logarithm| of the scale of an axis.", low=0, high=1))
    shift_mm: float = setting(default=0.0, metadata=about("Largest shift along an axis, in millimetres.", low=0))


@dataclass(frozen=True, kw_only=True)
class Augment:
    """`augment`: more training scans out of those there are."""

    affine: Affine = setting(default_factory=Affine, metadata=about("Random affine maps."))
    elastic_mm: float = setting(
        default=0.0, metadata=about("Largest displacement of a smooth random warp, in millimetres.", low=0)
    )
    flip: tuple[Direction, ...] = setting(default=(), metadata=about("Body axes along which a scan may be mirrored."))
    gamma: float = setting(default=0.0, metadata=about("Largest |logarithm| of the source's exponent.", low=0))
    noise: float = setting(
        default=0.0, metadata=about("Largest deviation of noise on the source, whose values go from 0 to 1.", low=0)
    )
    coarse: float = setting(
        default=1.0,
        metadata=about("The source is also shown at lower resolutions, down to this part.", above=0, high=1),
    )
    copies: int = setting(default=0, metadata=about("Augmented copies of every training scan.", low=0))

    def __post_init__(self) -> None:
        require_different_axes("flip:", self.flip)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """`evaluate`: what is measured."""

    metrics: tuple[Metric, ...] = setting(
        default=("psnr", "ssim"), metadata=about("What nfops evaluate measures; all that suit, where none does.")
    )
    resolutions: tuple[float, ...] = setting(
        default=(1.0,),
        metadata=about("Fractions of the full resolution that nfops evaluate encodes at.", above=0, high=1),
    )
    operators: dict[str, Section] = setting(
        default_factory=dict,
        metadata=about(
            "Operators that nfops evaluate --operators knows by these names, with settings as under operator; others "
            "have their defaults.",
            selector="backend",
        ),
    )
