"""The rotation that comes nearest to any change of a model, as a patch."""

from patchkit.extract.extraction import Extraction, extract
from patchkit.extract.report import ExtractedTensor, ExtractReport

__all__ = ["ExtractReport", "ExtractedTensor", "Extraction", "extract"]
