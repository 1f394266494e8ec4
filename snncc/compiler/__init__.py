"""The compiler: its options, its phases in order, and the report of what they did."""

from __future__ import annotations

from snncc.compiler.compilation import check, compile
from snncc.compiler.options import InputOptions, Options

__all__ = ["InputOptions", "Options", "check", "compile"]
