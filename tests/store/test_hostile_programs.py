"""Archives that run code in torch's loader, and others that lie: refused with a reason, and nothing ran."""

from __future__ import annotations

import io
import json
import pickle
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.export.pt2_archive import constants

from service.errors import InvalidProgram
from service.network.program import ProgramNetwork
from service.store import program as programs
from tests.store.programs import (
    CONSTANTS,
    MODEL,
    SAMPLES,
    WEIGHTS,
    entries_of,
    node,
    nodes,
    packed,
    saved,
    signature,
    small,
    with_document,
    with_entries,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def honest() -> bytes:
    return saved(small())


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    """A file that any payload makes when it runs."""
    return tmp_path / "it-ran"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def code(path: Path) -> str:
    """The same as an expression of Python."""
    return f"open({str(path)!r}, 'w')"


def pickled(path: Path) -> bytes:
    """A file of `torch.save` that needs an unpickler which allows everything."""
    file = io.BytesIO()
    torch.save(Payload(path), file)
    return file.getvalue()


def why_not(content: bytes) -> str:
    with pytest.raises(InvalidProgram) as caught:
        ProgramNetwork(programs.vet(content))
    return str(caught.value)


def use_torch(content: bytes) -> None:
    """What somebody does who trusts the file; the payload runs before anything complains."""
    try:
        torch.export.load(io.BytesIO(content)).module()(torch.zeros(2, 3, 8, 8))
    except Exception:  # noqa: BLE001 - whatever comes after the payload
        return


# What runs code in torch's loader


def in_a_size(honest: bytes, path: Path) -> bytes:
    def change(document: Any) -> None:
        values = document["graph_module"]["graph"]["tensor_values"]
        values["x"]["sizes"][0]["as_expr"]["expr_str"] = code(path)

    return with_document(honest, change)


def in_the_sample_inputs(honest: bytes, path: Path) -> bytes:
    return with_entries(honest, data__sample_inputs__model=None, **{SAMPLES: pickled(path)})


def in_a_pickled_weight(honest: bytes, path: Path) -> bytes:
    def change(document: Any) -> None:
        document["config"]["conv.weight"].update(use_pickle=True)

    entries = entries_of(with_document(honest, change, WEIGHTS))
    name = json.loads(entries[WEIGHTS])["config"]["conv.weight"]["path_name"]
    return packed({**entries, f"data/weights/{name}": pickled(path)})


def in_a_pickled_constant(honest: bytes, path: Path) -> bytes:
    def change(document: Any) -> None:
        next(iter(document["config"].values())).update(use_pickle=True)

    entries = entries_of(with_document(honest, change, CONSTANTS))
    return packed({**entries, "data/constants/tensor_0": pickled(path)})


def in_weights_of_the_old_layout(honest: bytes, path: Path) -> bytes:
    return with_entries(honest, **{"data/weights/model.pt": pickled(path)})


def in_constants_of_the_old_layout(honest: bytes, path: Path) -> bytes:
    return with_entries(honest, **{"data/constants/model.pt": pickled(path)})


def in_an_opaque_object(honest: bytes, path: Path) -> bytes:
    def change(document: Any) -> None:
        meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        document["config"]["thing"] = meta

    changed = with_document(honest, change, CONSTANTS)
    return with_entries(changed, **{"data/constants/opaque_obj_0": pickle.dumps(Payload(path))})


def in_the_guards(honest: bytes, path: Path) -> bytes:
    return with_document(honest, lambda document: document.update(guards_code=[code(path)]))


def in_an_enum_of_the_inputs(honest: bytes, path: Path) -> bytes:
    """A tree of inputs whose type is an enumeration of any module, which is imported."""
    (path.parent / "module_of_the_liar.py").write_text(code(path), encoding="utf-8")

    def change(document: Any) -> None:
        leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
        key = [{"__enum__": True, "fqn": "module_of_the_liar:A", "name": "a"}]
        table = {"type": "builtins.dict", "context": json.dumps(key), "children_spec": [leaf]}
        tree = {"type": "builtins.tuple", "context": "null", "children_spec": [table]}
        document["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps([1, tree])

    return with_document(honest, change)


def in_a_defaultdict_of_the_outputs(honest: bytes, path: Path) -> bytes:
    (path.parent / "module_of_the_liar.py").write_text(code(path), encoding="utf-8")

    def change(document: Any) -> None:
        context = {
            "default_factory_module": "module_of_the_liar",
            "default_factory_name": "A",
            "dict_context": [],
        }
        tree = {"type": "collections.defaultdict", "context": context, "children_spec": []}
        document["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps([1, tree])

    return with_document(honest, change)


RUNS_CODE: list[tuple[Callable[[bytes, Path], bytes], str]] = [
    (in_a_size, "no expression of sizes"),
    (in_a_pickled_weight, "pickled (use_pickle)"),
    (in_a_pickled_constant, "pickled (use_pickle)"),
    (in_weights_of_the_old_layout, "holds weights in the old, pickled layout"),
    (in_constants_of_the_old_layout, "holds constants in the old, pickled layout"),
    (in_an_opaque_object, "holds a pickled object"),
    (in_the_guards, "Python code (guards_code)"),
    (in_an_enum_of_the_inputs, "have the context"),
    (in_a_defaultdict_of_the_outputs, "of type 'collections.defaultdict'"),
]


@pytest.fixture
def liars_module(sentinel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(sentinel.parent))
    monkeypatch.delitem(sys.modules, "module_of_the_liar", raising=False)


@pytest.mark.usefixtures("liars_module")
@pytest.mark.parametrize(("attack", "reason"), RUNS_CODE, ids=[attack.__name__ for attack, _ in RUNS_CODE])
@pytest.mark.filterwarnings("ignore")
def test_what_torch_would_run_is_refused_and_not_run(
    honest: bytes, sentinel: Path, attack: Callable[[bytes, Path], bytes], reason: str
) -> None:
    content = attack(honest, sentinel)
    assert reason in why_not(content)
    assert not sentinel.exists()
    use_torch(content)
    if attack is in_an_opaque_object and not hasattr(constants, "OPAQUE_OBJ_FILENAME_PREFIX"):
        return  # torch reads them from 2.13 on; the refusal holds in any
    assert sentinel.exists(), "the archive is harmless, so that this test proves nothing"


@pytest.mark.parametrize("values", ["sym_int_values", "sym_bool_values", "sym_float_values"])
def test_code_in_a_symbol_is_refused(honest: bytes, sentinel: Path, values: str) -> None:
    def change(document: Any) -> None:
        symbol = {"as_expr": {"expr_str": code(sentinel), "hint": None}}
        document["graph_module"]["graph"][values] = {"s": symbol}

    assert "no expression of sizes" in why_not(with_document(honest, change))
    assert not sentinel.exists()


@pytest.mark.filterwarnings("ignore")
def test_sample_inputs_are_never_read_and_are_gone_when_the_program_is_written_again(
    honest: bytes, sentinel: Path
) -> None:
    content = in_the_sample_inputs(honest, sentinel)
    program = programs.vet(content)
    ProgramNetwork(program)
    assert entries_of(programs.rewritten(program))[SAMPLES] == b""
    assert not sentinel.exists()
    use_torch(content)
    assert sentinel.exists()


# What calls something, or carries it


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.as_strided.default",
        "torch.ops.aten.empty.memory_format",
        "torch.ops.aten.set_.source_Storage",
        "torch.ops.aten.rand.default",
        "torch.ops.aten.relu.out",
        "torch.ops.aten.relu",
        "torch.ops.prim.device.default",
        "torch.ops.mkldnn._linear_pointwise.default",
        "torch.ops.mine.anything.default",
        "torch.ops.higher_order.cond",
        "torch.ops.load_library",
        "torch.hub.load",
        "torch.serialization.os.system",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "math.sqrt",
        "#extension:anything",
        "builtins.exec",
        "",
    ],
)
def test_an_operator_that_is_not_on_the_list_is_refused(honest: bytes, target: str) -> None:
    content = with_document(honest, lambda d: node(d, "aten.relu.default").update(target=target))
    assert "not on the list of operators" in why_not(content)


@pytest.mark.parametrize(
    "argument",
    [
        {"as_graph": {"name": "g", "graph": {}}},
        {"as_custom_obj": {"name": "o", "class_fqn": "__torch__.torch.classes.A"}},
        {"as_operator": "torch.ops.aten.relu.default"},
        {"as_string_to_argument": {"a": {"as_int": 1}}},
        {"as_complex": {"real": 0.0, "imag": 1.0}},
        {"as_int": 1, "as_bool": True},
        {"as_layout": 1},
        {"as_int": 1 << 63},
        {"as_tensor": "relu"},
        {},
        7,
    ],
)
def test_an_argument_of_another_kind_is_refused(honest: bytes, argument: Any) -> None:
    def change(document: Any) -> None:
        node(document, "aten.relu.default")["inputs"][0]["arg"] = argument

    assert "models/model.json" in why_not(with_document(honest, change))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("data/constants/custom_obj_0", "holds a pickled object"),
        ("data/aotinductor/model/model.so", "holds compiled code"),
        ("data/executorch/model.pte", "holds a program of another kind"),
        ("extra/notes.txt", "is an extra file"),
        ("models/second.json", "is a second model"),
        ("data/weights/weight_0.py", "is unknown"),
        ("data/weights/weight_", "is unknown"),
        ("anything", "is unknown"),
    ],
)
def test_an_entry_that_is_not_known_is_refused(honest: bytes, name: str, reason: str) -> None:
    assert reason in why_not(with_entries(honest, **{name: b"{}"}))


def test_an_archive_of_the_layout_before_pt2_is_refused_with_what_to_do() -> None:
    content = packed({"a": b""}, root="serialized_exported_program.json")
    assert "export it again with torch 2.11 or later" in why_not(content)


# What lies about numbers


def tensor_meta(document: Any, name: str = "conv.weight") -> Any:
    return document["config"][name]["tensor_meta"]


def sizes(*numbers: int) -> list[dict[str, int]]:
    return [{"as_int": number} for number in numbers]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: tensor_meta(d).update(sizes=sizes(4, 3, 3, 4)), "reaches beyond"),
        (lambda d: tensor_meta(d).update(sizes=sizes(1 << 40, 3, 3, 3)), "reaches beyond"),
        (lambda d: tensor_meta(d).update(strides=sizes(27, 9, 3, 2)), "reaches beyond"),
        (lambda d: tensor_meta(d).update(strides=sizes(1 << 47, 9, 3, 1)), "reaches beyond"),
        (lambda d: tensor_meta(d).update(strides=sizes(27, 9, 3)), "reaches beyond"),
        (lambda d: tensor_meta(d).update(storage_offset={"as_int": 1}), "reaches beyond"),
        (lambda d: tensor_meta(d).update(strides=sizes(0), sizes=sizes(109)), "reaches beyond"),
        (lambda d: tensor_meta(d).update(strides=sizes(-27, 9, 3, 1)), "greater than or equal to 0"),
        (lambda d: tensor_meta(d).update(storage_offset={"as_int": -1}), "greater than or equal to 0"),
        (lambda d: tensor_meta(d).update(sizes=sizes(1 << 62)), "less than"),
        (lambda d: tensor_meta(d).update(sizes=sizes(*[1] * 17)), "at most 16"),
        (lambda d: tensor_meta(d).update(dtype=33), "dtype that is not supported"),
        (
            lambda d: tensor_meta(d, "head.bias").update(dtype=5),
            "no whole number of elements",
        ),
        (lambda d: tensor_meta(d).update(layout=1), "layout"),
        (lambda d: tensor_meta(d).update(sizes=[{"as_expr": {"expr_str": "4"}}]), "depends on the input"),
        (lambda d: d["config"]["conv.weight"].update(tensor_meta=None), "tensor_meta"),
        (lambda d: d["config"]["conv.weight"].update(path_name="../../../etc/passwd"), "path_name"),
        (lambda d: d["config"]["conv.weight"].update(path_name="weight_999"), "has no bytes"),
        (lambda d: d["config"].pop("conv.weight"), "'conv.weight' is missing"),
        (
            lambda d: d["config"].update({"__class__": d["config"]["conv.weight"]}),
            "no stored tensor can have",
        ),
        (lambda d: d["config"].update({"forward": d["config"]["conv.weight"]}), "no stored tensor can have"),
        (lambda d: d["config"].update({"_steps": d["config"]["conv.weight"]}), "no stored tensor can have"),
        (lambda d: d["config"].update({"": d["config"]["conv.weight"]}), "no stored tensor can have"),
        (lambda d: d["config"].update({"a..b": d["config"]["conv.weight"]}), "no module can have"),
        (lambda d: d["config"].update({"forward.w": d["config"]["conv.weight"]}), "no module can have"),
        (lambda d: d["config"].update({"__x.w": d["config"]["conv.weight"]}), "no module can have"),
        (lambda d: d["config"].update({"a." * 33 + "w": d["config"]["conv.weight"]}), "no module can have"),
        (lambda d: d["config"].update({"conv.weight.a": d["config"]["conv.weight"]}), "no module can have"),
    ],
)
def test_a_stored_tensor_that_lies_is_refused(
    honest: bytes, change: Callable[[Any], object], reason: str
) -> None:
    assert reason in why_not(with_document(honest, change, WEIGHTS))


# What lies about the graph


def add_input(document: Any) -> None:
    signature(document)["input_specs"].append({"user_input": {"arg": {"as_tensor": {"name": "y"}}}})


def renamed_argument(document: Any) -> None:
    node(document, "aten.relu.default")["inputs"][0]["name"] = "file"


def doubled_argument(document: Any) -> None:
    node(document, "aten.relu.default")["inputs"] *= 2


def made_twice(document: Any) -> None:
    nodes(document).append(node(document, "aten.relu.default"))


def nested(document: Any) -> None:
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    document["graph_module"]["module_call_graph"] = deep


def changes_a_buffer(document: Any) -> None:
    mutation = {"arg": {"name": "relu"}, "buffer_name": "norm.running_mean"}
    signature(document)["output_specs"].insert(0, {"buffer_mutation": mutation})


def fixed_batch(document: Any) -> None:
    document["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = {"as_int": 2}


def other_dtype(document: Any) -> None:
    document["graph_module"]["graph"]["tensor_values"]["x"]["dtype"] = 8


def dropping_out(document: Any) -> None:
    relu = node(document, "aten.relu.default")
    relu["target"] = "torch.ops.aten.dropout.default"
    relu["inputs"][0]["name"] = "input"
    relu["inputs"] += [
        {"name": "p", "arg": {"as_float": 0.5}, "kind": 1},
        {"name": "train", "arg": {"as_bool": True}, "kind": 1},
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: node(d, "aten.relu.default")["inputs"].clear(), "has no argument 'self'"),
        (renamed_argument, "has no argument 'self'"),
        (doubled_argument, "is there twice"),
        (made_twice, "is made twice"),
        (lambda d: nodes(d).reverse(), "before it is made"),
        (lambda d: nodes(d).clear(), "nothing makes its output"),
        (add_input, "not exactly one input"),
        (lambda d: signature(d)["output_specs"].clear(), "not exactly one output"),
        (
            lambda d: signature(d)["output_specs"].append(signature(d)["output_specs"][0]),
            "exactly one output",
        ),
        (changes_a_buffer, "'buffer_mutation' is not supported"),
        (fixed_batch, "its batch size is fixed"),
        (other_dtype, "export the network in float32"),
        (dropping_out, "draws random numbers"),
        (lambda d: d["schema_version"].update(major=9), "schema_version"),
        (lambda d: d.update(verifiers=["MINE"]), "verifiers"),
        (lambda d: d.update(something_new={"a": 1}), "'something_new' is not supported"),
        (lambda d: d["graph_module"]["graph"].update(custom_obj_values={"a": {}}), "custom_obj_values"),
        (lambda d: d.pop("graph_module"), "Field required"),
        (lambda d: d.update(graph_module=[1]), "graph_module"),
    ],
)
def test_a_graph_that_lies_is_refused(honest: bytes, change: Callable[[Any], object], reason: str) -> None:
    assert reason in why_not(with_document(honest, change))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"9" * 10_000 + b"}",
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b'"guards_code"',
    ],
)
def test_what_is_no_json_object_is_refused(honest: bytes, text: bytes) -> None:
    assert "models/model.json" in why_not(packed({**entries_of(honest), "models/model.json": text}))


@pytest.mark.parametrize("name", ["models/model.json", WEIGHTS, CONSTANTS])
def test_a_missing_document_is_refused(honest: bytes, name: str) -> None:
    entries = entries_of(honest)
    del entries[name]
    assert f"{name!r} is missing" in why_not(packed(entries))


@pytest.mark.parametrize(
    ("name", "value"), [("archive_format", b"pt1"), ("archive_version", b"1"), ("byteorder", b"big")]
)
def test_another_format_is_refused(honest: bytes, name: str, value: bytes) -> None:
    assert name in why_not(with_entries(honest, **{name: value}))


@pytest.mark.parametrize(
    "text",
    [
        "s0.__class__",
        "Symbol('s0').func",
        "Symbol('s0', positive=open('a'))",
        "Integer(1).__class__",
        "lambda: 0",
        "[].append(1)",
        "1 if 1 else 2",
        'Symbol("s0")',
        "x",
        "exec(1)",
        "1;2",
        "1\n",
        "",
        "1" * 600,
        "(" * 400,
    ],
)
def test_a_size_is_sums_and_products_of_symbols(honest: bytes, text: str) -> None:
    def change(document: Any) -> None:
        values = document["graph_module"]["graph"]["tensor_values"]
        values["relu"]["sizes"][0]["as_expr"]["expr_str"] = text

    assert why_not(with_document(honest, change))


def test_a_number_beyond_what_numbers_can_be_is_refused(honest: bytes) -> None:
    entries = entries_of(honest)
    entries[MODEL] = entries[MODEL].replace(b"{", b'{"nobody reads this": 1e999, ', 1)
    assert "beyond what a number can be" in why_not(packed(entries))
