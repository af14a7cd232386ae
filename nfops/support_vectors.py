"""Support vector regression of many outputs over one kernel: what operator `svr` fits by, with scikit-learn."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.progress import OnStep, Step

CHOICE_OUTPUTS = 32
"""Candidates are tried on so many of the outputs."""
TOLERANCE = 1e-4
"""At which the solvers stop: their answers are then determined to about as many standard deviations."""
MOST_ITERATIONS = 10_000
"""Of a linear machine, whose solver stops where it does not converge."""


@dataclass(frozen=True, eq=False)
class View:
    """How the kernel sees source latents: centre (P_in,), basis (P_in, seen) or None, spread (seen,)."""

    centre: Array
    basis: Array | None
    spread: Array

    @classmethod
    def of(cls, vectors: Array, components: int | None, scale: str) -> "View":
        """From (N, P_in) float64."""
        centre = vectors.mean(axis=0)
        seen, basis = vectors - centre, None
        if components:
            count = min(components, vectors.shape[1])
            basis = np.linalg.eigh(seen.T @ seen)[1][:, ::-1][:, :count]
            seen = seen @ basis
        deviation = seen.std(axis=0)
        together = np.full_like(deviation, np.sqrt((deviation**2).mean()))
        spread = deviation if scale == "each" else together
        return cls(centre, basis, np.maximum(spread, 1e-6 * spread.max() + 1e-12))

    def see(self, vectors: Array) -> Array:
        """(N, P_in) -> (N, seen) float64."""
        centred = vectors - self.centre
        return np.asarray((centred if self.basis is None else centred @ self.basis) / self.spread)


@dataclass(frozen=True, eq=False)
class Machines:
    """One epsilon-SVR an output. seen: (N, seen). wanted: (N, P_out), standardised by mean, deviation (P_out,).

    kernel: "rbf" or "linear". epsilon: in standard deviations of an output.
    """

    seen: Array
    wanted: Array
    mean: Array
    deviation: Array
    kernel: str
    epsilon: float

    @classmethod
    def of(cls, seen: Array, target: Array, kernel: str, epsilon: float) -> "Machines":
        """From what the kernel sees and target latents (N, P_out)."""
        mean, deviation = target.mean(axis=0), target.std(axis=0)
        deviation = np.maximum(deviation, 1e-6 * deviation.max() + 1e-12)
        return cls(seen, (target - mean) / deviation, mean, deviation, kernel, epsilon)

    def left_out_error(self, gamma: float, penalty: float, folds: Array, originals: Array) -> float:
        """Mean squared error, in the target's units, on the left-out patients' own scans (not their copies)."""
        outputs = np.argsort(-self.deviation)[:: -(-len(self.deviation) // CHOICE_OUTPUTS)]
        total = 0.0
        for fold in np.unique(folds):
            rest, probe = np.flatnonzero(folds != fold), np.flatnonzero((folds == fold) & originals)
            learned, asked = self._features(gamma, rest, rest), self._features(gamma, probe, rest)
            for output in outputs:
                slopes, intercept, _ = self._machine(learned, self.wanted[rest, output], penalty)
                error = (asked @ slopes + intercept - self.wanted[probe, output]) * self.deviation[output]
                total += float((error**2).sum())
        return total / max(int(originals.sum()), 1) / len(outputs)

    def solve(self, gamma: float, penalty: float, on_step: OnStep) -> tuple[Array, Array, int]:
        """A machine per output: coefficients (features, P_out), intercepts (P_out,), how many did not converge."""
        rows = np.arange(len(self.seen))
        features, outputs = self._features(gamma, rows, rows), self.wanted.shape[1]
        found = []
        for output in range(outputs):
            on_step(Step("support vectors", output, outputs))
            found.append(self._machine(features, self.wanted[:, output], penalty))
        slopes, intercepts, converged = zip(*found, strict=True)
        return np.stack(slopes, axis=1), np.array(intercepts), converged.count(False)

    def _features(self, gamma: float, rows: Array, columns: Array) -> Array:
        """(rows, columns) of the RBF kernel, or (rows, seen): what a machine is linear in."""
        one, other = self.seen[rows], self.seen[columns]
        if self.kernel == "linear":
            return one
        squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
        return np.asarray(np.exp(-gamma / self.seen.shape[1] * squares))

    def _machine(self, features: Array, wanted: Array, penalty: float) -> tuple[Array, float, bool]:
        """Coefficients of the features, intercept, and whether the solver converged."""
        fit: Callable[..., tuple[Array, float, bool]] = _linear if self.kernel == "linear" else _kernel
        return fit(features, wanted, penalty, self.epsilon)


def _kernel(kernel: Array, wanted: Array, penalty: float, epsilon: float) -> tuple[Array, float, bool]:
    from sklearn.svm import SVR

    machine = SVR(kernel="precomputed", C=penalty, epsilon=epsilon, tol=TOLERANCE).fit(kernel, wanted)
    coefficients = np.zeros(len(wanted))
    coefficients[machine.support_] = machine.dual_coef_[0]
    return coefficients, float(machine.intercept_[0]), True


def _linear(features: Array, wanted: Array, penalty: float, epsilon: float) -> tuple[Array, float, bool]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVR

    machine = LinearSVR(C=penalty, epsilon=epsilon, tol=TOLERANCE, max_iter=MOST_ITERATIONS, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(features, wanted)
    return machine.coef_, float(machine.intercept_[0]), bool(machine.n_iter_ < MOST_ITERATIONS)
