from .base import Extraction as Extraction
from .base import Extractor as Extractor
from .load import MMAExtractor as MMAExtractor
from .load import load_extractor as load_extractor
