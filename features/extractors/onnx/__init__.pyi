from .description import Description as Description
from .description import read_description as read_description
from .extractor import OnnxExtractor as OnnxExtractor
