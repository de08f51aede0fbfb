"""The techniques automc knows: every module of this package and every installed entry point `automc.techniques`."""

from automc.techniques.registry import get_technique, technique_names

__all__ = ["get_technique", "technique_names"]
