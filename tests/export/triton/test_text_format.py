"""Text that protobuf's own parser reads back as what was meant."""

from __future__ import annotations

from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from motorvae.export.triton.text_format import Word, map_of, text_of_message

TEXTS = st.text()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=TEXTS, key=TEXTS, value=TEXTS)
def test_any_text_comes_back(name: str, key: str, value: str) -> None:
    text = text_of_message(
        {"name": name, "parameters": map_of({key: {"string_value": value}}), "backend": None}
    )
    found = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert found.name == name
    assert {one: it.string_value for one, it in found.parameters.items()} == {key: value}
    assert found.backend == ""


def test_numbers_words_lists_and_messages_have_their_forms() -> None:
    text = text_of_message(
        {
            "max_batch_size": 4,
            "input": [{"name": "a", "data_type": Word("TYPE_FP32"), "dims": [-1, 2]}],
            "output": [],
            "dynamic_batching": {"preserve_ordering": True, "max_queue_delay_microseconds": 0},
        }
    )
    assert text == (
        "max_batch_size: 4\n"
        'input {\n  name: "a"\n  data_type: TYPE_FP32\n  dims: [-1, 2]\n}\n'
        "dynamic_batching {\n  preserve_ordering: true\n  max_queue_delay_microseconds: 0\n}\n"
    )
    found = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert [*found.input[0].dims] == [-1, 2]
    assert found.HasField("dynamic_batching")
