"""The page of ``snncc inspect --html``: one file that a browser shows without a network.

The page itself, scripts and style, is ``page.html``, built from ``web/`` at the root of the
repository. What is written here is the network: one JSON document that the page reads.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from snncc.cli.page.document import document

if TYPE_CHECKING:
    from snncc.runtime.artifact import CompiledModel

__all__ = ["TEMPLATE", "page", "script_json"]

#: The built page, beside this file.
TEMPLATE = "page.html"
#: Where the document goes; it stands in the built page once.
_PLACE = b"@@snncc-document@@"
#: What would end a script element, open a comment in it, or end a line in JavaScript alone. All
#: other characters that are not ASCII are escaped by ``json`` already.
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
#: Integers from here on are not exact in JavaScript, and are written as text.
_EXACT = 2**53


def page(model: CompiledModel, profile: dict[str, Any] | None = None) -> bytes:
    """The page of a network, UTF-8.

    Args:
        model: As loaded.
        profile: What ``snncc profile`` wrote about it (``read_profile``).

    Raises:
        BadInputError: The file has no report.
    """
    template = files(__package__).joinpath(TEMPLATE).read_bytes()
    before, _, after = template.partition(_PLACE)
    return before + script_json(document(model, profile)).encode() + after


def script_json(data: Any) -> str:
    """Plain data as JSON that may stand in a script element, ASCII: nothing in it is markup."""
    text = json.dumps(_exact(data), allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    for character, escape in _ESCAPED.items():
        text = text.replace(character, escape)
    return text


def _exact(value: Any) -> Any:
    """The same, with integers that JavaScript would round as text."""
    if isinstance(value, dict):
        return {key: _exact(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_exact(inner) for inner in value]
    is_wide = isinstance(value, int) and not -_EXACT <= value <= _EXACT
    return str(value) if is_wide else value
