from .imported import FeatureFiles as FeatureFiles
from .imported import Format as Format
from .imported import ImportedVideo as ImportedVideo
from .imported import ReadOptions as ReadOptions
from .layout import Layout as Layout
