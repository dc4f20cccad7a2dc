"""YAML of one meaning, whose values are read by who knows their types."""

from __future__ import annotations

from typing import Any

import yaml


class _Plain(yaml.SafeLoader):  # type: ignore[misc]  # untyped
    """PyYAML's safe loader without what surprises: all that is not null is text.

    By YAML 1.1 a bare `no` is False, `1e-4` is text and `010` is 8. Aliases are refused, as a short
    file of them can unfold to any size, and so are tags, which say a type by themselves, and a key
    that stands twice.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # a class attribute of the base
        first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        why = None
        if isinstance(event, yaml.AliasEvent):
            why = "an alias is not read here"
        elif (tag := event.tag) is not None:
            shown = tag.replace("tag:yaml.org,2002:", "!!")[:40]
            why = f"a tag ({shown}) is not read here, each option has its own type"
        if why is not None:
            raise yaml.composer.ComposerError(None, None, why, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        content: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(content) < len(node.value):
            raise yaml.constructor.ConstructorError(
                None, None, "a key stands twice", node.start_mark
            )
        return content


def content_of(data: bytes) -> Any:
    """Return what a document holds: dicts, lists, texts and None; yaml.YAMLError else."""
    return yaml.load(data, Loader=_Plain)  # noqa: S506  # a subclass of SafeLoader
