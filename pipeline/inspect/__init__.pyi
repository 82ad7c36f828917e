from .job import InspectResult as InspectResult
from .job import run as run
from .options import InspectOptions as InspectOptions
