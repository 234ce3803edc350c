"""What an ONNX file says of its network, and what is said where it is none."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from clara_wf.inference.onnx_file import check_graph, read_graph
from clara_wf.model.errors import InputError


@pytest.fixture
def saved(tmp_path):
    """Save a network that gives its input back."""

    def save(shape, output_shape):
        given = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
        answer = helper.make_tensor_value_info("score", TensorProto.FLOAT16, output_shape)
        nodes = [helper.make_node("Cast", ["image"], ["score"], to=TensorProto.FLOAT16)]
        graph = helper.make_graph(nodes, "tiny", [given], [answer])
        file = tmp_path / "model.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), file)
        return file

    return save


def test_what_has_a_name_in_place_of_a_length_is_open(saved):
    file = saved(["n", 1, "x", 16, "z"], ["n", 1, "x", 16, "z"])
    graph = check_graph(file)
    assert (graph.input.name, graph.input.type) == ("image", "FLOAT")
    assert (graph.output.name, graph.output.type) == ("score", "FLOAT16")
    assert graph.input.shape == graph.output.shape == (None, 1, None, 16, None)
    assert read_graph(file) == graph


def test_an_output_without_dimensions_is_open_in_all_of_them(saved):
    file = saved([1, 1, 8, 8, 8], [])
    assert check_graph(file).output.shape == (None,) * 5


def test_a_file_that_is_no_whole_model(saved, tmp_path):
    file = saved([1, 1, 8, 8], [1, 1, 8, 8])
    for look in (check_graph, read_graph):
        with pytest.raises(InputError, match="does not have one input"):
            look(file)
    for content in (b"", b"no network"):
        file.write_bytes(content)
        for look in (check_graph, read_graph):
            with pytest.raises(InputError, match=r"model\.onnx"):
                look(file)
    with pytest.raises(InputError, match=r"gone\.onnx is no valid ONNX model"):
        read_graph(tmp_path / "gone.onnx")
