"""Every operator on latents as a graph of plain tensor operations: what torch computes, and scikit-learn before it."""

import dataclasses

import numpy as np
import onnx
import pytest
from latent_trials import P_IN, P_OUT, bundle_of, curved, fit, moved
from sklearn.svm import SVR
from test_ensemble import bundle_of as ensemble_bundle
from test_ensemble import fitted
from test_random_forest import SMALL, scikit_learns
from test_svr import LINEAR, ONE

from nfops.bundle_graphs import OPERATOR
from nfops.engines.onnx_sessions import GraphSession
from nfops.onnx_export import export_part
from nfops.operators import linear, random_forest, residual_mlp, svr

MLP = residual_mlp.Config(width=16, epochs=2, members=2, start="random")
CASES = {
    "linear": (linear, linear.Config(), {}),
    "svr": (svr, ONE, {}),
    "svr of components": (svr, dataclasses.replace(ONE, components=3, scale="each"), {"components": 3}),
    "svr of a small gamma": (svr, dataclasses.replace(ONE, gammas=(1e-3,), penalties=(1000.0,)), {}),
    "linear svr": (svr, LINEAR, {"kernel": "linear"}),
    "random-forest": (random_forest, SMALL, dataclasses.asdict(SMALL)),
}
PLAIN = {
    "Gemm",
    "MatMul",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Exp",
    "Tanh",
    "Pow",
    "ReduceSum",
    "ReduceMean",
    "Transpose",
    "Neg",
}
PLAIN |= {"Gather", "GatherND", "GatherElements", "Greater", "Where", "Cast", "Expand", "Shape", "Reshape", "Concat"}
PLAIN |= {"Unsqueeze", "Squeeze", "Slice", "Sigmoid", "LayerNormalization", "Identity"}


def random_latents(count: int = 1000, seed: int = 9) -> np.ndarray:
    spread = np.array([2, 1, 1, 0.7, 0.5, 0.3])
    return (np.random.default_rng(seed).normal(size=(count, P_IN)) * spread).astype(np.float32)


def graph_of(operator, backend: str, settings: dict):
    settings = {key: value for key, value in settings.items() if value is not None}
    graph = export_part(bundle_of(operator, backend, settings), OPERATOR)
    session = GraphSession(graph.content, OPERATOR)
    return graph, lambda latents: session.run(["moved"], {"latents": session.place(latents)})[0]


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_torch_computes_whatever_the_number_of_latents(name):
    module, config, settings = CASES[name]
    operator = fit(module, config, curved())
    backend = module.__name__.rpartition(".")[2].replace("_", "-")
    graph, run = graph_of(operator, backend, settings)
    assert {node.op_type for node in onnx.load_from_string(graph.content).graph.node} <= PLAIN
    largest = np.abs(moved(operator, random_latents())).max()
    for latents in (random_latents(), random_latents(1), 0.01 * random_latents(7)):
        assert np.abs(run(latents) - moved(operator, latents)).max() <= 1e-5 * largest


def test_a_perceptron_is_too():
    import torch

    operator = residual_mlp.Operator(MLP, P_IN, P_OUT).eval()
    for parameter in operator.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    _, run = graph_of(operator, "residual-mlp", {"width": 16, "members": 2})
    expected = moved(operator, random_latents())
    assert np.abs(run(random_latents()) - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("gamma", [0.5, 0.01])
def test_svr_is_scikit_learns_on_a_thousand_latents(gamma):
    source, target = curved(160)
    operator = fit(svr, dataclasses.replace(ONE, gammas=(gamma,), penalties=(30.0,)), (source, target))
    _, run = graph_of(operator, "svr", {})
    vectors, truth = source.vectors.astype(np.float64), target.vectors.astype(np.float64)
    centre, mean, deviation = vectors.mean(axis=0), truth.mean(axis=0), truth.std(axis=0)
    unit = np.sqrt(((vectors - centre) ** 2).mean())
    asked = (random_latents() - centre) / unit
    machine = SVR(gamma=gamma / P_IN, C=30.0, epsilon=0.1, tol=1e-4)
    fitted = [
        machine.fit((vectors - centre) / unit, column).predict(asked) for column in ((truth - mean) / deviation).T
    ]
    expected = np.stack(fitted, axis=1) * deviation + mean
    assert np.abs(run(random_latents()) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_forest_is_scikit_learns_on_a_thousand_latents():
    tables = curved()
    operator, predict = fit(random_forest, SMALL, tables), scikit_learns(SMALL, tables)
    _, run = graph_of(operator, "random-forest", dataclasses.asdict(SMALL))
    expected = predict(random_latents())
    assert np.abs(run(random_latents()) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_an_ensemble_gives_the_mean_and_what_each_member_says():
    members = "[{backend: linear}, {backend: svr}]"
    operator = fitted(members, curved(120))
    session = GraphSession(export_part(ensemble_bundle(operator, members), OPERATOR).content, OPERATOR)
    mean, each = session.run(["moved", "each"], {"latents": session.place(random_latents())})
    expected = moved(operator, random_latents())
    assert each.shape == (2, *expected.shape)
    assert np.abs(mean - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(each.mean(axis=0) - mean).max() <= 1e-6 * np.abs(expected).max()
    assert np.abs(each[0] - each[1]).max() > 0.01
