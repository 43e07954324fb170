"""Boosted trees as an ONNX model: one TreeEnsembleClassifier, written with the `onnx` package alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millrace.core.answer_length import CLASSES
from millrace.core.lexical import FEATURES
from millrace.predictor.trees import Tree

OPSET, ML_OPSET, IR_VERSION = 18, 3, 9


def to_onnx(trees: Sequence[Tree]) -> bytes:
    """Return a model from `features` (float32, rows of 19) to the likeliest `class` and all `shares`."""
    from onnx import TensorProto, helper

    ensemble = helper.make_node(
        "TreeEnsembleClassifier",
        ["features"],
        ["class", "shares"],
        domain="ai.onnx.ml",
        classlabels_int64s=list(range(len(CLASSES))),
        post_transform="SOFTMAX",
        **_nodes(trees),
        **_leaves(trees),
    )
    asked = helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(FEATURES)])
    label = helper.make_tensor_value_info("class", TensorProto.INT64, [None])
    shares = helper.make_tensor_value_info("shares", TensorProto.FLOAT, [None, len(CLASSES)])
    graph = helper.make_graph([ensemble], "answer_length", [asked], [label, shares])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="millrace")
    made: bytes = model.SerializeToString()
    return made


def _nodes(trees: Sequence[Tree]) -> dict[str, Any]:
    places = [(number, node) for number, tree in enumerate(trees) for node in range(len(tree.feature))]
    features = [feature for tree in trees for feature in tree.feature]
    return {
        "nodes_treeids": [number for number, _ in places],
        "nodes_nodeids": [node for _, node in places],
        "nodes_featureids": [max(feature, 0) for feature in features],
        "nodes_modes": ["LEAF" if feature < 0 else "BRANCH_LEQ" for feature in features],
        "nodes_values": [threshold for tree in trees for threshold in tree.threshold],
        "nodes_truenodeids": [node for tree in trees for node in tree.left],
        "nodes_falsenodeids": [node for tree in trees for node in tree.right],
    }


def _leaves(trees: Sequence[Tree]) -> dict[str, Any]:
    leaves = [
        (number, node, tree.value[node])
        for number, tree in enumerate(trees)
        for node, feature in enumerate(tree.feature)
        if feature < 0
    ]
    return {
        "class_treeids": [number for number, _, _ in leaves],
        "class_nodeids": [node for _, node, _ in leaves],
        "class_ids": [number % len(CLASSES) for number, _, _ in leaves],
        "class_weights": [value for _, _, value in leaves],
    }
