from .evaluate_mma import EvaluateMmaResult as EvaluateMmaResult
from .options import EvaluateMmaOptions as EvaluateMmaOptions
from .options import RenderFacesOptions as RenderFacesOptions
from .options import TrainMmaOptions as TrainMmaOptions
from .train_mma import TrainMmaResult as TrainMmaResult
