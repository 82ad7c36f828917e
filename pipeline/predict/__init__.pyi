from .compound import CompoundResult as CompoundResult
from .job import PredictResult as PredictResult
from .options import CompoundOptions as CompoundOptions
from .options import PredictOptions as PredictOptions
