from .job import DumpResult as DumpResult
from .job import run as run
from .options import DumpOptions as DumpOptions
