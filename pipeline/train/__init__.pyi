from .fusion import TrainFusionOptions as TrainFusionOptions
from .fusion import TrainFusionResult as TrainFusionResult
from .options import TrainHeadOptions as TrainHeadOptions
from .result import TrainHeadResult as TrainHeadResult
