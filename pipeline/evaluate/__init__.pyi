from .job import run as run
from .options import EvaluateOptions as EvaluateOptions
from .result import EvaluateResult as EvaluateResult
