"""What nfops-bundle(5) says of the format."""

from nfops.bundle import FOREIGN_SUFFIXES, FORMAT, FORMAT_VERSION, MANIFEST
from nfops.bundle_graphs import GRAPHS


def format_description() -> list[str]:
    """Paragraphs on the format, for nfops-bundle(5)."""
    return [
        "A bundle is a directory. It is data only: JSON and safetensors, perhaps ONNX; no code and no pickle.",
        f"{MANIFEST}: format ({FORMAT!r}), format_version ({FORMAT_VERSION}), name, nfops and versions (of the "
        "software that fitted it), seed, recipe (the resolved one, complete), specs (for source and, unless the recipe "
        "has none, target: backbone and its form, dimensions, anatomical axes, radius_mm or none for "
        "unit frames, half_extent and spacing in field coordinates, head, labels, channels, latent size, intensity "
        "map, the range that a predicted 0 and 1 stand for, encode settings), operator (its form, those of the "
        "members of an ensemble on latents, the figures of its fit, source_residual: what the source field leaves of "
        "training scans, spread: how far the members of an ensemble lie apart on validation or training scans and, of "
        "one on fields, the spacing of its working grid and its condition), data (number of scans and patients, "
        "digests of the table and of all images; no names; for fields trained step by step their curves: iteration, "
        "training and validation loss, null where there was none), files (the sha256 of each file below).",
        "source.safetensors and, with a target, target.safetensors: the field's arrays (field.*) and prior_mean, "
        "prior_variance of its latents. A spline-basis field has field.mean (C, nodes...), field.basis (P, C, "
        "nodes...; 8-bit), field.basis_scale (P) and field.variance (P).",
        "operator.safetensors: the operator's arrays; an affine one has weight (P_out, P_in) and bias (P_out); an "
        "rbf-kernel centre, spread, perhaps basis (P_in, seen), support (S, seen), gamma, coefficients (S, P_out) and "
        "bias; a forest roots, feature, threshold, child and leaf of its nodes, values of its leaves (16-bit), "
        "value_scale, basis and mean; an ensemble those of its members, as members.0.weight. One on fields with "
        "condition latent has latent.weight (P_out, P_in) and latent.bias (P_out) beside its own: ridge, whose "
        "prediction, decoded, it sees. The file is absent until nfops train-operator has run.",
        f"{', '.join(GRAPHS)}: perhaps, what nfops export-onnx made of these arrays; training again drops them. The "
        "manifest's graphs has for each its sha256, opset, storage (float32 or float16: of the weights; all compute "
        "in float32) and parity: max_abs and relative (to the range of the values) differences from torch, on random "
        "and on real input. encode_step: latent (P), points (N, Q, d) in field coordinates, values (N, C) and weights "
        "(N) to sums over the points: loss, gradient (P), curvature (P, P) and its rows (N C, P). decode: latent "
        "(P) and points to values (N, C). operator: latents (B, P) to those moved and, of an ensemble, by "
        "each member; or field (B, C, grid...), positions (grid..., d) from its centre and, where the graph is made "
        "for more than the working grid's, spacing (d), to values and, of an ensemble, their deviation. Along each "
        "axis the working grid has a whole number of times its multiple of points; for an oinr on another, twice the "
        "working spacing is a whole number m of spacings, and there are a whole number of times m/2 multiples of "
        "points. apply, where asked for: points, values and weights of a scan and output_points to predicted values "
        "(M, C).",
        "Loading checks every sha256, refuses a newer format_version, refuses arrays with NaN or of the wrong shape, "
        "refuses graphs that point to other files or need operators beyond the ONNX standard, refuses a directory "
        f"with files of other kinds of model ({', '.join(FOREIGN_SUFFIXES)}; graphs that the manifest does not name), "
        "and never reads any other file in it.",
    ]
