from .ablate import AblateOptions as AblateOptions
from .ablate import AblateResult as AblateResult
from .sweep import SweepOptions as SweepOptions
from .sweep import SweepResult as SweepResult
