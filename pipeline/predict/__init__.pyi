from .compound import CompoundResult as CompoundResult
from .job import PredictOptions as PredictOptions
from .job import PredictResult as PredictResult
from .options import CompoundOptions as CompoundOptions
