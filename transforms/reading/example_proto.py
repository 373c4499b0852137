"""The message tf.train.Example, as tensorflow/core/example/{example,feature}.proto define it, without TensorFlow.

TensorFlow has the same class, but takes seconds and half a gigabyte to import.
"""

from functools import cache
from typing import Any


@cache
def example_class() -> Any:
    """The class of messages `tf.train.Example`, made by protobuf when it is first needed."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")

    def field(parent: Any, name: str, number: int, type: int, **others: Any) -> None:
        label = others.pop("label", types.LABEL_OPTIONAL)
        parent.field.add(name=name, number=number, type=type, label=label, **others)

    repeated = {"label": types.LABEL_REPEATED}
    lists = {"BytesList": types.TYPE_BYTES, "FloatList": types.TYPE_FLOAT, "Int64List": types.TYPE_INT64}
    for name, type in lists.items():
        field(file.message_type.add(name=name), "value", 1, type, **repeated)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, of) in enumerate(zip(("bytes_list", "float_list", "int64_list"), lists, strict=True), start=1):
        field(feature, name, number, types.TYPE_MESSAGE, type_name=f".tensorflow.{of}", oneof_index=0)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, types.TYPE_STRING)
    field(entry, "value", 2, types.TYPE_MESSAGE, type_name=".tensorflow.Feature")
    field(features, "feature", 1, types.TYPE_MESSAGE, type_name=".tensorflow.Features.FeatureEntry", **repeated)
    example = file.message_type.add(name="Example")
    field(example, "features", 1, types.TYPE_MESSAGE, type_name=".tensorflow.Features")
    # Not the pool that all share, where TensorFlow puts its own.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
