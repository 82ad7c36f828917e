from .reading.imported import FeatureFiles as FeatureFiles
from .reading.imported import Format as Format
from .reading.imported import ImportedVideo as ImportedVideo
from .registry import find_format as find_format
from .registry import formats as formats
from .writing.format import DumpFormat as DumpFormat
