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

    def save(shape, output_shape, *, types=(TensorProto.FLOAT, TensorProto.FLOAT)):
        given = helper.make_tensor_value_info("image", types[0], shape)
        answer = helper.make_tensor_value_info("score", types[1], output_shape)
        nodes = [helper.make_node("Cast", ["image"], ["score"], to=types[1])]
        graph = helper.make_graph(nodes, "tiny", [given], [answer])
        file = tmp_path / "model.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), file)
        return file

    return save


def test_what_has_a_name_in_place_of_a_length_is_open(saved):
    file = saved(["n", 1, "x", 16, "z"], ["n", 1, "x", 16, "z"])
    graph = check_graph(file)
    assert (graph.input.name, graph.input.type) == ("image", "FLOAT")
    assert (graph.output.name, graph.output.type) == ("score", "FLOAT")
    assert graph.input.shape == graph.output.shape == (None, 1, None, 16, None)
    assert read_graph(file) == graph


def test_an_output_without_dimensions_is_open_in_all_of_them(saved):
    file = saved([1, 1, 8, 8, 8], [])
    assert check_graph(file).output.shape == (None,) * 5


@pytest.mark.parametrize("shape", [[1], [1, 1, 8, 8], [1, 1, 8, 8, 8, 1]])
def test_an_output_of_other_dimensions(saved, shape):
    file = saved([1, 1, 8, 8, 8], shape)
    with pytest.raises(InputError, match=f"gives an output of {len(shape)} dimensions"):
        check_graph(file)


@pytest.mark.parametrize("name", ["UINT8", "INT64", "BOOL", "STRING", "FLOAT16", "DOUBLE"])
def test_what_is_no_32_bit_float_is_refused_by_name(saved, name):
    shape, other = [1, 1, 8, 8, 8], TensorProto.DataType.Value(name)
    for end, types in (("input", (other, TensorProto.FLOAT)), ("output", (TensorProto.FLOAT, other))):
        with pytest.raises(InputError, match=f"32-bit floats: its {end} is {name}, not FLOAT"):
            check_graph(saved(shape, shape, types=types))


def test_a_file_beyond_what_protobuf_reads(tmp_path):
    file = tmp_path / "model.onnx"
    with file.open("wb") as sink:
        sink.truncate(1 << 31)  # holes only: it takes no room
    for look in (check_graph, read_graph):
        with pytest.raises(InputError, match=r"model\.onnx is larger than an ONNX file can be \(2 GiB\)"):
            look(file)


def external() -> TensorProto:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def inner(tensor: TensorProto) -> onnx.GraphProto:
    nodes = [helper.make_node("Constant", [], ["w"], value=tensor)]
    return helper.make_graph(nodes, "inner", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [1])])


def sparse(tensor: TensorProto) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(tensor, helper.make_tensor("i", TensorProto.INT64, [1], [0]), [1])


def function(tensor: TensorProto) -> onnx.FunctionProto:
    nodes = [helper.make_node("Constant", [], ["w"], value=tensor)]
    return helper.make_function("own", "F", [], ["w"], nodes, [helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    "hide",
    [
        lambda model: model.graph.initializer.append(external()),
        lambda model: model.graph.sparse_initializer.append(sparse(external())),
        lambda model: model.graph.node.append(helper.make_node("Constant", [], ["w"], value=external())),
        lambda model: model.graph.node.append(helper.make_node("Constant", [], ["w"], sparse_value=sparse(external()))),
        lambda model: model.graph.node.append(
            helper.make_node("If", ["image"], ["w"], then_branch=inner(external()), else_branch=inner(external()))
        ),
        lambda model: model.functions.append(function(external())),
        lambda model: model.training_info.add().algorithm.CopyFrom(inner(external())),
    ],
)
def test_weights_in_other_files_are_refused_wherever_they_are_named(saved, hide, tmp_path, monkeypatch):
    file = saved([1, 1, 8, 8, 8], [1, 1, 8, 8, 8])
    model = onnx.load(file)
    hide(model)
    onnx.save(model, file)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(4))
    with pytest.raises(InputError, match="keeps its weights in other files"):
        check_graph(file)


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
