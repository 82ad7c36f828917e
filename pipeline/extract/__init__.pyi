from .job import ExtractResult as ExtractResult
from .job import run as run
from .reproduce import commands as commands
