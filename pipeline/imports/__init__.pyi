from .job import ImportFeaturesResult as ImportFeaturesResult
from .job import run as run
from .options import ImportFeaturesOptions as ImportFeaturesOptions
