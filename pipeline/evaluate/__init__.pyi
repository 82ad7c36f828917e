from .job import EvaluateOptions as EvaluateOptions
from .job import EvaluateResult as EvaluateResult
from .job import run as run
