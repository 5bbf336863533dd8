"""Patches for programs that know LoRA: an exact adapter for a base that stays as it is."""

from patchkit.export.exporting import ExportReport, export

__all__ = ["ExportReport", "export"]
